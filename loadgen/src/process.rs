//! Reads CPU time by thread, memory and time spent waiting for a core from /proc.

use std::fs;
use std::num::NonZeroU32;

use serde::Serialize;

use crate::outcome::Failure;

/// CPU time of all threads of a process.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct CpuTime {
    /// User and kernel mode together, from `schedstat`: exact.
    pub(crate) total_ns: u64,
    /// Split from `stat`, in steps of 10 ms.
    pub(crate) user_ns: u64,
    pub(crate) system_ns: u64,
    /// Time in which it was ready to run and had no core.
    pub(crate) wait_ns: u64,
}

impl CpuTime {
    /// The difference to an earlier value.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            total_ns: self.total_ns.saturating_sub(before.total_ns),
            user_ns: self.user_ns.saturating_sub(before.user_ns),
            system_ns: self.system_ns.saturating_sub(before.system_ns),
            wait_ns: self.wait_ns.saturating_sub(before.wait_ns),
        }
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Of that, anonymous memory: neither files nor shared.
    pub(crate) anonymous: u64,
    pub(crate) shared: u64,
    /// `Private_Dirty` of `smaps_rollup`.
    pub(crate) private_dirty: u64,
}

/// A process to measure, usually the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    pid: NonZeroU32,
}

impl Watched {
    /// # Errors
    /// If there is no such process or it may not be read.
    pub(crate) fn new(pid: u32) -> Result<Self, Failure> {
        let pid = NonZeroU32::new(pid).ok_or_else(|| Failure::Usage("--server-pid 0: not a process id".into()))?;
        let watched = Self { pid };
        if watched.cpu().is_none() {
            return Err(Failure::Usage(format!("--server-pid {pid}: no such process, or /proc/{pid} cannot be read")));
        }
        Ok(watched)
    }

    /// `None` when the process is gone.
    pub(crate) fn cpu(self) -> Option<CpuTime> {
        let mut sum = CpuTime::default();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?.flatten() {
            // A thread may end meanwhile.
            let Some(time) = thread_cpu(&task.path().to_string_lossy()) else { continue };
            sum.total_ns += time.total_ns;
            sum.user_ns += time.user_ns;
            sum.system_ns += time.system_ns;
            sum.wait_ns += time.wait_ns;
        }
        Some(sum)
    }

    /// `None` when the process is gone.
    pub(crate) fn memory(self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        // Only root and the same user may read it; the other values do not need it.
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        Some(Memory {
            resident: kilobytes(&status, "VmRSS:")?,
            anonymous: kilobytes(&status, "RssAnon:").unwrap_or(0),
            shared: kilobytes(&status, "RssShmem:").unwrap_or(0),
            private_dirty: kilobytes(&rollup, "Private_Dirty:").unwrap_or(0),
        })
    }

    /// The only core that the process may use, if there is only one.
    pub(crate) fn only_core(self) -> Option<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        list.trim().parse().ok()
    }
}

/// CPU time of the thread with this folder in /proc.
pub(crate) fn thread_cpu(folder: &str) -> Option<CpuTime> {
    let schedule = fs::read_to_string(format!("{folder}/schedstat")).ok();
    let mut schedule = schedule.iter().flat_map(|text| text.split_ascii_whitespace()).map_while(|n| n.parse().ok());
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    // The name in parentheses may contain anything; fields 14 and 15 are counted from its end.
    let fields = stat.rsplit_once(')')?.1;
    let mut ticks = fields.split_ascii_whitespace().skip(11).map_while(|n| n.parse::<u64>().ok());
    let user_ns = ticks.next()?.saturating_mul(TICK_NS);
    let system_ns = ticks.next()?.saturating_mul(TICK_NS);
    let total_ns = schedule.next().unwrap_or(user_ns + system_ns);
    Some(CpuTime { total_ns, user_ns, system_ns, wait_ns: schedule.next().unwrap_or(0) })
}

/// Why a process does not answer, if /proc shows it.
pub(crate) fn trouble(pid: u32) -> Option<&'static str> {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return Some("is gone") };
    let state = status.lines().find_map(|line| line.strip_prefix("State:"))?.trim_start().chars().next()?;
    match state {
        'T' | 't' => Some("is stopped"),
        'Z' | 'X' => Some("has ended"),
        _ => None,
    }
}

/// Makes the kernel kill this process when its parent ends, for whatever reason.
pub(crate) fn end_with_parent() {
    // Otherwise a process in the middle of a round would finish it first.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

/// Memory that the kernel uses for its own objects, sockets among them, in bytes.
pub(crate) fn kernel_slab_bytes() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "Slab:")
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// `USER_HZ` is 100 on every Linux target of Rust.
const TICK_NS: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: this process can be watched, and its CPU grows with work done.
    #[test]
    fn a_process_is_watched() {
        let own = Watched::new(std::process::id()).expect("we run");
        let before = own.cpu().expect("we run");
        let mut sum = 0_u64;
        let begin = crate::clock::now_ns();
        while crate::clock::now_ns() - begin < 30_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(own.cpu().expect("we run").since(before).total_ns > 0, "{sum}");
        let memory = own.memory().expect("we run");
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0);
    }

    /// Goal: a process that is not there is a usage error.
    #[test]
    fn a_missing_process_is_refused() {
        assert!(matches!(Watched::new(0), Err(Failure::Usage(_))));
        assert!(matches!(Watched::new(u32::MAX / 2), Err(Failure::Usage(_))));
    }
}
