//! Ports, queues and buffers of TCP.

use std::net::SocketAddr;

use super::host::{Host, PortState};
use super::{Finding, Plan, State};
use crate::driver::listener::{BACKLOG, SEND_BUFFER_BYTES};

/// Largest receive buffer that is no reason for advice, in bytes: the kernel's own default.
const RECEIVE_BUFFER_BYTES_MAX: u64 = 6 * 1024 * 1024;
/// Leaves the ports of services free, those of Relay among them.
const LOCAL_PORTS_ADVISED: &str = "10240 65535";

/// Whether an address that the server needs is available.
pub(super) fn port(check: &'static str, state: &PortState, address: SocketAddr) -> Finding {
    match state {
        PortState::Free if address.port() == 0 => {
            Finding::ok(check, format!("{address}: the kernel picks a free port"))
        }
        PortState::Free => Finding::ok(check, format!("{address} is free")),
        PortState::Ours(holder) => {
            Finding::ok(check, format!("{address} is served by pid {} ({})", holder.pid, holder.name))
        }
        PortState::Refused(reason) => {
            let fix = format!("another {check} in relay.toml");
            Finding::of(State::Problem, check, reason.as_str(), "the server does not start", fix)
        }
        PortState::Held(holders) => {
            let names: Vec<_> = holders.iter().map(|holder| format!("pid {} ({})", holder.pid, holder.name)).collect();
            let (who, fix) = if names.is_empty() {
                let fix = format!(
                    "run `ss -ltnp 'sport = :{}'` as root to see the process; if it is Relay, ignore this",
                    address.port()
                );
                ("a process of another user".into(), fix)
            } else {
                (names.join(", "), format!("stop it, or set another {check}"))
            };
            let found = format!("{address} is held by {who}");
            Finding::of(State::Problem, check, found, "the server does not start: it never shares a port", fix)
        }
    }
}

/// Lowest and highest port that outgoing connections use.
fn port_range(host: &Host) -> Option<(u64, u64)> {
    match host.numbers("net.ipv4.ip_local_port_range")?[..] {
        [low, high] if low <= high => Some((low, high)),
        _ => None,
    }
}

pub(super) fn local_ports(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "local_ports";
    let Some((low, high)) = port_range(host) else {
        return Finding::ok(CHECK, "net.ipv4.ip_local_port_range cannot be seen from here");
    };
    let ports = high - low + 1;
    let found = format!("{low} to {high}: {ports} outgoing connections to one address and port");
    let wanted = u64::from(plan.expected.connections());
    if ports >= wanted.min(LOCAL_PORTS_MANY) {
        return Finding::ok(CHECK, found);
    }
    let cost = "a proxy or load generator on this machine fails beyond that (EADDRNOTAVAIL), unless it uses several \
                source addresses such as those of 127.0.0.0/8; clients from elsewhere do not count";
    let fix = format!("sysctl -w net.ipv4.ip_local_port_range='{LOCAL_PORTS_ADVISED}'");
    Finding::of(State::Advice, CHECK, found, cost, fix)
}

/// As many as possible without using ports of services.
const LOCAL_PORTS_MANY: u64 = 50_000;

/// Outgoing connections must not use a port that the server needs at its next start.
pub(super) fn reserved_ports(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "reserved_ports";
    let reserved = host.sysctls.get("net.ipv4.ip_local_reserved_ports").map_or("", String::as_str);
    let range = port_range(host);
    let exposed = |port: &u16| {
        let number = u64::from(*port);
        range.is_some_and(|(low, high)| (low..=high).contains(&number)) && !is_reserved(reserved, *port)
    };
    let ports = [plan.listen.port(), plan.metrics_listen.port()];
    let exposed: Vec<String> = ports.iter().filter(|port| exposed(port)).map(u16::to_string).collect();
    if exposed.is_empty() {
        return Finding::ok(CHECK, "no outgoing connection can be given a port of the server");
    }
    let exposed = exposed.join(",");
    let all = if reserved.is_empty() { exposed.clone() } else { format!("{reserved},{exposed}") };
    Finding::of(
        State::Advice,
        CHECK,
        format!("{exposed} may be given to outgoing connections"),
        "a restart fails now and then, because the port is in use",
        format!("sysctl -w net.ipv4.ip_local_reserved_ports={all}"),
    )
}

/// `8080,9000-9010`: ports and ranges.
fn is_reserved(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&port),
            _ => false,
        }
    })
}

pub(super) fn accept_queue(host: &Host) -> Finding {
    const CHECK: &str = "accept_queue";
    let wanted = u64::try_from(BACKLOG).expect("positive");
    match host.number("net.core.somaxconn") {
        None => Finding::ok(CHECK, "net.core.somaxconn cannot be seen from here"),
        Some(most) if most >= wanted => {
            Finding::ok(CHECK, format!("net.core.somaxconn = {most}, the server asks for {wanted} per shard"))
        }
        Some(most) => Finding::of(
            State::Advice,
            CHECK,
            format!("net.core.somaxconn = {most}, the server asks for {wanted} per shard"),
            format!(
                "when many reconnect at once, beyond {most} waiting per shard their SYNs are dropped and repeated after 1 s, 3 s, 7 s"
            ),
            format!("sysctl -w net.core.somaxconn={wanted}"),
        ),
    }
}

