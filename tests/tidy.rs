//! Checks the shape of the code: floors, import cycles, sizes, the files with `unsafe`, purity of the core, plain English in
//! messages, and that every cited rule and threat is specified.
//!
//! Method: the sources are read as text (`tree`). Each check is a function from sources to findings, and next to each
//! is a test that runs it on a bad sample, so that a check which can no longer fail is noticed.

// A test reads the clock, starts processes and may fail at any line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod common;
mod coverage;
mod docs;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use tree::Source;

/// Longest file, test items not counted. (`clippy.toml` bounds functions.)
const FILE_LINES_MAX: usize = 600;

/// The only files that may contain `unsafe`, each with its reason.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("src/driver/sys/buffers.rs", "receive buffers that the kernel fills"),
    ("src/driver/sys/memory.rs", "where the kernel writes addresses and the words of eventfds"),
    ("src/driver/sys/queue.rs", "operations that point into memory, and entering the kernel"),
    ("src/driver/sys/socket.rs", "an option of sockets that rustix lacks"),
    ("src/store/environment.rs", "the one call that opens LMDB, unsafe through its memory map"),
    ("loadgen/src/sys.rs", "an io_uring that sends, beside which the server is measured"),
    ("tests/reliability/tracer.rs", "a debugger that makes a thread of a server stick"),
    ("tests/allocations.rs", "an allocator that counts, to show that a delivery allocates nothing"),
];

