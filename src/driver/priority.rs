//! Which threads go first on a core that they share.

use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// The nice value of threads beside the shards.
const BESIDE_SHARDS: i32 = 10;

/// Lets shards go first where the calling thread shares a core with one: threads that wait for other servers, for the
/// disk or for operators call this. Without it a shard that has work may wait for their time slices, of milliseconds.
pub fn yield_to_shards() {
    if let Err(error) = setpriority_process(Some(gettid()), BESIDE_SHARDS) {
        tracing::debug!(%error, "a thread beside the shards keeps its priority");
    }
}
