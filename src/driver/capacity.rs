//! How many connections the process may hold at once, given its limits on descriptors and memory (P-CLOSE-2, threat
//! T15).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::slots::CAPACITY_MAX;
use crate::limits::{DESCRIPTORS_RESERVED, REFUSAL_SLOTS_MAX};

/// The connection slots of one shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capacity {
    /// All slots.
    pub slots: u32,
    /// Number of these that are reserved for refusing with 4100.
    pub refusal_slots: u32,
}

/// Raises the soft descriptor limit to the hard limit, which needs no privilege, and returns the limit now in force.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of descriptors stays at {:?}", limit.current);
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

impl Capacity {
    /// The slots left for each of `shards` when every connection costs a descriptor; `None` when that is not even a
    /// handful, so that a server would refuse every client.
    pub fn from_descriptors(limit: u64, shards: u16) -> Option<Self> {
        let shards = u64::from(shards.max(1));
        let reserved = DESCRIPTORS_RESERVED + shards * DESCRIPTORS_PER_SHARD;
        let slots = limit.saturating_sub(reserved) / shards;
        let slots = u32::try_from(slots).unwrap_or(CAPACITY_MAX).min(CAPACITY_MAX);
        (slots >= SLOTS_MIN).then(|| Self::of(slots))
    }

    /// The slots that memory supports for each of `shards` when connections cost no descriptor of the process (direct
    /// descriptors).
    pub fn from_memory(memory_bytes: u64, shards: u16) -> Self {
        let slots = memory_bytes / 4 * 3 / CONNECTION_BYTES / u64::from(shards.max(1));
        Self::of(u32::try_from(slots).unwrap_or(CAPACITY_MAX).clamp(SLOTS_MIN, CAPACITY_MAX))
    }

    /// At most `connections_max` for all `shards` together, in addition to the reserved slots.
    #[must_use]
    pub fn limited(self, connections_max: u32, shards: u16) -> Self {
        let slots = connections_max.div_ceil(u32::from(shards.max(1))).max(1);
        if slots + self.refusal_slots >= self.slots {
            return self;
        }
        Self { slots: slots + self.refusal_slots, refusal_slots: self.refusal_slots }
    }

    /// This many slots, of which a sixteenth (at least one, at most `REFUSAL_SLOTS_MAX`) are reserved.
    pub fn of(slots: u32) -> Self {
        Self { slots, refusal_slots: (slots / 16).clamp(1, REFUSAL_SLOTS_MAX) }
    }
}

/// A shard's epoll set or ring, eventfd and two listeners.
pub const DESCRIPTORS_PER_SHARD: u64 = 4;
const SLOTS_MIN: u32 = 16;
/// The cost of an idle connection, including the kernel's part (about 4.2 KB), plus a margin for its activity when not
/// idle.
const CONNECTION_BYTES: u64 = 8 * 1024;

/// The memory of this machine in bytes; 1 GiB if the kernel does not report it.
pub fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    total.map_or(1 << 30, |kilobytes: u64| kilobytes * 1024)
}

/// The memory that this process may use in bytes: the machine's memory, or less if its control group limits it.
pub fn usable_memory_bytes() -> u64 {
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    memory_bytes().min(memory_limit(&group).unwrap_or(u64::MAX))
}

/// The limit of the control groups that `/proc/PID/cgroup` names, in bytes; `None` if there is none.
pub fn memory_limit(groups: &str) -> Option<u64> {
    least_limit(groups, |file| std::fs::read_to_string(file).ok())
}

fn least_limit(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    // `max` of version 2 is not a number; version 1 writes a number near 2^63, which no machine's memory exceeds.
    limit_files(groups).iter().filter_map(|file| read(file)?.trim().parse().ok()).min()
}

