//! The machine of a run, which figures depend on.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

/// Machine, limits and version.
pub(crate) fn json() -> Value {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kernel": kernel.trim(),
        "processor": model.trim_start_matches(['\t', ' ', ':']),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "load-average": load.split(' ').next().unwrap_or_default(),
        "descriptors": descriptors(),
        "arguments": arguments(),
    })
}

/// The same as one line of text.
pub(crate) fn line() -> String {
    let machine = json();
    let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
    format!(
        "relay-loadgen {}, Linux {}, {} cores ({}), load {}, {} descriptors",
        text("version"),
        text("kernel"),
        machine["cores"],
        text("processor"),
        text("load-average"),
        machine["descriptors"]
    )
}

/// The command line without the secret.
fn arguments() -> Vec<String> {
    let mut hide = false;
    let shown = |argument: String| {
        let was = std::mem::replace(&mut hide, argument == "--secret");
        if was || argument.starts_with("--secret=") { "(hidden)".to_owned() } else { argument }
    };
    std::env::args().skip(1).map(shown).collect()
}

/// The limit of descriptors per process, after the soft limit was raised as far as permitted.
pub(crate) fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the soft limit of descriptors; workers inherit it.
pub(crate) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, the current limit applies.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
