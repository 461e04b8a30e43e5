//! The table of docs/compatibility.md: the features of each SDK that were observed against Relay.
//!
//! It contains only observed features. A cell that says yes names the test that shows it; that test fails unless its
//! scripts report exactly the features that the table has under its name. Scripts print `shown SDK: FEATURE` once the
//! feature's assertions have passed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::common::tools::sdk_sources;
use serde_json::Value;

/// The content of a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cell {
    /// The test of this name shows it on every run.
    Shown(&'static str),
    /// The SDK does not offer it.
    Absent,
}

use Cell::{Absent, Shown};

/// One SDK.
struct Sdk {
    name: &'static str,
    /// Where its version is pinned.
    package: Package,
    /// Cells in the order of the features of its kind.
    cells: &'static [Cell],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Client,
    Server,
}

enum Package {
    Npm(&'static str),
    PyPi(&'static str),
}

/// Features of clients.
const CLIENT_FEATURES: [&str; 14] = [
    "public channels",
    "private channels",
    "presence channels",
    "client events",
    "refused channels",
    "unsubscribe",
    "reconnect",
    "encrypted channels",
    "cache channels",
    "subscription count",
    "sign in",
    "events to a user",
    "watchlist",
    "terminated connections",
];

/// Features of servers.
const SERVER_FEATURES: [&str; 16] = [
    "trigger",
    "several channels",
    "batch",
    "leave a socket out",
    "info in the answer",
    "refusals",
    "list channels",
    "one channel",
    "users of a channel",
    "authorize private",
    "authorize presence",
    "encrypted events",
    "authenticate a user",
    "send to a user",
    "terminate a user",
    "webhooks",
];

const CHANNELS: Cell = Shown("pusher_js_on_every_kind_of_channel");
const ECHO: Cell = Shown("laravel_echo");
const AGAIN: Cell = Shown("javascript_clients_reconnect");
const KINDS: Cell = Shown("encrypted_cache_and_count");
const USERS: Cell = Shown("signed_in_users");
const HOOKS: Cell = Shown("webhook_helpers_of_the_sdks");
const NODE: Cell = Shown("node_server_sdk");
const EDGE: Cell = Shown("edge_server_sdk");
const PYTHON: Cell = Shown("python_server_sdk");
const PYSHER: Cell = Shown("pysher_client");
const ASYNC: Cell = Shown("asyncpusher_client");

/// All of them. The cells are in the order of the features.
const SDKS: [Sdk; 8] = [
    Sdk {
        name: "pusher-js",
        package: Package::Npm("pusher-js"),
        kind: Kind::Client,
        cells: &[
            CHANNELS, CHANNELS, CHANNELS, CHANNELS, CHANNELS, CHANNELS, AGAIN, KINDS, KINDS, KINDS, USERS, USERS,
            USERS, USERS,
        ],
    },
    Sdk {
        name: "laravel-echo, broadcaster pusher",
        package: Package::Npm("laravel-echo"),
        kind: Kind::Client,
        cells: &[ECHO, ECHO, ECHO, ECHO, ECHO, ECHO, AGAIN, KINDS, Absent, Absent, USERS, Absent, Absent, Absent],
    },
    Sdk {
        name: "laravel-echo, broadcaster reverb",
        package: Package::Npm("laravel-echo"),
        kind: Kind::Client,
        cells: &[ECHO, ECHO, ECHO, ECHO, ECHO, ECHO, AGAIN, KINDS, Absent, Absent, USERS, Absent, Absent, Absent],
    },
    Sdk {
        name: "pysher",
        package: Package::PyPi("Pysher"),
        kind: Kind::Client,
        cells: &[
            PYSHER, PYSHER, PYSHER, PYSHER, Absent, PYSHER, PYSHER, Absent, Absent, Absent, Absent, Absent, Absent,
            Absent,
        ],
    },
    Sdk {
        name: "asyncpusher",
        package: Package::PyPi("asyncpusher"),
        kind: Kind::Client,
        cells: &[
            ASYNC, ASYNC, ASYNC, ASYNC, Absent, ASYNC, ASYNC, Absent, ASYNC, Absent, Absent, Absent, Absent, Absent,
        ],
    },
    Sdk {
        name: "pusher (Node)",
        package: Package::Npm("pusher"),
        kind: Kind::Server,
        cells: &[NODE, NODE, NODE, NODE, NODE, NODE, NODE, NODE, NODE, NODE, NODE, NODE, NODE, NODE, NODE, HOOKS],
    },
    Sdk {
        name: "pusher-http-edge",
        package: Package::Npm("pusher-http-edge"),
        kind: Kind::Server,
        cells: &[EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, EDGE, HOOKS],
    },
    Sdk {
        name: "pusher (Python)",
        package: Package::PyPi("pusher"),
        kind: Kind::Server,
        cells: &[
            PYTHON, PYTHON, PYTHON, PYTHON, PYTHON, PYTHON, PYTHON, PYTHON, PYTHON, PYTHON, PYTHON, PYTHON, PYTHON,
            PYTHON, PYTHON, HOOKS,
        ],
    },
];

impl Sdk {
    fn features(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Client => &CLIENT_FEATURES,
            Kind::Server => &SERVER_FEATURES,
        }
    }

    /// Feature and cell, in order.
    fn rows(&self) -> impl Iterator<Item = (&'static str, Cell)> {
        assert_eq!(self.features().len(), self.cells.len(), "{}", self.name);
        self.features().iter().copied().zip(self.cells.iter().copied())
    }

    /// The version pinned in its list.
    fn version(&self) -> String {
        match self.package {
            Package::Npm(name) => {
                let text = std::fs::read_to_string(sdk_sources().join("package.json")).unwrap();
                let manifest: Value = serde_json::from_str(&text).unwrap();
                manifest["dependencies"][name].as_str().unwrap_or_else(|| panic!("{name} is pinned")).to_owned()
            }
            Package::PyPi(name) => {
                let text = std::fs::read_to_string(sdk_sources().join("requirements.txt")).unwrap();
                let pinned = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("=="));
                pinned.unwrap_or_else(|| panic!("{name} is pinned")).to_owned()
            }
        }
    }
}