/// Words and phrases that messages do not use, with plain ones. Messages are string literals outside of tests: errors,
/// log lines, help of metrics and options.
const DIALECT: &[(&str, &str)] = &[
    ("told", "sent, notified, reported"),
    ("tell", "report, show, return"),
    ("tells", "reports, shows, returns"),
    ("stand", "be"),
    ("stands", "is"),
    ("stood", "was"),
    ("bears", "has, supports"),
    ("owe", "have pending"),
    ("owes", "has pending"),
    ("owed", "pending"),
    ("lent", "borrowed"),
    ("at hand", "available"),
    ("under way", "in flight"),
    ("go on", "continue"),
    ("goes on", "continues"),
    ("going on", "continuing"),
    ("come about", "happen"),
    ("comes about", "happens"),
    ("whoever", "a client that"),
    ("of late", "recently"),
    ("in earnest", "in practice"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("anew", "again"),
    ("asked for", "requested"),
    ("spoken to", "contacted"),
    ("carry out", "execute"),
    ("carried out", "executed"),
    ("take over", "import"),
    ("takes over", "imports"),
    ("taken over", "imported"),
    ("all the same", "anyway"),
    ("does not read", "is invalid"),
    ("do not read", "are invalid"),
    ("put back", "restore"),
    ("had again", "reproduced"),
];

/// The last floor that must be pure; effects begin above it.
const LAST_PURE_MODULE: &str = "shard";

/// Paths whose use is an effect, and why the core does not need them.
const EFFECTS: &[(&str, &str)] = &[
    ("std::time::Instant", "time is an argument, see `moment`"),
    ("std::time::SystemTime", "time is an argument, see `moment`"),
    ("std::fs", "files belong to `store`"),
    ("std::net::Tcp", "sockets belong to `driver`"),
    ("std::net::Udp", "sockets belong to `driver`"),
    ("std::os", "descriptors belong to `driver`"),
    ("std::env", "the environment is read by `config`"),
    ("std::process", "processes belong to `server`"),
    ("std::thread", "a shard is one thread's value"),
    ("std::sync::Mutex", "a shard shares nothing"),
    ("std::sync::RwLock", "a shard shares nothing"),
    ("std::sync::Condvar", "a shard shares nothing"),
    ("std::sync::atomic", "a shard shares nothing"),
    ("std::sync::mpsc", "mail is an output"),
    ("ring::rand", "randomness is an argument"),
    ("rand", "randomness is an argument"),
    ("getrandom", "randomness is an argument"),
    ("rustix", "the kernel belongs to `driver`"),
    ("libc", "the kernel belongs to `driver`"),
    ("io_uring", "the kernel belongs to `driver`"),
    ("heed", "LMDB belongs to `store`"),
    ("crossbeam_queue", "mail is an output"),
    ("arc_swap", "a new directory is an input"),
];

/// Effects that need no path, because `use` can bring their name into scope from anywhere.
const EFFECT_NAMES: &[&str] = &[
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "SystemRandom",
    "OsRng",
    "thread_local",
    "Mutex",
    "RwLock",
    "Condvar",
];

fn library() -> Vec<Source> {
    tree::sources("src", &[".rs"])
}

fn everything() -> Vec<Source> {
    let mut all = library();
    for folder in ["loadgen", "clients", "tests", "benches", "fuzz"] {
        all.extend(tree::sources(folder, &[".rs", ".js", ".mjs", ".cjs", ".ts", ".py", ".sh"]));
    }
    all
}

#[track_caller]
fn assert_clean(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

// ---------------------------------------------------------------------------------------------------------------
// Floors

/// Top-level modules with their floor, as in `lib.rs`: one floor per `// Floor` comment.
fn floors(lib: &str) -> BTreeMap<String, usize> {
    let mut floors = BTreeMap::new();
    let mut floor = 0;
    for line in lib.lines() {
        if line.starts_with("// Floor") {
            floor += 1;
        }
        let declared = line.trim_start_matches("pub ").strip_prefix("mod ");
        if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
            floors.insert(name.to_owned(), floor);
        }
    }
    floors
}

/// Names of the modules from the crate's root to a file: `src/wire/http.rs` is `wire`, `http`.
fn module_of(path: &str) -> Vec<&str> {
    let inner = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    inner.split('/').filter(|name| *name != "mod").collect()
}

/// `crate::x`, `self::x` and `super::x` as seen from the crate's root.
fn absolute(path: &str, module: &[&str]) -> Option<String> {
    if let Some(rest) = path.strip_prefix("crate::") {
        return Some(rest.to_owned());
    }
    let inner = path.strip_prefix("self::").unwrap_or(path);
    let supers = inner.split("::").take_while(|name| *name == "super").count();
    if (supers == 0 && inner == path) || supers > module.len() {
        return None;
    }
    let outer = module[..module.len() - supers].iter().copied();
    Some(outer.chain(inner.split("::").skip(supers)).collect::<Vec<_>>().join("::"))
}

fn check_floors(lib: &str, sources: &[Source]) -> Vec<String> {
    let floors = floors(lib);
    let mut findings = Vec::new();
    for source in sources {
        let module = module_of(&source.path);
        if matches!(module[0], "lib" | "main") {
            continue;
        }
        let Some(&own) = floors.get(module[0]) else {
            findings.push(format!("{}: `{}` has no floor in lib.rs", source.path, module[0]));
            continue;
        };
        for (line, path) in tree::paths(&source.shipped_code()) {
            let Some(target) = absolute(&path, &module) else {
                continue;
            };
            let target = target.split("::").next().unwrap_or_default();
            if target == module[0] {
                continue;
            }
            if let Some(&floor) = floors.get(target).filter(|&&floor| floor >= own) {
                let (source, module) = (&source.path, module[0]);
                findings
                    .push(format!("{source}:{line}: `{module}` (floor {own}) must not use `{target}` (floor {floor})"));
            }
        }
    }
    findings
}

#[test]
fn modules_import_only_from_floors_below() {
    assert_clean(&check_floors(&tree::source("src/lib.rs").text, &library()));
}

/// Goal: an import upwards or sideways is found however it is written, and an import downwards is not.
#[test]
fn the_floor_check_can_fail() {
    let lib = "// Floor 0\npub mod limits;\n// Floor 1\npub mod app;\npub mod wire;\n// Floor 2\npub mod shard;\n";
    let findings = |path, text| check_floors(lib, &[Source::sample(path, text)]).len();
    assert_eq!(findings("src/wire/http.rs", "use crate::limits::X;"), 0);
    assert_eq!(findings("src/wire/http.rs", "use crate::wire::json; use super::json;"), 0);
    assert_eq!(findings("src/wire/http.rs", "use crate::shard::Shard;"), 1);
    assert_eq!(findings("src/wire/http.rs", "use crate::{limits, shard::{Shard, Input}};"), 2);
    assert_eq!(findings("src/wire/http.rs", "fn f() { crate::app::g() }"), 1);
    assert_eq!(findings("src/wire/http.rs", "use super::super::shard;"), 1);
    assert_eq!(findings("src/wire.rs", "use super::shard::Shard;"), 1);
    assert_eq!(findings("src/wire/http.rs", "// use crate::shard::Shard;"), 0);
    assert_eq!(findings("src/wire/http.rs", "#[cfg(test)]\nmod tests { use crate::shard::Shard; }"), 0);
    assert_eq!(findings("src/helper.rs", ""), 1);
}

// ---------------------------------------------------------------------------------------------------------------
// Import cycles

/// For each file below `folder`, the other files whose items its shipped code names.
fn imports<'s>(folder: &str, sources: &'s [Source]) -> BTreeMap<&'s str, BTreeSet<&'s str>> {
    let module = |path: &'s str| -> Vec<&'s str> {
        let inner = path.strip_prefix(folder).unwrap_or(path).trim_end_matches(".rs");
        inner.split('/').filter(|name| !matches!(*name, "" | "mod" | "main" | "lib")).collect()
    };
    let files: BTreeMap<Vec<&str>, &str> = sources.iter().map(|source| (module(&source.path), &*source.path)).collect();
    let mut graph = BTreeMap::new();
    for source in sources {
        let own = module(&source.path);
        let mut targets = BTreeSet::new();
        for (_, path) in tree::paths(&source.shipped_code()) {
            let Some(path) = absolute(&path, &own) else { continue };
            let mut names: Vec<&str> = path.split("::").collect();
            while !names.is_empty() && !files.contains_key(&names) {
                names.pop();
            }
            let file = files.get(&names).filter(|file| !names.is_empty() && **file != source.path);
            targets.extend(file.copied());
        }
        graph.insert(&*source.path, targets);
    }
    graph
}

