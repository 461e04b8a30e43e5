//! Closed sets of reasons, each with the one word that operators read in metrics and logs.

/// One of a closed set of reasons or kinds.
pub trait Label: Copy + Eq + 'static {
    /// All of them, in the order in which they are reported.
    const ALL: &'static [Self];
    /// Their words, in the same order.
    const LABELS: &'static [&'static str];
    /// Its word: lower case, digits and underscores.
    fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }
    /// Its position in `ALL`.
    fn index(self) -> usize;
    /// The one with this word.
    fn of_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.label() == label)
    }
}

/// Defines an enum whose variants have labels: `Variant => "word",` each, in place of `Variant,`.
macro_rules! labels {
    ($(#[$about:meta])* $visible:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        $visible enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $crate::label::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            const LABELS: &'static [&'static str] = &[$($label,)+];
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use labels;

/// A count per label.
#[derive(Clone, Debug)]
pub struct Tally<L> {
    counts: Vec<u64>,
    labels: std::marker::PhantomData<L>,
}

impl<L: Label> Default for Tally<L> {
    fn default() -> Self {
        Self { counts: vec![0; L::ALL.len()], labels: std::marker::PhantomData }
    }
}

impl<L: Label> Tally<L> {
    /// Counts one.
    pub fn count(&mut self, label: L) {
        self.counts[label.index()] += 1;
    }

    /// The count of one label.
    pub fn of(&self, label: L) -> u64 {
        self.counts[label.index()]
    }

    /// Adds the counts of another shard.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Every label with its count, those with none included: a series that begins at 0 shows its first increment.
    pub fn iter(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().map(|&label| (label, self.of(label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        /// Directions.
        enum Side {
            /// Left.
            Left => "left",
            /// Right.
            Right => "right",
        }
    }

    /// Every label has a count from the start, and counts of shards add up.
    #[test]
    fn tallies_add_up() {
        let (mut first, mut second) = (Tally::<Side>::default(), Tally::default());
        first.count(Side::Right);
        second.count(Side::Right);
        second.count(Side::Left);
        first.add(&second);
        let told: Vec<_> = first.iter().map(|(side, count)| (side.label(), count)).collect();
        assert_eq!(told, [("left", 1), ("right", 2)]);
        assert_eq!(Tally::<Side>::default().of(Side::Left), 0);
    }
}