pub(super) fn syn_queue(host: &Host) -> Finding {
    const CHECK: &str = "syn_queue";
    let wanted = u64::try_from(BACKLOG).expect("positive");
    let (backlog, cookies) = (host.number("net.ipv4.tcp_max_syn_backlog"), host.number("net.ipv4.tcp_syncookies"));
    let (Some(backlog), Some(cookies)) = (backlog, cookies) else {
        return Finding::ok(CHECK, "net.ipv4.tcp_max_syn_backlog cannot be seen from here");
    };
    let found = format!("tcp_max_syn_backlog = {backlog}, tcp_syncookies = {cookies}");
    if cookies > 0 {
        return Finding::ok(CHECK, format!("{found}: a full queue answers with cookies"));
    }
    if backlog >= wanted {
        let cost = "a flood of SYNs fills the queue, and new clients are dropped";
        return Finding::of(State::Advice, CHECK, found, cost, "sysctl -w net.ipv4.tcp_syncookies=1");
    }
    let cost = "without cookies, new clients are dropped when three quarters of the queue are taken";
    let fix = format!("sysctl -w net.ipv4.tcp_syncookies=1 net.ipv4.tcp_max_syn_backlog={wanted}");
    Finding::of(State::Advice, CHECK, found, cost, fix)
}

/// A socket with queued data counts for at least one page, an idle one for none (measured: 0.9 pages per connection
/// with 128 or 1,024 bytes in flight, 3 with 10 KiB).
pub(super) fn tcp_memory(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "tcp_memory";
    let Some([_, pressure, most]) = host.three("net.ipv4.tcp_mem") else {
        return Finding::ok(CHECK, "net.ipv4.tcp_mem cannot be seen from here: it is the host's");
    };
    let found = format!("net.ipv4.tcp_mem: pressure at {pressure} pages, {most} at most");
    let needed = u64::from(plan.expected.connections());
    if pressure >= needed {
        return Finding::ok(CHECK, found);
    }
    Finding::of(
        State::Advice,
        CHECK,
        found,
        format!(
            "one event to all {needed} connections queues about as many pages at once: under pressure the kernel \
             shrinks windows, at the end it drops segments, and deliveries wait for retransmissions"
        ),
        format!("sysctl -w net.ipv4.tcp_mem='{} {needed} {}'", needed / 4 * 3, needed / 2 * 3),
    )
}

pub(super) fn send_buffers(host: &Host) -> Finding {
    const CHECK: &str = "send_buffers";
    let wanted = SEND_BUFFER_BYTES as u64;
    match host.number("net.core.wmem_max") {
        None => Finding::ok(CHECK, "net.core.wmem_max cannot be seen from here"),
        Some(most) if most >= wanted => Finding::ok(
            CHECK,
            format!(
                "net.core.wmem_max = {most}, the server asks for {wanted} per connection; tcp_wmem does not matter to it"
            ),
        ),
        Some(most) => Finding::of(
            State::Advice,
            CHECK,
            format!("net.core.wmem_max = {most}, the server asks for {wanted} per connection"),
            "large events go out in smaller pieces, with a wake-up between them, and slower over long distances",
            "sysctl -w net.core.wmem_max=212992",
        ),
    }
}

pub(super) fn receive_buffers(host: &Host) -> Finding {
    const CHECK: &str = "receive_buffers";
    let Some([_, _, most]) = host.three("net.ipv4.tcp_rmem") else {
        return Finding::ok(CHECK, "net.ipv4.tcp_rmem cannot be seen from here");
    };
    let found = format!("net.ipv4.tcp_rmem: {most} bytes at most per connection");
    if most <= RECEIVE_BUFFER_BYTES_MAX {
        return Finding::ok(CHECK, found);
    }
    Finding::of(
        State::Advice,
        CHECK,
        found,
        "a sender that the server has paused may hold that much of the kernel's memory; messages and requests have 1 MiB at most",
        format!("sysctl -w net.ipv4.tcp_rmem='4096 131072 {RECEIVE_BUFFER_BYTES_MAX}'"),
    )
}

pub(super) fn idle_window(host: &Host) -> Finding {
    const CHECK: &str = "idle_window";
    match host.number("net.ipv4.tcp_slow_start_after_idle") {
        None => Finding::ok(CHECK, "net.ipv4.tcp_slow_start_after_idle cannot be seen from here"),
        Some(0) => Finding::ok(CHECK, "net.ipv4.tcp_slow_start_after_idle = 0"),
        Some(value) => Finding::of(
            State::Advice,
            CHECK,
            format!("net.ipv4.tcp_slow_start_after_idle = {value}"),
            "after a pause, an event of more than about 14 KB takes a further round trip",
            "sysctl -w net.ipv4.tcp_slow_start_after_idle=0",
        ),
    }
}

pub(super) fn connection_tracking(host: &Host, plan: &Plan) -> Finding {
    const CHECK: &str = "connection_tracking";
    let Some(most) = host.number("net.netfilter.nf_conntrack_max") else {
        return Finding::ok(CHECK, "no connection tracking here");
    };
    let found = format!(
        "net.netfilter.nf_conntrack_max = {most}, {} in use",
        host.number("net.netfilter.nf_conntrack_count").unwrap_or_default()
    );
    let needed = u64::from(plan.expected.connections()) / 4 * 5;
    if most >= needed {
        return Finding::ok(CHECK, found);
    }
    let cost = "where a rule of the firewall tracks connections, packets of further ones are dropped (table full, dropping packet)";
    let fix = format!("sysctl -w net.netfilter.nf_conntrack_max={needed}, or a notrack rule for the port");
    Finding::of(State::Advice, CHECK, found, cost, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Single ports and ranges of the kernel's list.
    #[test]
    fn reserved_ports_are_read() {
        for (list, port, expected) in [
            ("", 6001, false),
            ("6001", 6001, true),
            ("80,6000-6002", 6001, true),
            ("80,6000-6002", 6003, false),
            ("16001", 6001, false),
        ] {
            assert_eq!(is_reserved(list, port), expected, "{list} {port}");
        }
    }
}