fn check_import_cycles(folder: &str, sources: &[Source]) -> Vec<String> {
    let graph = imports(folder, sources);
    let mut findings = Vec::new();
    for &start in graph.keys() {
        // Breadth first, only over files that come later: each cycle is found from its first file.
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = std::collections::VecDeque::from([start]);
        while let Some(file) = queue.pop_front() {
            for &target in graph[file].iter().filter(|target| **target >= start) {
                if target == start {
                    let mut cycle = vec![file];
                    while *cycle.last().expect("it has a file") != start {
                        cycle.push(before[cycle.last().expect("it has a file")]);
                    }
                    cycle.reverse();
                    findings.push(format!("import cycle: {} -> {start}", cycle.join(" -> ")));
                    queue.clear();
                    break;
                }
                if !before.contains_key(target) {
                    before.insert(target, file);
                    queue.push_back(target);
                }
            }
        }
    }
    findings
}

#[test]
fn the_library_has_no_import_cycle() {
    assert_clean(&check_import_cycles("src/", &library()));
}

#[test]
fn the_load_generator_has_no_import_cycle() {
    assert_clean(&check_import_cycles("loadgen/src/", &tree::sources("loadgen/src", &[".rs"])));
}

/// Goal: a cycle over several files is found once, however its imports are written; a tree of imports is none.
#[test]
fn the_cycle_check_can_fail() {
    let findings = |files: &[(&str, &str)]| {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::sample(path, text)).collect();
        check_import_cycles("src/", &sources)
    };
    let main = ("src/main.rs", "mod a; mod b; fn main() { a::run() }");
    assert_eq!(
        findings(&[
            main,
            ("src/a/mod.rs", "use crate::b::B; mod c; use self::c::C;"),
            ("src/a/c.rs", "use crate::b;"),
            ("src/b.rs", "")
        ]),
        [""; 0]
    );
    let cycle = findings(&[
        main,
        ("src/a/mod.rs", "use self::c::C;"),
        ("src/a/c.rs", "use crate::b;"),
        ("src/b.rs", "fn f(x: super::a::A) {}"),
    ]);
    assert_eq!(cycle, ["import cycle: src/a/c.rs -> src/b.rs -> src/a/mod.rs -> src/a/c.rs"]);
    let in_tests = ("src/b.rs", "#[cfg(test)]\nmod tests { use crate::a::A; }");
    assert_eq!(findings(&[("src/a/mod.rs", "use crate::b::B;"), in_tests]), [""; 0]);
}

