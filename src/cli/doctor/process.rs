//! Kernel resources of the process: io_uring, locked memory, descriptors.

use super::host::Host;
use super::{Finding, Plan, State};
use crate::config::IoChoice;
use crate::driver::capacity::{Capacity, DESCRIPTORS_PER_SHARD};
use crate::driver::uring::Options;
use crate::limits::{DESCRIPTORS_RESERVED, REFUSAL_SLOTS_MAX};

/// Locked memory of the ring that the probe creates, in bytes: the kernel may not have released it when the shards
/// create theirs.
const PROBE_LOCKED_BYTES: u64 = 2 * PAGE_BYTES;
const PAGE_BYTES: u64 = 4096;
const CAP_IPC_LOCK: u64 = 1 << 14;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Whether the server will run on io_uring.
fn is_uring(host: &Host, plan: &Plan) -> bool {
    host.uring.is_ok() && plan.io != IoChoice::Epoll
}

/// Locked memory of one ring of a shard, in bytes: its queues in whole pages. Measured on Linux 6.18 without
/// CAP_IPC_LOCK: one shard starts with a limit of 156 KiB and not with 152, two with 304 and not with 300.
fn ring_locked_bytes() -> u64 {
    let options = Options::default();
    let (submissions, completions) = (u64::from(options.submissions), u64::from(options.completions));
    let pages = |bytes: u64| bytes.next_multiple_of(PAGE_BYTES);
    let heads = 256;
    pages(submissions * 64) + pages(heads + completions * 16 + submissions * 4)
}

/// Rings that one shard needs for its part of the connections: the descriptor limit bounds the table of each.
fn rings_per_shard(host: &Host, plan: &Plan) -> u64 {
    let connections = u64::from(plan.expected.connections()).div_ceil(u64::from(plan.shards));
    connections.div_ceil(host.limits.descriptors_hard.max(1)).max(1)
}

pub(super) fn io_uring(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "io_uring";
    let kernel = host.sysctls.get("kernel.osrelease").map_or("unknown", String::as_str);
    let Err(reason) = &host.uring else {
        return Finding::ok(CHECK, format!("a test connection worked (Linux {kernel})"));
    };
    let (state, cost) = match plan.io {
        IoChoice::Uring => (State::Problem, "the server does not start, since io = \"uring\" demands it"),
        IoChoice::Auto => (
            State::Advice,
            "epoll serves instead: the same behaviour, but each connection takes a descriptor of the process and each \
             event takes system calls of its own",
        ),
        IoChoice::Epoll => return Finding::ok(CHECK, format!("not requested (io = \"epoll\"); {reason}")),
    };
    let fix = match host.number("kernel.io_uring_disabled") {
        Some(1..) => "sysctl -w kernel.io_uring_disabled=0",
        Some(0) | None if reason.contains("seccomp") => {
            "run the container with --security-opt seccomp=tuning/seccomp.json"
        }
        Some(0) | None if reason.contains("locked memory") => "LimitMEMLOCK=64M in the unit, or ulimit -l 65536",
        Some(0) | None => "see the reason; Linux 6.1 or newer is best",
    };
    Finding::of(state, CHECK, reason.as_str(), cost, fix)
}

pub(super) fn locked_memory(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "locked_memory";
    let limit = host.limits.locked_bytes_soft;
    let found = if limit == u64::MAX { "unlimited".into() } else { format!("{} KiB", limit / 1024) };
    if !is_uring(host, plan) {
        return Finding::ok(CHECK, format!("{found}; only io_uring needs it"));
    }
    if host.capabilities & CAP_IPC_LOCK != 0 {
        return Finding::ok(CHECK, format!("{found}; not counted with CAP_IPC_LOCK"));
    }
    let once = u64::from(plan.shards) * ring_locked_bytes();
    let first = once + PROBE_LOCKED_BYTES;
    let all = once * rings_per_shard(host, plan).min(u64::from(Options::default().rings_max)) + PROBE_LOCKED_BYTES;
    if limit >= all {
        return Finding::ok(CHECK, format!("{found}; the rings take {} KiB", all / 1024));
    }
    // Kernels between these versions count rings against the control group instead.
    let counted = host.kernel().is_none_or(|version| !((5, 12)..(6, 14)).contains(&version));
    let found = format!("{found}; the rings take {} KiB", all / 1024);
    let mebibytes = (2 * all).div_ceil(1 << 20).max(64);
    let fix = format!("LimitMEMLOCK={mebibytes}M in the unit, or ulimit -l {}", mebibytes * 1024);
    match (counted, limit < first) {
        (true, true) => {
            Finding::of(State::Problem, CHECK, found, "the server does not start: a shard gets no ring", fix)
        }
        (true, false) => {
            let cost = "no further rings: the rest of the connections waits until others end";
            Finding::of(plan.expected.shortfall(), CHECK, found, cost, fix)
        }
        (false, _) => {
            let cost = "none on this kernel, which does not count rings; from 6.14 on the server would lack rings";
            Finding::of(State::Advice, CHECK, found, cost, fix)
        }
    }
}

