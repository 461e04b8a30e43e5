//! The facts that the doctor reads from the host. Pure functions parse the files of /proc and /sys, and the tests call
//! them with texts; a value that cannot be read is `None` and judged as such.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::fs::Access;

use crate::config::ServeConfig;
use crate::driver::{capacity, listener, uring};
use crate::store::{self, StoreError};

/// The facts.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// Values of [`SYSCTLS`] as the kernel writes them, by name.
    pub(super) sysctls: HashMap<String, String>,
    pub(super) limits: Limits,
    /// `CapEff` of the process judged.
    pub(super) capabilities: u64,
    /// All memory of the machine.
    pub(super) memory_total_bytes: u64,
    /// The tightest limit of the control groups around this process.
    pub(super) memory_limit_bytes: Option<u64>,
    /// The choice in brackets of `transparent_hugepage/enabled`.
    pub(super) huge_pages: Option<String>,
    /// Governors of all processors, each once.
    pub(super) governors: Vec<String>,
    pub(super) clock_source: Option<String>,
    /// Whether io_uring works here, or why not.
    pub(super) uring: Result<(), String>,
    pub(super) listen: PortState,
    pub(super) metrics_listen: PortState,
    pub(super) data: DataState,
}

/// Limits of a process; unlimited ones are `u64::MAX`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Limits {
    pub(super) descriptors_soft: u64,
    pub(super) descriptors_hard: u64,
    pub(super) locked_bytes_soft: u64,
}

/// The state of an address that the server needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum PortState {
    Free,
    /// A process named by `--pid`, or another Relay, listens there.
    Ours(Holder),
    /// Others listen; empty when this user cannot see who.
    Held(Vec<Holder>),
    /// The kernel refuses it for another reason.
    Refused(String),
}

/// A process that listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) name: String,
}

/// The state of the data directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum DataState {
    /// Owner and modes are right, and there is a store.
    Ready,
    /// No store yet; the server creates it.
    Makeable,
    /// No store yet, and this user cannot create one there.
    Unmakeable,
    /// It is on this kind of network file system.
    Remote(&'static str),
    /// The server would refuse it, with this message.
    Refused(String),
}

/// Kernel settings that are checked.
pub(super) const SYSCTLS: [&str; 15] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "kernel.osrelease",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
];

impl Host {
    /// Reads everything; `pid` names the process whose limits apply instead of our own.
    ///
    /// # Errors
    /// A sentence, when the process does not exist.
    pub(super) fn read(config: &ServeConfig, pid: Option<u32>) -> Result<Self, String> {
        let process = pid.map_or_else(|| "self".into(), |pid| pid.to_string());
        let of_process = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {path}: {error}; --pid names a running process"))
        };
        let sysctl = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
            Some((name.to_owned(), text.trim().to_owned()))
        };
        let read = |path: &str| fs::read_to_string(path).ok();
        Ok(Self {
            sysctls: SYSCTLS.into_iter().filter_map(sysctl).collect(),
            limits: parse_limits(&of_process("limits")?),
            capabilities: parse_capabilities(&of_process("status")?),
            memory_total_bytes: capacity::memory_bytes(),
            memory_limit_bytes: capacity::memory_limit(&of_process("cgroup")?),
            huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| parse_choice(&text)),
            governors: governors(),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
                .map(|text| text.trim().to_owned()),
            uring: uring::probe(),
            listen: port(config.server.listen, pid),
            metrics_listen: port(config.server.metrics_listen, pid),
            data: data(&config.server.data),
        })
    }

    /// The first number of a setting.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.numbers(name)?.first().copied()
    }

    /// All numbers of a setting.
    pub(super) fn numbers(&self, name: &str) -> Option<Vec<u64>> {
        self.sysctls.get(name)?.split_whitespace().map(|word| word.parse().ok()).collect()
    }

    /// A setting of three numbers.
    pub(super) fn three(&self, name: &str) -> Option<[u64; 3]> {
        self.numbers(name)?.try_into().ok()
    }

    /// Memory that the process may use.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_total_bytes.min(self.memory_limit_bytes.unwrap_or(u64::MAX))
    }

    /// Major and minor version of the kernel.
    pub(super) fn kernel(&self) -> Option<(u32, u32)> {
        parse_kernel(self.sysctls.get("kernel.osrelease")?)
    }
}

/// `/proc/PID/limits`: a name, which has spaces, then soft limit, hard limit and unit.
fn parse_limits(text: &str) -> Limits {
    let value = |word: Option<&str>| match word {
        Some("unlimited") => u64::MAX,
        word => word.and_then(|word| word.parse().ok()).unwrap_or_default(),
    };
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let mut words = line.split_whitespace();
        (value(words.next()), value(words.next()))
    };
    let (descriptors_soft, descriptors_hard) = of("Max open files");
    let (locked_bytes_soft, _) = of("Max locked memory");
    Limits { descriptors_soft, descriptors_hard, locked_bytes_soft }
}