// ---------------------------------------------------------------------------------------------------------------
// Parts of the shard

/// The parts of `src/shard` from the lowest to the routers: files and folders by name.
const SHARD_PARTS: &[&[&str]] = &[
    &["deadlines", "keyed_slab", "options", "permits", "service_clock", "turns"],
    &["mail"],
    &["io", "metrics"],
    &["context"],
    &["refusals"],
    &["connections"],
    &["quota"],
    &["channels"],
    &["owner"],
    &["users"],
    &["http"],
    &["client_message", "drain", "mod", "receive", "timers"],
];

/// The place of a part in the order.
fn rank(part: &str) -> Option<usize> {
    SHARD_PARTS.iter().position(|parts| parts.contains(&part))
}

/// The part of a file of the shard.
fn part_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/shard/")?.split('/').next()?.trim_end_matches(".rs");
    rank(name).map(|_| name)
}

/// Arrows between the parts of the shard.
fn part_arrows(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, targets) in imports("src/", sources) {
        let Some(own) = part_of(path) else { continue };
        arrows.entry(own).or_default().extend(targets.into_iter().filter_map(part_of).filter(|name| *name != own));
    }
    arrows
}

fn check_parts(sources: &[Source], arrows: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/shard/")) {
        if part_of(&source.path).is_none() && !source.path.starts_with("src/shard/tests") {
            findings.push(format!("{}: its part has no place in SHARD_PARTS", source.path));
        }
    }
    let routers = Some(SHARD_PARTS.len() - 1);
    for (own, targets) in arrows {
        let up = targets.iter().filter(|target| rank(target) >= rank(own) && rank(own) < routers);
        findings.extend(up.map(|target| format!("shard part `{own}` must not use `{target}`, which is not below it")));
    }
    findings
}

/// The call graph between the parts of the shard; `cargo test --test tidy parts -- --nocapture` prints it.
#[test]
fn parts_of_the_shard_call_downwards_only() {
    let sources = tree::sources("src/shard", &[".rs"]);
    let arrows = part_arrows(&sources);
    for (part, targets) in &arrows {
        println!("{part} -> {}", targets.iter().copied().collect::<Vec<_>>().join(", "));
    }
    assert_clean(&check_parts(&sources, &arrows));
}

/// Goal: an arrow upwards or sideways, and a part without a place, are found; an arrow downwards and one inside a part are not.
#[test]
fn the_parts_check_can_fail() {
    let findings = |path: &str, text: &str| {
        let others = ["connections/mod.rs", "connections/input.rs", "channels/mod.rs", "io.rs", "metrics.rs", "mod.rs"];
        let empty = others.iter().map(|other| format!("src/shard/{other}")).filter(|other| other != path);
        let mut sources: Vec<Source> = empty.map(|path| Source::sample(&path, "")).collect();
        sources.push(Source::sample(path, text));
        check_parts(&sources, &part_arrows(&sources)).len()
    };
    assert_eq!(findings("src/shard/channels/mod.rs", "use crate::shard::connections::Connections;"), 0);
    assert_eq!(findings("src/shard/connections/input.rs", "use super::Connections;"), 0);
    assert_eq!(findings("src/shard/receive.rs", "use super::channels::Channels; use super::timers::x;"), 0);
    assert_eq!(findings("src/shard/connections/input.rs", "use crate::shard::channels::Channels;"), 1);
    assert_eq!(findings("src/shard/connections/input.rs", "use crate::shard::Shard;"), 1);
    assert_eq!(findings("src/shard/io.rs", "use super::metrics::Metrics;"), 1);
    assert_eq!(findings("src/shard/gossip.rs", ""), 1);
}

// ---------------------------------------------------------------------------------------------------------------
// Sizes

fn check_sizes(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let tests: usize = source.test_lines().iter().map(|(first, last)| last - first + 1).sum();
        let lines = source.text.lines().count().saturating_sub(tests);
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
        }
    }
    findings
}

