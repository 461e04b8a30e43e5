//! The judgement: a host with the settings of `tuning/` passes, each missing setting is reported with its cost and its
//! line, and those lines are the ones of `tuning/`.

use std::collections::HashMap;

use super::host::{DataState, Holder, Host, Limits, PortState, SYSCTLS};
use super::{Expected, Finding, Plan, State, count, judge, report_json, report_text};
use crate::config::{DATA_DEFAULT, IoChoice};
use crate::limits;

const SYSCTL_CONF: &str = include_str!("../../../tuning/sysctl.conf");
const LIMITS_CONF: &str = include_str!("../../../tuning/limits.conf");
const UNIT: &str = include_str!("../../../tuning/relay.service");
const DOCUMENT: &str = include_str!("../../../docs/tuning.md");

/// The settings of sysctl.conf, including those for a given size, which are comments without a space.
fn sysctls() -> HashMap<String, String> {
    let setting = |line: &'static str| {
        let (name, value) = line.trim_start_matches('#').split_once(" = ")?;
        (!name.contains(' ')).then(|| (name.to_owned(), value.to_owned()))
    };
    SYSCTL_CONF.lines().filter_map(setting).collect()
}

/// The value of `item`, soft or hard, in limits.conf.
fn limit(kind: &str, item: &str) -> u64 {
    let value = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1..3)? == [kind, item]).then(|| words[3].parse().expect("a number"))
    };
    LIMITS_CONF.lines().filter(|line| !line.starts_with('#')).find_map(value).expect("a line")
}

/// The last value of a setting of the unit, which is the one that takes effect.
fn unit(name: &str) -> &'static str {
    let value = |line: &'static str| line.strip_prefix(name)?.strip_prefix('=');
    UNIT.lines().filter_map(value).next_back().unwrap_or_else(|| panic!("{name} in the unit"))
}

/// A host with all settings.
fn tuned() -> Host {
    let mut sysctls = sysctls();
    sysctls.insert("kernel.osrelease".into(), "6.18.1".into());
    sysctls.insert("fs.nr_open".into(), "1048576".into());
    Host {
        sysctls,
        limits: Limits {
            descriptors_soft: limit("soft", "nofile"),
            descriptors_hard: limit("hard", "nofile"),
            locked_bytes_soft: limit("soft", "memlock") * 1024,
        },
        capabilities: 0,
        memory_total_bytes: 16 << 30,
        memory_limit_bytes: None,
        huge_pages: Some("madvise".into()),
        governors: vec!["performance".into()],
        clock_source: Some("tsc".into()),
        uring: Ok(()),
        listen: PortState::Free,
        metrics_listen: PortState::Free,
        data: DataState::Ready,
    }
}

fn plan(expected: Expected) -> Plan {
    Plan {
        expected,
        shards: 2,
        listen: "0.0.0.0:6001".parse().expect("address"),
        metrics_listen: "127.0.0.1:9601".parse().expect("address"),
        data: DATA_DEFAULT.into(),
        io: IoChoice::Auto,
    }
}

fn finding(host: &Host, plan: &Plan, check: &str) -> Finding {
    judge(host, plan).into_iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("{check}"))
}

/// A million connections on a host with all settings of `tuning/`: nothing to report, on either driver.
#[test]
fn a_tuned_host_is_well() {
    let plan = plan(Expected::Stated(1_000_000));
    let mut host = tuned();
    for uring in [Ok(()), Err("a seccomp profile forbids it".to_owned())] {
        host.uring = uring;
        let findings = judge(&host, &plan);
        let bad: Vec<_> = findings.iter().filter(|finding| finding.state != State::Ok).collect();
        let expected = usize::from(host.uring.is_err());
        assert_eq!(bad.len(), expected, "{bad:#?}");
        assert!(bad.iter().all(|finding| finding.check == "io_uring"), "{bad:#?}");
    }
}

