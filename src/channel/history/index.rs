//! Finds the events of a group by their sequence, for requests that name events by their ids (R-REPLAY-1).

use std::collections::VecDeque;

/// The events of a group of an app, in the order of their sequences. Adding and removing one takes constant time on
/// average.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The lower half of a sequence and the place of its event, which may have been dropped since. All sequences are
    /// within half of the range of the lower half: no shard stores so many events in the longest window.
    entries: VecDeque<(u32, u32)>,
    /// Entries of events that were dropped.
    dropped: usize,
}

impl Index {
    /// Adds an event with the highest sequence so far.
    pub(super) fn push(&mut self, sequence: u64, at: u32) {
        self.entries.push_back((sequence as u32, at));
    }

    /// An event was dropped. Its entry is removed when more than half of all entries are of dropped events; `is_kept`
    /// decides by the lower half of a sequence and a place.
    pub(super) fn note_dropped(&mut self, is_kept: impl Fn(u32, u32) -> bool) {
        self.dropped += 1;
        if self.dropped * 2 > self.entries.len() {
            self.entries.retain(|(low, at)| is_kept(*low, *at));
            self.dropped = 0;
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// The place of the event with this sequence, if it has an entry. Its place may be that of another event by now.
    pub(super) fn find(&self, sequence: u64) -> Option<u32> {
        let (first, _) = *self.entries.front()?;
        let distance = |low: u32| low.wrapping_sub(first);
        let at = self.entries.binary_search_by_key(&distance(sequence as u32), |(low, _)| distance(*low)).ok()?;
        self.entries.get(at).map(|(_, at)| *at)
    }

    /// Number of entries.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-REPLAY-1: sequences beyond 32 bits, and those on both sides of a multiple of 2^32, are different.
    #[test]
    fn lower_halves_wrap() {
        let (mut index, start) = (Index::default(), (7 << 32) - 3);
        for at in 0..6 {
            index.push(start + u64::from(at) * 2, at);
        }
        for at in 0..6 {
            let sequence = start + u64::from(at) * 2;
            assert_eq!((index.find(sequence), index.find(sequence + 1)), (Some(at), None));
        }
        assert_eq!((index.find(start - 1), index.find(start + 12)), (None, None));
    }
}