#[test]
fn files_stay_small() {
    let mut sources = library();
    sources.extend(tree::sources("loadgen", &[".rs"]));
    assert_clean(&check_sizes(&sources));
}

/// Goal: one line too many is found, test code is not counted, and braces in text do not mislead the count.
#[test]
fn the_size_check_can_fail() {
    let findings = |text: &str| check_sizes(&[Source::sample("src/wire/a.rs", text)]).len();
    assert_eq!(findings(&"// line\n".repeat(FILE_LINES_MAX)), 0);
    assert_eq!(findings(&"// line\n".repeat(FILE_LINES_MAX + 1)), 1);
    let long = "fn f() { g(\"}\", '}') }\n".repeat(FILE_LINES_MAX + 1);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(findings(&("// line\n".repeat(FILE_LINES_MAX - 10) + &tests)), 0);
}

// ---------------------------------------------------------------------------------------------------------------
// Unsafe

fn check_unsafe(allowed: &[(&str, &str)], sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        if allowed.iter().any(|(path, _)| *path == source.path) {
            continue;
        }
        let code = source.code();
        if let Some((at, _)) = tree::words(&code).find(|(_, word)| *word == "unsafe") {
            findings.push(format!("{}:{}: `unsafe` stands here", source.path, tree::line_of(&code, at)));
        }
    }
    findings
}

#[test]
fn unsafe_stands_only_where_listed() {
    assert_clean(&check_unsafe(UNSAFE_FILES, &everything()));
}

/// Goal: `unsafe` in code is found, in a listed file, a comment, a string or a longer word it is not.
#[test]
fn the_unsafe_check_can_fail() {
    let findings = |path, text| check_unsafe(&[("src/sys.rs", "reason")], &[Source::sample(path, text)]).len();
    assert_eq!(findings("src/wire/a.rs", "fn f() { unsafe { g() } }"), 1);
    assert_eq!(findings("src/wire/a.rs", "unsafe impl Send for A {}"), 1);
    assert_eq!(findings("src/sys.rs", "fn f() { unsafe { g() } }"), 0);
    assert_eq!(findings("src/wire/a.rs", "// unsafe\nconst A: &str = \"unsafe\"; #![deny(unsafe_code)]"), 0);
    assert_eq!(findings("src/wire/a.rs", "const A: &str = r#\"unsafe \" \"#; const B: char = '\"'; /* unsafe */"), 0);
}

// ---------------------------------------------------------------------------------------------------------------
// Purity

fn check_purity(lib: &str, sources: &[Source]) -> Vec<String> {
    let floors = floors(lib);
    let last = floors.get(LAST_PURE_MODULE).copied().expect("lib.rs names the last pure module");
    let mut findings = Vec::new();
    for source in sources {
        let module = module_of(&source.path)[0];
        if floors.get(module).is_none_or(|&floor| floor > last) {
            continue;
        }
        let code = source.shipped_code();
        for (line, path) in tree::paths(&code) {
            let effect = EFFECTS.iter().find(|(effect, _)| is_within(&path, effect));
            if let Some((_, reason)) = effect {
                findings.push(format!("{}:{line}: `{path}` in a pure floor: {reason}", source.path));
            }
        }
        for (at, word) in tree::words(&code) {
            if EFFECT_NAMES.contains(&word) {
                let line = tree::line_of(&code, at);
                findings.push(format!("{}:{line}: `{word}` in a pure floor", source.path));
            }
        }
    }
    findings
}

/// True for the effect itself and what it contains; `std::net::Tcp` contains `std::net::TcpStream`.
fn is_within(path: &str, effect: &str) -> bool {
    let Some(rest) = path.strip_prefix(effect) else {
        return false;
    };
    rest.is_empty() || rest.starts_with("::") || effect.ends_with("Tcp") || effect.ends_with("Udp")
}

#[test]
fn the_core_has_no_effects() {
    assert_clean(&check_purity(&tree::source("src/lib.rs").text, &library()));
}