/// Fails unless the scripts of a test reported exactly the features in the table under its name.
#[track_caller]
pub(crate) fn assert_shown(test: &'static str, reported: &BTreeSet<String>) {
    let of_test = |sdk: &'static Sdk| {
        let mine = sdk.rows().filter(move |(_, cell)| *cell == Shown(test));
        mine.map(|(feature, _)| format!("{}: {feature}", sdk.name))
    };
    let wanted: BTreeSet<String> = SDKS.iter().flat_map(of_test).collect();
    assert!(!wanted.is_empty(), "the table names {test}");
    assert_eq!(reported, &wanted, "what {test} shows is not what the table says");
}

/// The document.
pub(crate) fn document() -> String {
    let mut text = String::from(HEAD);
    for (kind, title) in [(Kind::Client, "Clients"), (Kind::Server, "Servers")] {
        let sdks: Vec<&Sdk> = SDKS.iter().filter(|sdk| sdk.kind == kind).collect();
        write!(text, "\n## {title}\n\n| |").unwrap();
        for sdk in &sdks {
            write!(text, " {} {} |", sdk.name, sdk.version()).unwrap();
        }
        writeln!(text, "\n| --- |{}", " --- |".repeat(sdks.len())).unwrap();
        for (row, feature) in sdks[0].features().iter().enumerate() {
            write!(text, "| {feature} |").unwrap();
            for sdk in &sdks {
                let word = match sdk.cells[row] {
                    Shown(_) => "yes",
                    Absent => "-",
                };
                write!(text, " {word} |").unwrap();
            }
            text.push('\n');
        }
    }
    text.push_str(TAIL);
    text
}

const HEAD: &str = "\
# SDKs that are tested

Generated by `RELAY_UPDATE=1 cargo test --test compatibility sdk`; do not edit. `tests/run` runs each SDK, unchanged and in the given
version, against a Relay process, on io_uring and on epoll. Cells:

- **yes**: a test shows it on every run, and fails when it does not;
- **-**: the SDK does not support it.
";

const TAIL: &str = "
## What a row means

- *reconnect*: the server is killed and another started; the client reconnects automatically and receives events published
  after that. pysher then subscribes without a signature, which only public channels accept; it does not reconnect after the
  refusal of another channel (4009), so an application must leave those first or reconnect itself.
- *refused channels*: the application's endpoint answers 403; the client gets an error on that channel, and the socket
  stays open.
- *encrypted channels*, *encrypted events*: `private-encrypted-` with a master key that Relay never sees.
- *cache channels*: a subscriber gets the last event at once.
- *authorize*: a signature of the SDK is accepted on a WebSocket of another implementation.
- *refusals*: a reserved event name and a wrong secret raise the errors that the SDK documents for 400 and 401.

## Versions of Node

The scripts run with the Node of the machine, 18 (Debian 12) or newer. Node 18 has no global `crypto`, which pusher-http-edge
uses: the tests set it, and an application starts `node --experimental-global-webcrypto`. laravel-echo asks npm for Node 20.19 or
22.12; in browsers and in the tests it works without.

## Others

[Relay's own client](clients/javascript.md) is pusher-js with other defaults. The tests run it on Node, on Deno, with
laravel-echo and in Chromium.

The server SDKs for PHP, Ruby, Go, Java and .NET and the clients for Java, Swift, .NET and Flutter are not run by the
tests: their packages come from registries that the tests do not use. Relay follows the rules derived from their
sources ([protocol/pusher.md](protocol/pusher.md), section 1), and the tests run the [recipe for PHP](recipes/php.md) without a
package.
";