/// Each setting that is left at a bad value is reported alone, as advice or problem, with a cost and a line that fixes
/// it.
#[test]
fn each_shortcoming_is_found() {
    type Spoil = fn(&mut Host);
    macro_rules! sysctl {
        ($name:literal, $value:literal) => {
            |host: &mut Host| drop(host.sysctls.insert($name.into(), $value.into()))
        };
    }
    let cases: [(&str, State, Spoil); 21] = [
        ("io_uring", State::Advice, |host| host.uring = Err("kernel.io_uring_disabled is 2".into())),
        ("locked_memory", State::Problem, |host| host.limits.locked_bytes_soft = 64 * 1024),
        ("descriptors", State::Problem, |host| host.limits.descriptors_hard = 128),
        ("descriptors", State::Problem, |host| host.limits.descriptors_hard = 1024),
        ("open_files", State::Problem, sysctl!("fs.file-max", "100000")),
        ("memory", State::Problem, |host| host.memory_total_bytes = 4 << 30),
        ("memory", State::Problem, |host| host.memory_limit_bytes = Some(2 << 30)),
        ("data", State::Problem, |host| host.data = DataState::Refused("open to other users".into())),
        ("data", State::Problem, |host| host.data = DataState::Unmakeable),
        ("data", State::Problem, |host| host.data = DataState::Remote("NFS")),
        ("listen", State::Problem, |host| host.listen = PortState::Held(vec![Holder { pid: 7, name: "nginx".into() }])),
        ("metrics_listen", State::Problem, |host| host.metrics_listen = PortState::Refused("no such address".into())),
        ("local_ports", State::Advice, sysctl!("net.ipv4.ip_local_port_range", "32768 60999")),
        ("reserved_ports", State::Advice, sysctl!("net.ipv4.ip_local_port_range", "1024 65535")),
        ("accept_queue", State::Advice, sysctl!("net.core.somaxconn", "128")),
        ("syn_queue", State::Advice, sysctl!("net.ipv4.tcp_syncookies", "0")),
        ("tcp_memory", State::Advice, sysctl!("net.ipv4.tcp_mem", "287832\t383779\t575664")),
        ("send_buffers", State::Advice, sysctl!("net.core.wmem_max", "65536")),
        ("receive_buffers", State::Advice, sysctl!("net.ipv4.tcp_rmem", "4096\t131072\t33554432")),
        ("cpu_governor", State::Advice, |host| host.governors = vec!["performance".into(), "powersave".into()]),
        ("clock", State::Advice, |host| host.clock_source = Some("hpet".into())),
    ];
    let plan = plan(Expected::Stated(1_000_000));
    for (check, state, spoil) in cases {
        let mut host = tuned();
        spoil(&mut host);
        let findings = judge(&host, &plan);
        let bad: Vec<_> = findings.iter().filter(|finding| finding.state != State::Ok).collect();
        let [bad] = bad[..] else { panic!("{check}: {bad:#?}") };
        assert_eq!((bad.check, bad.state), (check, state));
        assert!(!bad.found.is_empty() && !bad.cost.is_empty() && !bad.fix.is_empty(), "{bad:?}");
    }
}

/// A shortfall of the assumed number is advice, of a stated one a problem; an assumption never fails a script.
#[test]
fn an_assumed_size_is_advice() {
    let mut host = tuned();
    host.uring = Err("a seccomp profile forbids it".into());
    host.limits.descriptors_hard = 20_000;
    assert_eq!(finding(&host, &plan(Expected::Stated(100_000)), "descriptors").state, State::Problem);
    let advice = finding(&host, &plan(Expected::Assumed(100_000)), "descriptors");
    assert_eq!(advice.state, State::Advice);
    assert!(advice.cost.contains("19608 connections on epoll") && advice.cost.contains("4100"), "{advice:?}");
}

/// With io_uring a low limit of descriptors requires further rings, and those count as locked memory.
#[test]
fn further_rings_exceed_descriptors() {
    let mut host = tuned();
    host.limits.descriptors_hard = 20_000;
    let plan = plan(Expected::Stated(1_000_000));
    let found = finding(&host, &plan, "descriptors");
    assert!(found.state == State::Ok && found.found.contains("25 rings per shard"), "{found:?}");
    assert_eq!(finding(&host, &plan, "locked_memory").state, State::Ok);
    // 50 rings of 148 KiB and the probe's are more than 7,400 KiB, though not more than the usual 8 MiB.
    host.limits.locked_bytes_soft = 7_400 * 1024;
    let found = finding(&host, &plan, "locked_memory");
    assert!(found.state == State::Problem && found.found.contains("7408 KiB"), "{found:?}");
    assert!(found.cost.contains("further rings"), "{found:?}");
    host.capabilities = 1 << 14;
    assert_eq!(finding(&host, &plan, "locked_memory").state, State::Ok);
    (host.capabilities, host.limits.locked_bytes_soft) = (0, 0);
    host.sysctls.insert("kernel.osrelease".into(), "6.1.0".into());
    assert_eq!(finding(&host, &plan, "locked_memory").state, State::Advice);
    host.limits.descriptors_hard = 4_096;
    assert!(finding(&host, &plan, "descriptors").cost.contains("524288 connections"));
}

/// The limit of a control group counts like the machine's memory, for the server and so for the doctor.
#[test]
fn a_control_group_is_seen() {
    let mut host = tuned();
    host.memory_limit_bytes = Some(1 << 30);
    let found = finding(&host, &plan(Expected::Stated(50_000)), "memory");
    assert!(found.state == State::Ok && found.found.contains("1024 MiB by the control group"), "{found:?}");
    let found = finding(&host, &plan(Expected::Stated(500_000)), "memory");
    assert!(found.state == State::Problem && found.fix.starts_with("max_connections = "), "{found:?}");
}

