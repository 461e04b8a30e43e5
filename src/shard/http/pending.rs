//! Requests that wait for answers of other shards or of the process. The answer names its request by a [`PendingId`],
//! so an answer that comes too late cannot reach a later request in the same place.

use slab::Slab;

use crate::shard::mail::PendingId;

/// A table of requests that wait.
pub(super) struct Pending<T> {
    slab: Slab<(u32, T)>,
    nonce: u32,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { slab: Slab::new(), nonce: 0 }
    }
}

impl<T> Pending<T> {
    /// Adds a request.
    pub(super) fn insert(&mut self, request: T) -> PendingId {
        self.nonce = self.nonce.wrapping_add(1);
        PendingId { index: self.slab.insert((self.nonce, request)) as u32, nonce: self.nonce }
    }

    /// The request with this id, if it still waits.
    pub(super) fn get_mut(&mut self, id: PendingId) -> Option<&mut T> {
        let (nonce, request) = self.slab.get_mut(id.index as usize)?;
        (*nonce == id.nonce).then_some(request)
    }

    /// Removes the request with this id, if it still waits.
    pub(super) fn remove(&mut self, id: PendingId) -> Option<T> {
        self.get_mut(id)?;
        Some(self.slab.remove(id.index as usize).1)
    }

    /// The number of requests that wait.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index that is used again has another id: an answer to the earlier request finds nothing.
    #[test]
    fn an_index_used_again_has_another_id() {
        let mut pending = Pending::default();
        let first = pending.insert("first");
        assert_eq!((pending.remove(first), pending.remove(first)), (Some("first"), None));
        let second = pending.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(pending.get_mut(first), None);
        assert_eq!(pending.get_mut(second), Some(&mut "second"));
        assert_eq!(pending.len(), 1);
    }
}
