//! Settings of an operator, each defined once: name, type, accepted values, default and help are one entry of a table.
//!
//! The tables are [`crate::app::settings`] (settings of one app) and `config::settings` (settings of the server).
//! Flags, `RELAY_*`, `relay.toml`, `check-config`, `app set`, `app show`, migration and the tables in `docs/` are
//! derived from them.

use std::fmt;

use serde_json::Value;

/// The values that a setting accepts, as messages and the documentation state them.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number {
        /// Its unit, such as `seconds`; `a number` without one.
        unit: &'static str,
        /// Smallest.
        least: u64,
        /// Largest.
        most: u64,
        /// The meaning of 0 if that is special, such as `no limit`; else empty.
        zero: &'static str,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text of a form that these words describe.
    Form(&'static str),
}

impl Takes {
    /// Smallest and largest of a number.
    pub fn range(self) -> Option<(u64, u64)> {
        match self {
            Self::Number { least, most, .. } => Some((least, most)),
            Self::Switch | Self::Word(_) | Self::Form(_) => None,
        }
    }

    fn number(self, text: &str) -> Option<u64> {
        let (least, most) = self.range()?;
        text.parse().ok().filter(|number| (least..=most).contains(number))
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("true or false"),
            Self::Number { unit, least, most, zero } => {
                write!(f, "{unit} from {least} to {most}")?;
                if zero.is_empty() { Ok(()) } else { write!(f, "; 0 is {zero}") }
            }
            Self::Word([first @ .., last]) => write!(f, "{} or {last}", first.join(", ")),
            Self::Word([]) => Ok(()),
            Self::Form(form) => f.write_str(form),
        }
    }
}

/// One row of a table: a setting of `S`.
pub struct Setting<S> {
    /// Its name, the same everywhere.
    pub name: &'static str,
    /// The lines of its documentation comment. The first is its summary.
    pub lines: &'static [&'static str],
    /// What it accepts.
    pub takes: Takes,
    /// The rest of its definition.
    pub notes: Notes,
    /// Reads a text into its field; `None` leaves the field as it is.
    pub set: fn(&mut S, &str) -> Option<()>,
    /// The value of its field as JSON.
    pub show: fn(&S) -> Value,
}

impl<S> Setting<S> {
    /// What it is, without a full stop, for help and messages.
    pub fn summary(&self) -> &'static str {
        self.lines.first().map_or("", |line| line.trim().trim_end_matches('.'))
    }

    /// The setting of a table with this name or former name.
    pub fn named(table: &'static [Self], name: &str) -> Option<&'static Self> {
        table.iter().find(|setting| setting.name == name || setting.notes.former == Some(name))
    }

    /// The default as people read it; `defaults` has every setting at its default.
    pub fn default_text(&self, defaults: &S) -> String {
        match (self.notes.default, (self.show)(defaults)) {
            (Some(text), _) => text.into(),
            (None, Value::String(text)) => text,
            (None, value) => value.to_string(),
        }
    }
}

/// The parts of a definition that only some settings have.
#[derive(Clone, Copy, Debug)]
pub struct Notes {
    /// The rules and threats of the documentation that it belongs to.
    pub rules: &'static str,
    /// The default in words if its value alone is unclear.
    pub default: Option<&'static str>,
    /// The name of the value of its flag; without one there is no flag.
    pub flag: Option<&'static str>,
    /// Another name of its flag.
    pub flag_alias: Option<&'static str>,
    /// Its default with `--dev`, where it differs.
    pub dev: Option<&'static str>,
    /// An earlier name, still accepted with a warning.
    pub former: Option<&'static str>,
}

/// How a setting with a value of `T` is read and shown: the expression of an entry in [`settings`].
#[derive(Clone, Copy)]
pub struct Definition<T> {
    /// What it accepts.
    pub takes: Takes,
    /// The rest.
    pub notes: Notes,
    read: Read<T>,
    /// Its value as JSON.
    pub show: fn(&T) -> Value,
}

#[derive(Clone, Copy)]
enum Read<T> {
    Number(fn(u64) -> Option<T>),
    Text(fn(&str) -> Option<T>),
}

/// A setting that is on or off.
pub const fn switch() -> Definition<bool> {
    Definition::new(Takes::Switch, Read::Text(read_switch), |value| (*value).into())
}

/// A whole number from `least` to `most` of this unit.
pub const fn number<T>(unit: &'static str, least: u64, most: u64) -> Definition<T>
where
    T: TryFrom<u64> + Copy + Into<Value>,
{
    let takes = Takes::Number { unit, least, most, zero: "" };
    Definition::new(takes, Read::Number(|number| T::try_from(number).ok()), |value| (*value).into())
}

/// A whole number, or none unless it is set.
pub const fn optional_number(unit: &'static str, least: u32, most: u32) -> Definition<Option<u32>> {
    let takes = Takes::Number { unit, least: least as u64, most: most as u64, zero: "" };
    Definition::new(takes, Read::Number(|number| u32::try_from(number).ok().map(Some)), |value| (*value).into())
}

/// One of the words of a closed set, with its reader.
pub const fn word<T>(
    words: &'static [&'static str],
    read: fn(&str) -> Option<T>,
    show: fn(&T) -> Value,
) -> Definition<T> {
    Definition::new(Takes::Word(words), Read::Text(read), show)
}

/// A text of another form, with its reader.
pub const fn form<T>(takes: &'static str, read: fn(&str) -> Option<T>, show: fn(&T) -> Value) -> Definition<T> {
    Definition::new(Takes::Form(takes), Read::Text(read), show)
}

