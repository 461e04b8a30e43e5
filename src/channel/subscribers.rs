//! The local subscribers of one channel, iterated in slot order: visiting connections in the order of their hot lines
//! is cache-friendly.

use roaring::RoaringBitmap;

use crate::index::Slot;

/// Above this size, insertion into a sorted list costs more than into a bitmap.
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
    /// Number of slots.
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
    pub fn contains(&self, slot: Slot) -> bool {
        match self {
            Self::List(slots) => slots.binary_search(&slot.0).is_ok(),
            Self::Bitmap(slots) => slots.contains(slot.0),
        }
    }

    /// Adds a slot; false when it was already there.
    pub fn insert(&mut self, slot: Slot) -> bool {
        match self {
            Self::List(slots) => match slots.binary_search(&slot.0) {
                Ok(_) => false,
                Err(at) if slots.len() < LIST_MAX => {
                    if slots.is_empty() {
                        slots.reserve_exact(1);
                    }
                    slots.insert(at, slot.0);
                    true
                }
                Err(_) => {
                    let mut bitmap: RoaringBitmap = slots.iter().copied().collect();
                    bitmap.insert(slot.0);
                    *self = Self::Bitmap(bitmap);
                    true
                }
            },
            Self::Bitmap(slots) => slots.insert(slot.0),
        }
    }

    /// Removes a slot; false when it was not there.
    pub fn remove(&mut self, slot: Slot) -> bool {
        match self {
            Self::List(slots) => match slots.binary_search(&slot.0) {
                Ok(at) => {
                    slots.remove(at);
                    true
                }
                Err(_) => false,
            },
            Self::Bitmap(slots) => {
                let removed = slots.remove(slot.0);
                if slots.len() < LIST_MAX as u64 / 2 {
                    *self = Self::List(slots.iter().collect());
                }
                removed
            }
        }
    }

    /// Calls `visit` for each slot, in order.
    pub fn for_each(&self, mut visit: impl FnMut(Slot)) {
        match self {
            Self::List(slots) => slots.iter().copied().map(Slot).for_each(&mut visit),
            Self::Bitmap(slots) => slots.iter().map(Slot).for_each(&mut visit),
        }
    }

    /// The slots, as a separate set that can be consumed while subscribers come and go.
    pub fn to_bitmap(&self) -> RoaringBitmap {
        match self {
            Self::List(slots) => slots.iter().copied().collect(),
            Self::Bitmap(slots) => slots.clone(),
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
        /// Any inserts and removals have the same result as on an ordered set, across the change of representation.
        #[test]
        fn agrees_with_an_ordered_set(steps in prop::collection::vec((any::<bool>(), 0u32..3_000), 0..6_000)) {
            let mut subscribers = Subscribers::default();
            let mut model = BTreeSet::new();
            for (insert, slot) in steps {
                if insert {
                    prop_assert_eq!(subscribers.insert(Slot(slot)), model.insert(slot));
                } else {
                    prop_assert_eq!(subscribers.remove(Slot(slot)), model.remove(&slot));
                }
                prop_assert_eq!(subscribers.count() as usize, model.len());
                prop_assert_eq!(subscribers.is_empty(), model.is_empty());
                prop_assert_eq!(subscribers.contains(Slot(slot)), model.contains(&slot));
            }
            let mut seen = Vec::new();
            subscribers.for_each(|slot| seen.push(slot.0));
            prop_assert_eq!(&seen, &model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(subscribers.to_bitmap().iter().collect::<Vec<u32>>(), seen);
        }
    }
}