/// `/proc/PID/cgroup`: where the files with the memory limits of the process may be, the innermost first. Inside a
/// container the path is that of the host while the mount shows the container's own group, so the roots are there too.
fn limit_files(text: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(mut path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        while let Some((parent, _)) = path.rsplit_once('/').filter(|_| path != "/") {
            files.push(format!("{mount}{path}/{file}"));
            path = parent;
        }
        files.push(format!("{mount}/{file}"));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-CLOSE-2: an operator's limit counts ordinary connections of all shards; a limit above the possible number
    /// changes nothing.
    #[test]
    fn operators_bound_is_kept() {
        let possible = Capacity::of(10_000);
        assert_eq!(possible.limited(100, 2), Capacity { slots: 50 + 128, refusal_slots: 128 });
        assert_eq!(possible.limited(1, 2).slots, 1 + 128);
        assert_eq!(possible.limited(1_000_000, 2), possible);
        assert_eq!(Capacity::from_memory(8 << 30, 2).slots, 393_216);
        assert!(memory_bytes() > 64 << 20);
    }

    /// Both versions of control groups: every group on the path to the root may have a limit; groups other than memory
    /// are ignored.
    #[test]
    fn limits_of_groups_are_found() {
        let second = limit_files("0::/system.slice/relay.service\n");
        assert_eq!(
            second,
            [
                "/sys/fs/cgroup/system.slice/relay.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        let first = limit_files("5:devices:/\n4:memory:/a/b\n3:cpu,cpuacct:/c\n");
        assert_eq!(
            first,
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
    }

    /// P-CLOSE-2, threat T15: the lowest limit of a process's groups counts, for version 2 as for version 1, and so
    /// does one that a container sees at the root of its mount; `max` is not a limit.
    #[test]
    fn control_groups_limit_memory() {
        let with = |groups: &str, files: &[(&str, &str)]| {
            let read = |file: &str| files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned());
            least_limit(groups, read)
        };
        let (v2, leaf) = ("0::/system.slice/relay.service\n", "/sys/fs/cgroup/system.slice/relay.service/memory.max");
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(with(v2, &[]), None);
        assert_eq!(with(v2, &[(leaf, "max\n"), (slice, "max\n")]), None);
        assert_eq!(with(v2, &[(leaf, "max\n"), (slice, "1073741824\n")]), Some(1 << 30));
        assert_eq!(with(v2, &[(leaf, "268435456\n"), (slice, "1073741824\n")]), Some(256 << 20));
        assert_eq!(with("0::/\n", &[("/sys/fs/cgroup/memory.max", "67108864\n")]), Some(64 << 20));
        let v1 = "12:cpu,cpuacct:/a\n4:memory:/docker/0123\n1:name=systemd:/b\n";
        let limit = "/sys/fs/cgroup/memory/docker/0123/memory.limit_in_bytes";
        let root = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(with(v1, &[(limit, "536870912\n"), root]), Some(512 << 20));
        assert!(usable_memory_bytes() <= memory_bytes());
    }

    /// Threat T15: all shards together, their own descriptors and the reserve stay within the limit; a limit that is
    /// too low is refused instead of serving with no slots.
    #[test]
    fn shards_share_the_limit() {
        for limit in [1_024, 20_000, 1_048_576, u64::MAX] {
            for shards in [1_u16, 2, 5, 64] {
                let Some(capacity) = Capacity::from_descriptors(limit, shards) else {
                    assert!(limit == 1_024 && shards == 64);
                    continue;
                };
                let used = u64::from(shards) * (u64::from(capacity.slots) + DESCRIPTORS_PER_SHARD);
                assert!(used + DESCRIPTORS_RESERVED <= limit, "{limit} {shards} {capacity:?}");
                assert!((1..=REFUSAL_SLOTS_MAX).contains(&capacity.refusal_slots));
            }
        }
        assert_eq!(Capacity::from_descriptors(140, 1), None);
        assert_eq!(Capacity::from_descriptors(20_000, 2), Some(Capacity { slots: 9_932, refusal_slots: 128 }));
    }
}
