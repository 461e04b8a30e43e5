//! Tables for people: rows in columns, each as wide as its longest cell.

use std::fmt;

/// A table under its heading. Every row has as many cells as the heading.
#[derive(Debug)]
pub(super) struct Columns<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Columns<N> {
    pub(super) fn new(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned)] }
    }

    pub(super) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }
}

/// The last column is not padded, and a cell beyond [`WIDTH_MAX`] shifts the rest of its row.
impl<const N: usize> fmt::Display for Columns<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |cell: &String| cell.chars().count();
        let widths: [usize; N] = std::array::from_fn(|column| {
            self.rows.iter().map(|row| length(&row[column])).max().unwrap_or_default().min(WIDTH_MAX)
        });
        for row in &self.rows {
            for (cell, width) in row.iter().zip(widths).take(N - 1) {
                write!(f, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", row[N - 1])?;
        }
        Ok(())
    }
}

const WIDTH_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: columns line up whatever their cells contain, and one long cell does not widen all rows without limit.
    #[test]
    fn columns_line_up() {
        let mut table = Columns::new(["ID", "STATE", "NAME"]);
        table.push(["7".into(), "enabled".into(), "Shop".into()]);
        table.push(["äöü-1".into(), "off".into(), String::new()]);
        assert_eq!(table.to_string(), "ID     STATE    NAME\n7      enabled  Shop\näöü-1  off      \n");
        table.push(["x".repeat(80), "off".into(), String::new()]);
        let text = table.to_string();
        assert!(
            text.starts_with(&format!("{:60}  STATE", "ID"))
                && text.ends_with(&format!("{}  off      \n", "x".repeat(80)))
        );
    }
}
