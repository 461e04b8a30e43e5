//! Parts of a request, by the shard that owns what each is about.

use smallvec::SmallVec;

use crate::index::ShardIndex;

/// In the order in which the shards were first named; the parts of each in the order of the request.
pub(super) type ByOwner<T> = SmallVec<[(ShardIndex, Vec<T>); 4]>;

/// Adds a part.
#[inline]
pub(super) fn push_to_owner<T>(by_owner: &mut ByOwner<T>, owner: ShardIndex, part: T) {
    match by_owner.iter_mut().find(|(known, _)| *known == owner) {
        Some((_, parts)) => parts.push(part),
        None => by_owner.push((owner, vec![part])),
    }
}
