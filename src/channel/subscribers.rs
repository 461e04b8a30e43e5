//! The local subscribers of one channel, iterated in slot order: visiting connections in the order of their hot lines
//! is what the cache wants.

use roaring::RoaringBitmap;

/// Above this, insertion into a sorted list costs more than a bitmap's.
const LIST_MAX: usize = 1_024;

/// A set of slots.
#[derive(Debug)]
pub enum Subscribers {
    /// Sorted slots.
    List(Vec<u32>),
    /// Many slots.
    Bitmap(RoaringBitmap),
}

impl Default for Subscribers {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Subscribers {
    /// How many there are.
    pub fn count(&self) -> u32 {
        match self {
            Self::List(slots) => slots.len() as u32,
            Self::Bitmap(slots) => slots.len() as u32,
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// True when the slot is in it.
    pub fn contains(&self, slot: u32) -> bool {
        match self {
            Self::List(slots) => slots.binary_search(&slot).is_ok(),
            Self::Bitmap(slots) => slots.contains(slot),
        }
    }

    /// Adds a slot; false when it was there.
    pub fn insert(&mut self, slot: u32) -> bool {
        match self {
            Self::List(slots) => match slots.binary_search(&slot) {
                Ok(_) => false,
                Err(at) if slots.len() < LIST_MAX => {
                    if slots.is_empty() {
                        slots.reserve_exact(1);
                    }
                    slots.insert(at, slot);
                    true
                }
                Err(_) => {
                    let mut bitmap: RoaringBitmap = slots.iter().copied().collect();
                    bitmap.insert(slot);
                    *self = Self::Bitmap(bitmap);
                    true
                }
            },
            Self::Bitmap(slots) => slots.insert(slot),
        }
    }

    /// Removes a slot; false when it was not there.
    pub fn remove(&mut self, slot: u32) -> bool {
        match self {
            Self::List(slots) => match slots.binary_search(&slot) {
                Ok(at) => {
                    slots.remove(at);
                    true
                }
                Err(_) => false,
            },
            Self::Bitmap(slots) => {
                let removed = slots.remove(slot);
                if slots.len() < LIST_MAX as u64 / 2 {
                    *self = Self::List(slots.iter().collect());
                }
                removed
            }
        }
    }

    /// Calls `visit` for each slot, in order.
    pub fn for_each(&self, mut visit: impl FnMut(u32)) {
        match self {
            Self::List(slots) => slots.iter().copied().for_each(&mut visit),
            Self::Bitmap(slots) => slots.iter().for_each(&mut visit),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Any inserts and removals give what an ordered set gives, across the change of representation.
        #[test]
        fn agrees_with_an_ordered_set(steps in prop::collection::vec((any::<bool>(), 0u32..3_000), 0..6_000)) {
            let mut subscribers = Subscribers::default();
            let mut model = BTreeSet::new();
            for (insert, slot) in steps {
                if insert {
                    prop_assert_eq!(subscribers.insert(slot), model.insert(slot));
                } else {
                    prop_assert_eq!(subscribers.remove(slot), model.remove(&slot));
                }
                prop_assert_eq!(subscribers.count() as usize, model.len());
                prop_assert_eq!(subscribers.contains(slot), model.contains(&slot));
            }
            let mut seen = Vec::new();
            subscribers.for_each(|slot| seen.push(slot));
            prop_assert_eq!(seen, model.into_iter().collect::<Vec<_>>());
        }
    }
}