/// Goal: an effect is found however it is imported; addresses are values, and test code and drivers may have effects.
#[test]
fn the_purity_check_can_fail() {
    let lib = "// Floor 0\npub mod wire;\n// Floor 1\npub mod shard;\n// Floor 2\npub mod driver;\n";
    let findings = |path, text| check_purity(lib, &[Source::sample(path, text)]).len();
    assert_eq!(findings("src/shard/mod.rs", "use std::net::{IpAddr, SocketAddr}; use std::time::Duration;"), 0);
    assert_ne!(findings("src/shard/mod.rs", "use std::{fs, time::{Duration, Instant}};"), 0);
    assert_ne!(findings("src/shard/mod.rs", "fn f() { std::thread::spawn(g); }"), 0);
    assert_ne!(findings("src/shard/mod.rs", "use std::net; fn f() { net::TcpStream::connect(a); }"), 0);
    assert_ne!(findings("src/wire/a.rs", "use ring::rand::SystemRandom;"), 0);
    assert_ne!(findings("src/wire/a.rs", "fn f() -> u8 { rand::random() }"), 0);
    assert_ne!(findings("src/wire/a.rs", "use std::sync::{Arc, Mutex};"), 0);
    assert_eq!(findings("src/wire/a.rs", "use std::sync::Arc; use ring::hmac; mod randomness {}"), 0);
    assert_eq!(findings("src/driver/mod.rs", "use std::time::Instant;"), 0);
    assert_eq!(findings("src/wire/a.rs", "#[cfg(test)]\nmod tests { use std::time::Instant; }"), 0);
}

// ---------------------------------------------------------------------------------------------------------------
// The runtime of the admin API

/// The crates of the admin API, which has a thread of its own. A shard is a plain thread with its own ring or epoll set,
/// and an executor beside it would be a second scheduler.
const ADMIN_CRATES: &[&str] = &["axum", "http_body_util", "hyper", "hyper_util", "tokio", "tower_service"];

fn check_runtime(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.path.starts_with("src/admin/")) {
        for (line, path) in tree::paths(&source.shipped_code()) {
            if ADMIN_CRATES.iter().any(|name| is_within(&path, name)) {
                findings.push(format!("{}:{line}: `{path}` belongs to the admin API", source.path));
            }
        }
    }
    findings
}

#[test]
fn only_the_admin_api_has_a_runtime() {
    assert_clean(&check_runtime(&library()));
}

/// Goal: a use of the runtime elsewhere is found, in the admin API and in tests it is not.
#[test]
fn the_runtime_check_can_fail() {
    let findings = |path, text| check_runtime(&[Source::sample(path, text)]).len();
    assert_eq!(findings("src/webhook/mod.rs", "use tokio::net::TcpStream;"), 1);
    assert_eq!(findings("src/server.rs", "fn f() { tokio::spawn(g()); hyper::body::take(); }"), 2);
    assert_eq!(findings("src/admin/http.rs", "use axum::Router; use tokio::time::timeout;"), 0);
    assert_eq!(findings("src/server.rs", "use crate::tokio_like; mod hyperactive {}"), 0);
    assert_eq!(findings("src/server.rs", "#[cfg(test)]\nmod tests { use tokio::net::TcpStream; }"), 0);
}

// ---------------------------------------------------------------------------------------------------------------
// Language

fn check_language(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for (line, literal) in source.shipped_literals().into_iter().chain(help_lines(source)) {
            // One space between words, so that a phrase is found across a line break in the literal.
            let words: Vec<&str> = tree::words(&literal).map(|(_, word)| word).collect();
            let text = format!(" {} ", words.join(" ").to_lowercase());
            for (phrase, plain) in DIALECT.iter().filter(|(phrase, _)| text.contains(&format!(" {phrase} "))) {
                findings.push(format!("{}:{line}: \"{phrase}\" in a message: write {plain}", source.path));
            }
        }
    }
    findings
}

/// Documentation of what clap may show as help.
fn help_lines(source: &Source) -> impl Iterator<Item = (usize, String)> {
    let is_shown = source.path.starts_with("src/cli/") || source.path.starts_with("loadgen/src/");
    let lines = source.text.lines().enumerate().filter(move |_| is_shown);
    lines.filter_map(|(at, line)| Some((at + 1, line.trim_start().strip_prefix("///")?.to_owned())))
}