impl<T> Definition<T> {
    const fn new(takes: Takes, read: Read<T>, show: fn(&T) -> Value) -> Self {
        let notes = Notes { rules: "", default: None, flag: None, flag_alias: None, dev: None, former: None };
        Self { takes, notes, read, show }
    }

    /// Reads a value.
    pub fn read(&self, text: &str) -> Option<T> {
        match self.read {
            Read::Number(convert) => convert(self.takes.number(text)?),
            Read::Text(read) => read(text),
        }
    }

    /// 0 has this meaning.
    pub const fn zero(mut self, meaning: &'static str) -> Self {
        if let Takes::Number { zero, .. } = &mut self.takes {
            *zero = meaning;
        }
        self
    }

    /// It belongs to these rules and threats.
    pub const fn rules(mut self, rules: &'static str) -> Self {
        self.notes.rules = rules;
        self
    }

    /// The default, in words.
    pub const fn default_is(mut self, text: &'static str) -> Self {
        self.notes.default = Some(text);
        self
    }

    /// It has a flag, whose value has this name in the help.
    pub const fn flag(mut self, value: &'static str) -> Self {
        self.notes.flag = Some(value);
        self
    }

    /// Another name of its flag.
    pub const fn flag_alias(mut self, name: &'static str) -> Self {
        self.notes.flag_alias = Some(name);
        self
    }

    /// Its default with `--dev`.
    pub const fn dev(mut self, text: &'static str) -> Self {
        self.notes.dev = Some(text);
        self
    }

    /// An earlier name.
    pub const fn former(mut self, name: &'static str) -> Self {
        self.notes.former = Some(name);
        self
    }
}

/// `true`, `on`, `yes`, `1` and their opposites, in any case.
pub fn read_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Defines a struct of settings, its default and its table. Each entry is `name: type = default, definition;` below a
/// documentation comment whose first line is the summary for help and messages; the documentation has all lines.
macro_rules! settings {
    (
        $(#[$about:meta])*
        $visible:vis struct $name:ident, $table:ident;
        $(
            $(#[doc = $line:literal])+
            $(#[serde($($serde:tt)*)])?
            $field:ident: $type:ty = $default:expr, $definition:expr;
        )+
    ) => {
        $(#[$about])*
        $visible struct $name {
            $(
                $(#[doc = $line])+
                $(#[serde($($serde)*)])?
                pub $field: $type,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Every setting, in the order of the documentation.
        $visible const $table: &[$crate::setting::Setting<$name>] = &[
            $({
                const DEFINITION: $crate::setting::Definition<$type> = $definition;
                $crate::setting::Setting {
                    name: stringify!($field),
                    lines: &[$($line),+],
                    takes: DEFINITION.takes,
                    notes: DEFINITION.notes,
                    set: |settings, text| DEFINITION.read(text).map(|value| settings.$field = value),
                    show: |settings| (DEFINITION.show)(&settings.$field),
                }
            },)+
        ];
    };
}
pub(crate) use settings;

/// `, did you mean "x"?` for a mistyped name, or nothing if none is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let score = |candidate: &str| strsim::jaro_winkler(&name.to_ascii_lowercase(), candidate);
    let best = known.into_iter().map(|candidate| (score(candidate), candidate)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, candidate)) if score > 0.7 => format!(", did you mean {candidate:?}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    settings! {
        /// Settings of the test.
        #[derive(Debug, PartialEq)]
        struct Sample, SAMPLE;
        /// Seconds until tea.
        /// It has to cool.
        tea: u32 = 5, number("seconds", 0, 9).zero("at once").former("brew");
        /// Milk.
        milk: bool = false, switch().default_is("never");
        /// Cups.
        cups: Option<u32> = None, optional_number("a number", 1, 4);
    }

    /// Goal: an entry alone makes field, default, parser, message and former name.
    #[test]
    fn an_entry_is_all_there_is() {
        let mut sample = Sample::default();
        assert_eq!(sample, Sample { tea: 5, milk: false, cups: None });
        let set = |sample: &mut Sample, name: &str, text: &str| {
            (Setting::named(SAMPLE, name).expect(name).set)(sample, text).is_some()
        };
        for (name, text) in [("brew", "0"), ("milk", "ON"), ("cups", "4")] {
            assert!(set(&mut sample, name, text), "{name}");
        }
        assert_eq!(sample, Sample { tea: 0, milk: true, cups: Some(4) });
        for (name, text) in [("tea", "10"), ("tea", "-1"), ("tea", ""), ("milk", "maybe"), ("cups", "0"), ("cups", "5")]
        {
            assert!(!set(&mut sample, name, text), "{name}={text}");
        }
        assert_eq!(sample, Sample { tea: 0, milk: true, cups: Some(4) }, "a bad value changes nothing");
        let [tea, milk, cups] = SAMPLE else { panic!("three settings") };
        assert_eq!(
            (tea.summary(), tea.takes.to_string()),
            ("Seconds until tea", "seconds from 0 to 9; 0 is at once".into())
        );
        assert_eq!(
            [tea, milk, cups].map(|setting| setting.default_text(&Sample::default())),
            ["5", "never", "null"].map(str::to_owned)
        );
        assert!(Setting::named(SAMPLE, "coffee").is_none());
    }

    /// The answers to mistyped names.
    #[test]
    fn nearest_names() {
        let known = ["listen", "shards", "metrics_listen"];
        assert_eq!(nearest("lisen", known), ", did you mean \"listen\"?");
        assert_eq!(nearest("SHARD", known), ", did you mean \"shards\"?");
        assert_eq!(nearest("zzz", known), "");
    }
}
