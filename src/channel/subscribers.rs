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

    /// The first `count` slots from `start` on, in order.
    pub fn some_from(&self, start: u32, count: u32) -> impl Iterator<Item = u32> {
        let (list, bitmap) = match self {
            Self::List(slots) => (&slots[slots.partition_point(|slot| *slot < start)..], None),
            Self::Bitmap(slots) => (&[][..], Some(slots.range(start..))),
        };
        list.iter().copied().chain(bitmap.into_iter().flatten()).take(count as usize)
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
            prop_assert_eq!(&seen, &model.iter().copied().collect::<Vec<_>>());
            let mut in_parts = Vec::new();
            loop {
                let start = in_parts.last().map_or(0, |last| last + 1);
                let part: Vec<u32> = subscribers.some_from(start, 7).collect();
                if part.is_empty() {
                    break;
                }
                in_parts.extend(part);
            }
            prop_assert_eq!(in_parts, seen);
        }
    }
}