#[test]
fn messages_are_in_plain_english() {
    let mut sources = library();
    sources.extend(tree::sources("loadgen/src", &[".rs"]));
    assert_clean(&check_language(&sources));
}

/// Goal: a phrase is found in every kind of literal and across line breaks; not in comments, tests, longer words or code.
#[test]
fn the_language_check_can_fail() {
    let findings = |path, text| check_language(&[Source::sample(path, text)]).len();
    assert_eq!(findings("src/wire/a.rs", "const A: &str = \"the disk: mend it\";"), 1);
    assert_eq!(findings("src/wire/a.rs", "#[error(r#\"Whoever {0} is told\"#)] struct A;"), 2);
    assert_eq!(findings("src/wire/a.rs", "const A: &str = \"a send is under \\\n    way\";"), 1);
    assert_eq!(findings("loadgen/src/a.rs", "fn f() { g(b\"it goes on\") }"), 1);
    assert_eq!(findings("src/cli/a.rs", "struct A {\n    /// Say what mends it.\n    a: bool,\n}"), 1);
    assert_eq!(
        findings("src/wire/a.rs", "// It goes on.\nfn told() { f('\"', \"amended, retold, a standard, commend\") }"),
        0
    );
    assert_eq!(findings("src/wire/a.rs", "#[cfg(test)]\nmod tests { const A: &str = \"is told\"; }"), 0);
    assert_eq!(findings("src/wire/tests.rs", "const A: &str = \"is told\";"), 0);
}

// ---------------------------------------------------------------------------------------------------------------
// Citations

fn check_rules(documents: &[Source], sources: &[Source]) -> Vec<String> {
    let defined = tree::defined_rules(documents);
    let mut known = BTreeSet::new();
    let mut findings = Vec::new();
    for id in &defined {
        if !known.insert(id.as_str()) {
            findings.push(format!("{id} is defined twice"));
        }
    }
    for source in sources.iter().chain(documents) {
        for (line, id) in tree::rule_ids(&source.text) {
            if !known.contains(id.as_str()) {
                findings.push(format!("{}:{line}: {id} is not in docs/protocol", source.path));
            }
        }
    }
    findings
}

#[test]
fn cited_rules_are_specified() {
    // The samples below cite rules that do not exist.
    let sources = citing();
    assert_clean(&check_rules(&tree::specification(), &sources));
}

/// The files whose citations are meant: not those of the checks themselves, which cite samples.
fn citing() -> Vec<Source> {
    everything().into_iter().filter(|source| !is_checker(&source.path)).collect()
}

fn is_checker(path: &str) -> bool {
    matches!(path, "tests/tidy.rs" | "tests/coverage.rs")
        || path.starts_with("tests/tree/")
        || path.starts_with("tests/docs/")
}

/// Goal: an unknown rule is found in code and in the documents themselves, and so is a rule defined twice.
#[test]
fn the_rule_check_can_fail() {
    let document = |text| [Source::sample("docs/protocol/pusher.md", text)];
    let rules = document("| P-IN-1 | text |\n### P-CONN-10 Title\nSee P-IN-1.\n");
    let findings = |text| check_rules(&rules, &[Source::sample("tests/a.js", text)]).len();
    assert_eq!(findings("// P-IN-1, P-CONN-10; HTTP-1, UP-IN-2"), 0);
    assert_eq!(findings("// P-IN-2"), 1);
    assert_eq!(findings("// (P-CONN-1)"), 1);
    assert_eq!(check_rules(&document("| P-IN-1 | see P-IN-2 |"), &[]).len(), 1);
    assert_eq!(check_rules(&document("| P-IN-1 | a |\n| P-IN-1 | b |"), &[]).len(), 1);
}

