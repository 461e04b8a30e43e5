//! A table whose entries are found by index and by name. Names are hashed with the process's secret, so that nobody can
//! cause collisions in its buckets (threat T12).

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use slab::Slab;

/// Entries that store the keyed hash of their name.
pub(super) trait Keyed {
    /// Hash of the name, constant as long as the entry is in the table.
    fn hash(&self) -> u64;
}

/// Entries of type `T`, by index `I` and by hash.
pub(super) struct KeyedSlab<I, T> {
    entries: Slab<T>,
    by_hash: HashTable<u32>,
    index: PhantomData<I>,
}

impl<I, T> Default for KeyedSlab<I, T> {
    fn default() -> Self {
        Self { entries: Slab::new(), by_hash: HashTable::new(), index: PhantomData }
    }
}

impl<I: From<usize> + Into<usize>, T: Keyed> KeyedSlab<I, T> {
    /// The entry with this hash for which `is` returns true.
    pub(super) fn find(&self, hash: u64, is: impl Fn(&T) -> bool) -> Option<I> {
        let found = self.by_hash.find(hash, |at| is(&self.entries[*at as usize]));
        found.map(|at| I::from(*at as usize))
    }

    /// Adds an entry whose name is not in the table.
    pub(super) fn insert(&mut self, entry: T) -> I {
        let hash = entry.hash();
        let at = self.entries.insert(entry);
        let entries = &self.entries;
        self.by_hash.insert_unique(hash, at as u32, |at| entries[*at as usize].hash());
        I::from(at)
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, index: I) -> T {
        let at = index.into();
        let entry = self.entries.remove(at);
        let by_hash = self.by_hash.find_entry(entry.hash(), |other| *other as usize == at);
        by_hash.expect("every entry is found by its hash").remove();
        entry
    }

    pub(super) fn get(&self, index: I) -> Option<&T> {
        self.entries.get(index.into())
    }

    pub(super) fn get_mut(&mut self, index: I) -> Option<&mut T> {
        self.entries.get_mut(index.into())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All indices are below this.
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.entries.iter().map(|(at, entry)| (I::from(at), entry))
    }
}

impl<I: Into<usize>, T> Index<I> for KeyedSlab<I, T> {
    type Output = T;

    fn index(&self, index: I) -> &T {
        &self.entries[index.into()]
    }
}

impl<I: Into<usize>, T> IndexMut<I> for KeyedSlab<I, T> {
    fn index_mut(&mut self, index: I) -> &mut T {
        &mut self.entries[index.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::OwnedIndex;

    struct Entry(u64, &'static str);

    impl Keyed for Entry {
        fn hash(&self) -> u64 {
            self.0
        }
    }

    /// Entries of one hash are distinguished by their names, and an entry that was removed is not found.
    #[test]
    fn entries_of_one_hash_are_distinct() {
        let mut table = KeyedSlab::<OwnedIndex, Entry>::default();
        let (a, b) = (table.insert(Entry(1, "a")), table.insert(Entry(1, "b")));
        let find = |table: &KeyedSlab<OwnedIndex, Entry>, name| table.find(1, |entry| entry.1 == name);
        assert_eq!((find(&table, "a"), find(&table, "b"), find(&table, "c")), (Some(a), Some(b), None));
        assert_eq!(table.remove(a).1, "a");
        assert_eq!((find(&table, "a"), find(&table, "b"), table.len()), (None, Some(b), 1));
    }
}