/// `io` decides how a missing io_uring is judged; the line fits the reason.
#[test]
fn the_driver_asked_for_counts() {
    let mut host = tuned();
    host.uring = Err("a seccomp profile forbids it (EPERM)".into());
    let mut plan = plan(Expected::Assumed(1_000));
    let found = finding(&host, &plan, "io_uring");
    assert!(found.state == State::Advice && found.fix.contains("tuning/seccomp.json"), "{found:?}");
    plan.io = IoChoice::Uring;
    assert_eq!(finding(&host, &plan, "io_uring").state, State::Problem);
    plan.io = IoChoice::Epoll;
    assert_eq!(finding(&host, &plan, "io_uring").state, State::Ok);
    (plan.io, host.uring) = (IoChoice::Auto, Err("kernel.io_uring_disabled is 2".into()));
    host.sysctls.insert("kernel.io_uring_disabled".into(), "2".into());
    assert_eq!(finding(&host, &plan, "io_uring").fix, "sysctl -w kernel.io_uring_disabled=0");
}

/// A Relay that already serves there is not a problem; a listener whose process cannot be seen is.
#[test]
fn a_held_port_names_its_holder() {
    let mut host = tuned();
    let plan = plan(Expected::Assumed(1_000));
    host.listen = PortState::Ours(Holder { pid: 42, name: "relay".into() });
    let found = finding(&host, &plan, "listen");
    assert!(found.state == State::Ok && found.found.contains("pid 42 (relay)"), "{found:?}");
    host.listen = PortState::Held(Vec::new());
    let found = finding(&host, &plan, "listen");
    assert!(found.state == State::Problem && found.fix.contains("sport = :6001"), "{found:?}");
}

/// Facts that cannot be read, as in a container, are not reported as wrong.
#[test]
fn what_cannot_be_seen_is_not_blamed() {
    let mut host = tuned();
    host.sysctls.clear();
    (host.huge_pages, host.clock_source) = (None, None);
    host.governors.clear();
    let findings = judge(&host, &plan(Expected::Stated(1_000_000)));
    assert!(findings.iter().all(|finding| finding.state == State::Ok), "{findings:#?}");
}

/// Both reports have every finding; the counts add up.
#[test]
fn reports_are_whole() {
    let mut host = tuned();
    host.clock_source = Some("hpet".into());
    host.data = DataState::Remote("NFS");
    let plan = plan(Expected::Assumed(1_000));
    let findings = judge(&host, &plan);
    let json = report_json(&plan, &findings);
    assert_eq!((&json["advice"], &json["problems"]), (&1.into(), &1.into()));
    assert_eq!(json["ok"], findings.len() - 2);
    assert_eq!(json["findings"].as_array().map(Vec::len), Some(findings.len()));
    let text = report_text(&plan, &findings);
    assert!(findings.iter().all(|finding| text.contains(finding.check) && text.contains(&finding.found)), "{text}");
    assert!(text.contains("1000 connections (assumed") && text.contains("1 advice, 1 problems"), "{text}");
    assert_eq!(count(&findings, State::Problem), 1);
}

/// Everything that the doctor checks or recommends is in sysctl.conf, and every line there in docs/tuning.md.
#[test]
fn settings_agree() {
    let settings = sysctls();
    let read_only =
        ["kernel.osrelease", "net.netfilter.nf_conntrack_count", "fs.nr_open", "net.ipv4.ip_local_reserved_ports"];
    for name in SYSCTLS {
        assert!(settings.contains_key(name) || read_only.contains(&name), "{name} is not in tuning/sysctl.conf");
        assert!(name == "kernel.osrelease" || DOCUMENT.contains(name), "{name} is not in docs/tuning.md");
    }
    for name in settings.keys() {
        assert!(SYSCTLS.contains(&name.as_str()), "the doctor does not look at {name}");
    }
    for line in UNIT.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.is_empty() || line.starts_with('[') || line.contains('='), "{line}");
    }
}

/// systemd waits longer than a drain takes; the unit's directory, limits and exit code are the server's.
#[test]
fn the_unit_agrees_with_the_server() {
    let stop_s: u64 = unit("TimeoutStopSec").parse().expect("seconds");
    assert!(stop_s * 1000 > limits::DRAIN_MS + limits::DRAIN_OVERTIME_MS);
    assert_eq!(format!("/var/lib/{}", unit("StateDirectory")), DATA_DEFAULT);
    assert_eq!((unit("StateDirectoryMode"), unit("UMask")), ("0700", "0077"));
    assert_eq!(unit("LimitNOFILE"), limit("hard", "nofile").to_string());
    assert_eq!(unit("LimitMEMLOCK"), format!("{}M", limit("hard", "memlock") / 1024));
    assert_eq!(unit("RestartPreventExitStatus"), "2");
    assert_eq!((unit("ExecStartPre"), unit("ExecStart")), ("/usr/bin/relay check-config", "/usr/bin/relay serve"));
    assert!(unit("SystemCallFilter").split(' ').all(|call| call.starts_with("io_uring_")));
    assert!(!UNIT.lines().any(|line| line.starts_with("ProcSubset=")), "the server reads /proc/meminfo");
}
