//! Memory, the data directory, and the clock source.

use super::host::{DataState, Host};
use super::{Finding, Plan, State};
use crate::driver::capacity::Capacity;

pub(super) fn memory(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "memory";
    let carried = |bytes: u64| {
        let capacity = Capacity::from_memory(bytes, plan.shards);
        u64::from(capacity.slots - capacity.refusal_slots) * u64::from(plan.shards)
    };
    let (usable, total) = (host.memory_bytes(), host.memory_total_bytes);
    let room = carried(usable);
    let mebibytes = |bytes: u64| bytes / (1 << 20);
    let found = if usable < total {
        format!("{} MiB by the control group, of {} MiB", mebibytes(usable), mebibytes(total))
    } else {
        format!("{} MiB", mebibytes(total))
    };
    let connections = u64::from(plan.expected.connections());
    if room < connections {
        let cost = format!(
            "room for about {room} connections, each reckoned at 8 KiB (an idle one takes 3.85 KB of the kernel, \
             another 3.85 KB where the client is on this machine too, and some hundred bytes of the server)"
        );
        let fix = format!("max_connections = {room} in relay.toml, or more memory");
        return Finding::of(plan.expected.shortfall(), CHECK, found, cost, fix);
    }
    Finding::ok(CHECK, format!("{found}, room for {room} connections"))
}

pub(super) fn data(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "data";
    let directory = plan.data.display();
    match &host.data {
        DataState::Ready => Finding::ok(CHECK, format!("{directory}: owner and modes are right")),
        DataState::Makeable => Finding::ok(CHECK, format!("{directory}: no store yet, the server makes it")),
        DataState::Unmakeable => Finding::of(
            State::Problem,
            CHECK,
            format!("{directory}: no store yet, and this user cannot make it there"),
            "the server does not start as this user",
            format!("install -d -m 700 -o $(id -un) {directory} as root, or StateDirectory=relay in the unit"),
        ),
        DataState::Remote(kind) => Finding::of(
            State::Problem,
            CHECK,
            format!("{directory} lies on a network file system ({kind})"),
            "LMDB's locks and memory map do not hold there: the store gets damaged",
            "data on a local disk",
        ),
        DataState::Refused(reason) => Finding::of(
            State::Problem,
            CHECK,
            reason.as_str(),
            "the server refuses the directory and does not start",
            "the command in the reason",
        ),
    }
}

/// Independent of the host's setting: the server disables huge pages for itself.
pub(super) fn huge_pages(host: &Host) -> Finding {
    const CHECK: &str = "huge_pages";
    match host.huge_pages.as_deref() {
        None => Finding::ok(CHECK, "this kernel has none, or they cannot be seen from here"),
        Some(choice) => {
            Finding::ok(CHECK, format!("transparent_hugepage is {choice}; the server does without them in any case"))
        }
    }
}

pub(super) fn governor(host: &Host) -> Finding {
    const CHECK: &str = "cpu_governor";
    let governors = host.governors.join(", ");
    if host.governors.is_empty() {
        return Finding::ok(CHECK, "none here, as in most virtual machines");
    }
    if host.governors == ["performance"] {
        return Finding::ok(CHECK, governors);
    }
    Finding::of(
        State::Advice,
        CHECK,
        governors,
        "a processor that idles between events clocks down: the first deliveries after a pause are late, and measured figures vary",
        "cpupower frequency-set -g performance",
    )
}

/// Clock sources that are read without a system call.
const CLOCKS_FAST: [&str; 4] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];

pub(super) fn clock(host: &Host) -> Finding {
    const CHECK: &str = "clock";
    match host.clock_source.as_deref() {
        None => Finding::ok(CHECK, "cannot be seen from here"),
        Some(source) if CLOCKS_FAST.contains(&source) => Finding::ok(CHECK, source),
        Some(source) => Finding::of(
            State::Advice,
            CHECK,
            source,
            "every reading of the clock is a system call, and slow: one for each turn of each shard",
            "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource, if it is among the available ones",
        ),
    }
}