/// `CapEff` of `/proc/PID/status`; none if it is missing.
fn parse_capabilities(text: &str) -> u64 {
    let digits = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    u64::from_str_radix(digits.trim(), 16).unwrap_or_default()
}

/// The word in brackets: `always [madvise] never`.
fn parse_choice(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// `6.18.44-generic` is 6, 18.
fn parse_kernel(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn governors() -> Vec<String> {
    let Ok(processors) = fs::read_dir("/sys/devices/system/cpu") else {
        return Vec::new();
    };
    let of = |entry: io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.ok()?.path().join("cpufreq/scaling_governor")).ok()?;
        Some(text.trim().to_owned())
    };
    let mut governors: Vec<String> = processors.filter_map(of).collect();
    governors.sort();
    governors.dedup();
    governors
}

/// Tries to bind without listening, so that nobody can connect meanwhile.
fn port(address: SocketAddr, ours: Option<u32>) -> PortState {
    let Err(error) = listener::check_free(address) else {
        return PortState::Free;
    };
    if error.source.kind() != io::ErrorKind::AddrInUse {
        return PortState::Refused(error.to_string());
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inodes: Vec<u64> = tables.iter().flat_map(|table| parse_listening(table, address.port())).collect();
    let holders = holders(&inodes);
    let own = |holder: &&Holder| Some(holder.pid) == ours || holder.name == "relay";
    match holders.iter().find(own) {
        Some(holder) => PortState::Ours(holder.clone()),
        None => PortState::Held(holders),
    }
}

/// Inodes of the sockets of `/proc/net/tcp` that listen (state 0A) on a port.
fn parse_listening(table: &str, port: u16) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let listens = words.get(1)?.ends_with(&suffix) && *words.get(3)? == "0A";
        if listens { words.get(9)?.parse().ok() } else { None }
    };
    table.lines().filter_map(inode).collect()
}

/// Processes that have one of these sockets open, as far as this user may see.
fn holders(inodes: &[u64]) -> Vec<Holder> {
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let holder = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(entry.path().join("fd")).ok()?.filter_map(Result::ok);
        let holds = descriptors.any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|to| links.iter().any(|link| to.as_os_str() == link.as_str()))
        });
        let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
        holds.then_some(Holder { pid, name })
    };
    processes.filter_map(holder).collect()
}

/// Judges with the server's own check, which changes nothing.
fn data(directory: &Path) -> DataState {
    let existing = directory.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let kind = rustix::fs::statfs(existing).ok().and_then(|system| network_file_system(system.f_type as u64));
    if let Some(kind) = kind {
        return DataState::Remote(kind);
    }
    match store::check_directory(directory) {
        Ok(()) => DataState::Ready,
        Err(StoreError::Missing { .. } | StoreError::Empty { .. }) => {
            let writable = rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).is_ok();
            if writable { DataState::Makeable } else { DataState::Unmakeable }
        }
        Err(error) => DataState::Refused(error.to_string()),
    }
}

/// Magic numbers of `statfs` for file systems on which LMDB's locks and maps do not work.
fn network_file_system(magic: u64) -> Option<&'static str> {
    match magic & 0xffff_ffff {
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x00c3_6400 => Some("Ceph"),
        0x0102_1997 => Some("9p"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits are read by name; unlimited and missing ones have values of their own.
    #[test]
    fn limits_are_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n\
                    Max locked memory         unlimited            unlimited            bytes     \n";
        let expected = Limits { descriptors_soft: 1024, descriptors_hard: 524_288, locked_bytes_soft: u64::MAX };
        assert_eq!(parse_limits(text), expected);
        assert_eq!(parse_limits(""), Limits::default());
        assert_eq!(parse_capabilities("CapPrm:\t0000000000000000\nCapEff:\t0000000000004000\n"), 1 << 14);
        assert_eq!(parse_capabilities("Name:\tx\n"), 0);
    }

    /// Small texts of /proc and /sys.
    #[test]
    fn words_and_versions_are_read() {
        assert_eq!(parse_choice("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(parse_choice("tsc\n"), None);
        assert_eq!(parse_kernel("6.18.44-fc-v445"), Some((6, 18)));
        assert_eq!(parse_kernel("5.4-rc1"), Some((5, 4)));
        assert_eq!(parse_kernel("unknown"), None);
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0xef53), None);
    }

    /// Only sockets that listen on exactly this port count, in both tables.
    #[test]
    fn listening_sockets_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1771 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
             1: 0100007F:1771 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n\
             2: 00000000:1772 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
        assert_eq!(parse_listening(table, 6001), [4711]);
        assert_eq!(parse_listening(table, 6002), [4713]);
        let six = "   0: 00000000000000000000000000000000:1771 00000000000000000000000000000000:0000 0A 00000000:00000000 \
                   00:00000000 00000000     0        0 99 1 0 100 0 0 10 0\n";
        assert_eq!(parse_listening(six, 6001), [99]);
    }
}