pub(super) fn descriptors(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "descriptors";
    let (soft, hard) = (host.limits.descriptors_soft, host.limits.descriptors_hard);
    let found = format!("{soft} soft, {hard} hard; the server raises the soft limit to the hard one");
    let wanted = descriptors_wanted(plan);
    let nr_open = host.number("fs.nr_open").unwrap_or(u64::MAX);
    let mut fix = format!("LimitNOFILE={wanted} in the unit, or tuning/limits.conf and a new login");
    if wanted > nr_open {
        fix = format!("sysctl -w fs.nr_open={wanted}, then {fix}");
    }
    let Some(capacity) = Capacity::from_descriptors(hard, plan.shards) else {
        let cost = format!("the server does not start: too few for {} shards", plan.shards);
        return Finding::of(State::Problem, CHECK, found, cost, fix);
    };
    let connections = plan.expected.connections();
    if is_uring(host, plan) {
        let (rings, rings_max) = (rings_per_shard(host, plan), u64::from(Options::default().rings_max));
        return if rings > rings_max {
            let held = hard * rings_max * u64::from(plan.shards);
            let cost =
                format!("room for {held} connections with {rings_max} rings per shard; the rest waits to be accepted");
            Finding::of(plan.expected.shortfall(), CHECK, found, cost, fix)
        } else if rings > 1 {
            Finding::ok(
                CHECK,
                format!("{found}; beyond it {rings} rings per shard, opened as they fill, hold the connections"),
            )
        } else {
            Finding::ok(CHECK, format!("{found}; one ring per shard holds the connections"))
        };
    }
    let held = u64::from(capacity.slots - capacity.refusal_slots) * u64::from(plan.shards);
    if held >= u64::from(connections) {
        return Finding::ok(CHECK, format!("{found}; room for {held} connections on epoll"));
    }
    let cost = format!("room for {held} connections on epoll; further ones are refused with 4100");
    Finding::of(plan.expected.shortfall(), CHECK, found, cost, fix)
}

/// Enough for either driver: the connections and the reserve beside them, rounded up.
fn descriptors_wanted(plan: &Plan) -> u64 {
    let kept_back =
        DESCRIPTORS_RESERVED + u64::from(plan.shards) * (DESCRIPTORS_PER_SHARD + u64::from(REFUSAL_SLOTS_MAX));
    let wanted = u64::from(plan.expected.connections()) + kept_back;
    wanted.next_multiple_of(1024).max(DESCRIPTORS_ADVISED)
}

/// The limit of tuning/relay.service, which is also the most that kernels allow without raising fs.nr_open.
const DESCRIPTORS_ADVISED: u64 = 1_048_576;

pub(super) fn open_files(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "open_files";
    let Some(most) = host.number("fs.file-max") else {
        return Finding::ok(CHECK, "fs.file-max cannot be seen from here");
    };
    let found = format!("fs.file-max = {most}");
    let needed = u64::from(plan.expected.connections()) + 16 * 1024;
    if most >= needed || host.capabilities & CAP_SYS_ADMIN != 0 {
        return Finding::ok(CHECK, found);
    }
    let cost =
        "beyond it the whole machine opens no file and accepts no connection (ENFILE); direct descriptors count too";
    let fix = format!("sysctl -w fs.file-max={}", needed.next_power_of_two());
    Finding::of(plan.expected.shortfall(), CHECK, found, cost, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum is the measured one; other ring sizes must be measured again, and documented in `tuning/`.
    #[test]
    fn rings_are_as_large_as_measured() {
        assert_eq!((ring_locked_bytes(), PROBE_LOCKED_BYTES), (148 * 1024, 8 * 1024));
    }
}
