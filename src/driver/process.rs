//! Metrics of this process, read on request; a reading costs the requesting shard about a tenth of a millisecond.

use rustix::process::{Resource, getrlimit};

use super::{capacity, log_writer};
use crate::metrics::figures::ProcessFigures;

/// Reads the metrics; those that the kernel does not report are 0.
pub fn measure() -> ProcessFigures {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    ProcessFigures {
        resident_bytes: kilobytes(&read("/proc/self/status"), "VmRSS:") * 1024,
        memory_bytes_max: capacity::memory_bytes(),
        memory_bytes_available: kilobytes(&read("/proc/meminfo"), "MemAvailable:") * 1024,
        descriptors: descriptors(),
        descriptors_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        processor_ms: processor_ticks(&read("/proc/self/stat")) * MS_PER_TICK,
        log_lines_dropped: log_writer::dropped(),
        ..ProcessFigures::default()
    }
}

/// The value of a line such as `VmRSS:     1234 kB`.
fn kilobytes(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok());
    value.unwrap_or(0)
}

/// Since Linux 6.2 the size of the directory is the number of descriptors; before that it is 0, and they are counted.
fn descriptors() -> u64 {
    match std::fs::metadata("/proc/self/fd").map(|metadata| metadata.len()) {
        Ok(count @ 1..) => count,
        Ok(0) | Err(_) => std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
    }
}

/// User and system time, in ticks. The program name precedes them in parentheses and may contain anything.
pub(super) fn processor_ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// The kernel reports times to user space in hundredths of a second (`USER_HZ`).
pub(super) const MS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// The metrics are those of this process: memory and descriptors are in use, and opening one more shows up.
    #[test]
    fn this_process_is_measured() {
        let before = measure();
        assert!(before.resident_bytes > 1 << 20 && before.resident_bytes < before.memory_bytes_max, "{before:?}");
        assert!(before.memory_bytes_available > 0 && before.descriptors > 2, "{before:?}");
        let files: Vec<_> = (0..200).map(|_| std::fs::File::open("/proc/self/stat").expect("procfs")).collect();
        let after = measure();
        assert!(after.descriptors >= before.descriptors + 100, "{before:?} {after:?}");
        assert!(after.descriptors_max >= after.descriptors);
        drop(files);
    }

    /// A program name with parentheses and spaces does not shift the fields.
    #[test]
    fn processor_time_is_found() {
        let stat = "17 (a) b (c)) S 1 17 17 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 9 0 0";
        assert_eq!(processor_ticks(stat), 300);
        assert_eq!(processor_ticks(""), 0);
    }
}