/// Comments cite the threats of docs/security.md and the hazards of docs/reliability.md by bare ids, `T6` and `U3`.
fn check_threats(document: &str, sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        for (number, line) in source.text.lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else { continue };
            for (_, word) in tree::words(comment) {
                let number_part = word.strip_prefix(['T', 'U']).unwrap_or_default();
                let is_id = matches!(number_part.len(), 1..=2) && number_part.bytes().all(|b| b.is_ascii_digit());
                if is_id && !document.contains(&format!("\n| {word} |")) {
                    findings.push(format!(
                        "{}:{}: {word} is in neither docs/security.md nor docs/reliability.md",
                        source.path,
                        number + 1
                    ));
                }
            }
        }
    }
    findings
}

#[test]
fn cited_threats_are_described() {
    let sources = citing();
    let document = ["docs/security.md", "docs/reliability.md"].map(|path| tree::source(path).text).join("\n");
    assert_clean(&check_threats(&document, &sources));
}

/// Goal: a threat or hazard without a description is found; type parameters and plain words are not citations.
#[test]
fn the_threat_check_can_fail() {
    let findings = |text| check_threats("\n| T6 | guessing |", &[Source::sample("src/a.rs", text)]).len();
    assert_eq!(findings("fn f<T9>() {} // (threats T6), a threat Tokens face, U+0000, UTF8, T100"), 0);
    assert_eq!(findings("// threat T99"), 1);
    assert_eq!(findings("//! Hazards U3, U4."), 2);
}

/// Paths of the form `docs/name.md` in text must exist.
fn check_document_paths(exists: impl Fn(&str) -> bool, sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            for (at, _) in line.match_indices("docs/") {
                let is_path = |c: &char| c.is_ascii_alphanumeric() || "/_-.".contains(*c);
                let path: String = line[at..].chars().take_while(is_path).collect();
                let path = path.trim_end_matches('.');
                if path.ends_with(".md") && !exists(path) {
                    findings.push(format!("{}:{}: {path} does not exist", source.path, number + 1));
                }
            }
        }
    }
    findings
}

#[test]
fn cited_documents_exist() {
    let mut sources = citing();
    sources.extend(["README.md", "CONTRIBUTING.md", "clippy.toml", "deny.toml", "Cargo.toml"].map(tree::source));
    assert_clean(&check_document_paths(|path| tree::root().join(path).is_file(), &sources));
}

/// Goal: a path that does not exist is found, and one at the end of a sentence is read without its full stop.
#[test]
fn the_document_check_can_fail() {
    let findings = |text| check_document_paths(|path| path == "docs/a.md", &[Source::sample("src/a.rs", text)]).len();
    assert_eq!(findings("// See docs/a.md. And `docs/protocol/`."), 0);
    assert_eq!(findings("// See docs/b.md."), 1);
}

/// Tests that a document names in backquotes, "FILE.rs NAME", must exist. A file may be given by the end of its path.
fn check_named_tests(sources: &[Source], documents: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for document in documents {
        for (number, line) in document.text.lines().enumerate() {
            for named in line.split('`').skip(1).step_by(2) {
                let Some((file, name)) = named.split_once(".rs ") else { continue };
                if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                    continue;
                }
                let file = format!("/{file}.rs");
                let mut files = sources.iter().filter(|source| format!("/{}", source.path).ends_with(&file));
                if !files.any(|source| source.text.contains(&format!("fn {name}("))) {
                    findings.push(format!("{}:{}: no test {named}", document.path, number + 1));
                }
            }
        }
    }
    findings
}

#[test]
fn named_tests_exist() {
    assert_clean(&check_named_tests(&everything(), &tree::sources("docs", &[".md"])));
}

/// Goal: a test that is missing is found, in its own file and in no other, and other text in backquotes is ignored.
#[test]
fn the_check_of_named_tests_can_fail() {
    let sources = [Source::sample("tests/a/b.rs", "fn c() {}"), Source::sample("src/d.rs", "fn e() {}")];
    let findings = |text| check_named_tests(&sources, &[Source::sample("docs/x.md", text)]).len();
    assert_eq!(findings("`b.rs c`, `tests/a/b.rs c`, `src/d.rs`, `d.rs e`, rs c, `cargo test x.rs -- y`"), 0);
    assert_eq!(findings("`b.rs e`, `b.rs missing`"), 2);
    assert_eq!(findings("`ab.rs c`"), 1);
}
