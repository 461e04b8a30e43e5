//! The experiments: contenders, loads, and the figure taken from each.

/// A comparison.
pub(crate) struct Experiment {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The measured quantity, with its unit.
    pub(crate) figure: &'static str,
    /// The base of the ratio.
    pub(crate) ratio: &'static str,
    pub(crate) place: Place,
    pub(crate) contenders: Vec<Contender>,
    /// A column of the table of runtimes.
    pub(crate) is_about_runtimes: bool,
}

/// One row.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// `None` where the load generator itself provides the server: the floor.
    pub(crate) server: Option<Program>,
    /// The load generator's scenario and options.
    pub(crate) scenario: Vec<&'static str>,
    /// The figure to take from the generator's report.
    pub(crate) figure: &'static str,
    /// The contender whose figure of the same round is the divisor of this one's.
    pub(crate) base: Option<&'static str>,
}

/// A server to start.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    Bare {
        on: &'static str,
        role: &'static str,
    },
    Relay {
        io: &'static str,
        shards: &'static str,
    },
    /// The load generator's bare HTTP server, which shares no code with Relay.
    HttpEcho,
}

/// Cores of the server and of the generator.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// The server on core 0, the generator on core 1.
    Apart,
    /// Both on both cores.
    Together,
}

impl Place {
    pub(crate) fn server_cores(self) -> &'static str {
        match self {
            Self::Apart => "0",
            Self::Together => "0,1",
        }
    }

    pub(crate) fn generator_cores(self) -> &'static str {
        match self {
            Self::Apart => "1",
            Self::Together => "0,1",
        }
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Experiment> {
    let thousand = ["fan-out", "--subscribers", "1000", "--events-per-second", "50", "--duration-seconds", "1.5"];
    let ten_thousand = ["fan-out", "--subscribers", "10000", "--events-per-second", "5", "--duration-seconds", "2"];
    vec![
        fan_out("fan-out-1000", "one event of 128 bytes at a time to 1,000 subscribers", &thousand, false),
        fan_out("fan-out-10000", "one event of 128 bytes at a time to 10,000 subscribers", &ten_thousand, false),
        fan_out("fan-out-1000-by-8", "eight events at a time to 1,000 subscribers", &EIGHT, true),
        idle(),
        publish(
            "publish",
            "signed publishes without subscribers, keep-alive, 32 pipelined at a time",
            &["--requests-per-second", "40000", "--messages-per-tick", "32"],
        ),
        publish(
            "publish-alone",
            "signed publishes without subscribers, keep-alive, one at a time",
            &["--requests-per-second", "8000"],
        ),
        subscribe("subscribe", "private subscriptions on 100 connections, which leave the last one", &[]),
        subscribe(
            "subscribe-stay",
            "private subscriptions on 100 connections, which stay on all of 500 channels",
            &["--stay", "--channels", "500"],
        ),
        shards(),
        publish_shards(),
    ]
}

/// The runtimes compared with Relay itself.
const SERVERS: [(&str, Program); 6] = [
    ("monoio", Program::Bare { on: "monoio", role: "fan-out" }),
    ("tokio-uring", Program::Bare { on: "tokio-uring", role: "fan-out" }),
    ("bare on Relay's io_uring driver", Program::Bare { on: "relay-uring", role: "fan-out" }),
    ("bare on Relay's epoll driver", Program::Bare { on: "relay-epoll", role: "fan-out" }),
    ("relay, io_uring", Program::Relay { io: "uring", shards: "1" }),
    ("relay, epoll", Program::Relay { io: "epoll", shards: "1" }),
];

const EIGHT: [&str; 9] = [
    "fan-out",
    "--subscribers",
    "1000",
    "--events-per-second",
    "400",
    "--messages-per-tick",
    "8",
    "--duration-seconds",
    "1.5",
];

fn fan_out(name: &'static str, title: &'static str, load: &[&'static str], is_joined: bool) -> Experiment {
    let figure = "server-cpu-per-delivery-ns";
    let mut contenders: Vec<Contender> = SERVERS
        .into_iter()
        .map(|(name, program)| {
            let scenario = [load, &["--warmup-seconds", "0.3"]].concat();
            Contender { name, server: Some(program), scenario, figure, base: Some(FLOOR) }
        })
        .collect();
    let scenario = [&["floor"], &load[1..]].concat();
    let figure = "floor-send-cpu-per-delivery-ns";
    contenders.push(Contender { name: FLOOR, server: None, scenario, figure, base: Some(FLOOR) });
    let figure = "server CPU per delivery, ns";
    let place = Place::Apart;
    Experiment { name, title, figure, ratio: "to the floor", place, contenders, is_about_runtimes: !is_joined }
}

fn idle() -> Experiment {
    let contender = |(name, program)| Contender {
        name,
        server: Some(program),
        scenario: vec!["idle", "--connections", "15000", "--hold-seconds", "1"],
        figure: "server-resident-per-connection-bytes",
        base: None,
    };
    Experiment {
        name: "idle",
        title: "resident memory of the server for each of 15,000 idle subscribed connections",
        figure: "RSS per idle connection, bytes",
        ratio: "",
        place: Place::Apart,
        contenders: SERVERS.into_iter().map(contender).collect(),
        is_about_runtimes: true,
    }
}

/// Both drivers, each with a bare echo and with Relay.
const ECHOES: [(&str, Program, Option<&str>); 4] = [
    ("bare echo, io_uring", Program::Bare { on: "relay-uring", role: "echo" }, None),
    ("relay, io_uring", Program::Relay { io: "uring", shards: "1" }, Some("bare echo, io_uring")),
    ("bare echo, epoll", Program::Bare { on: "relay-epoll", role: "echo" }, None),
    ("relay, epoll", Program::Relay { io: "epoll", shards: "1" }, Some("bare echo, epoll")),
];

/// A bare HTTP server that shares no code with Relay, Relay on each driver, and the echoes that share its parser and
/// its drivers.
const HTTP_SERVERS: [(&str, Program, Option<&str>); 5] = [
    (HTTP_ECHO, Program::HttpEcho, None),
    ("relay, io_uring", Program::Relay { io: "uring", shards: "1" }, Some(HTTP_ECHO)),
    ("relay, epoll", Program::Relay { io: "epoll", shards: "1" }, Some(HTTP_ECHO)),
    ("Relay's parser and io_uring driver", Program::Bare { on: "relay-uring", role: "echo" }, Some(HTTP_ECHO)),
    ("Relay's parser and epoll driver", Program::Bare { on: "relay-epoll", role: "echo" }, Some(HTTP_ECHO)),
];

const HTTP_ECHO: &str = "bare HTTP echo";

/// Sent by the clock, so that all servers get the same requests in the same batches.
fn publish(name: &'static str, title: &'static str, rhythm: &[&'static str]) -> Experiment {
    let contender = |(name, program, base)| Contender {
        name,
        server: Some(program),
        scenario: [&["publish", "--duration-seconds", "1.5"], rhythm].concat(),
        figure: "server-cpu-per-request-ns",
        base,
    };
    Experiment {
        name,
        title,
        figure: "server CPU per request, ns",
        ratio: "to a bare HTTP echo",
        place: Place::Apart,
        contenders: HTTP_SERVERS.into_iter().map(contender).collect(),
        is_about_runtimes: false,
    }
}

fn subscribe(name: &'static str, title: &'static str, options: &[&'static str]) -> Experiment {
    let load = ["subscribe", "--connections", "100", "--subscribes-per-second", "10000", "--duration-seconds", "1.5"];
    let contender = |(name, program, base): (&'static str, Program, Option<&'static str>)| {
        let echo: &[&str] = if base.is_none() { &["--echo"] } else { &[] };
        let scenario = [&load[..], options, echo].concat();
        Contender { name, server: Some(program), scenario, figure: "server-cpu-per-subscribe-ns", base }
    };
    Experiment {
        name,
        title,
        figure: "server CPU per subscribe, ns",
        ratio: "to a bare WebSocket echo on the same driver",
        place: Place::Apart,
        contenders: ECHOES.into_iter().map(contender).collect(),
        is_about_runtimes: false,
    }
}

fn shards() -> Experiment {
    let servers = [
        ("io_uring, 1 shard", "uring", "1", None),
        ("io_uring, 2 shards", "uring", "2", Some("io_uring, 1 shard")),
        ("epoll, 1 shard", "epoll", "1", None),
        ("epoll, 2 shards", "epoll", "2", Some("epoll, 1 shard")),
    ];
    let contender = |(name, io, shards, base)| Contender {
        name,
        server: Some(Program::Relay { io, shards }),
        scenario: vec!["fan-out", "--subscribers", "1000", "--events-per-second", "50", "--duration-seconds", "3"],
        figure: "server-cpu-per-delivery-ns",
        base,
    };
    Experiment {
        name: "shards",
        title: "one event at a time to 1,000 subscribers, server and generator both on cores 0 and 1",
        figure: "server CPU per delivery, ns",
        ratio: "to one shard",
        place: Place::Together,
        contenders: servers.into_iter().map(contender).collect(),
        is_about_runtimes: false,
    }
}

/// Publishes over eight connections, which are spread over two shards.
fn publish_shards() -> Experiment {
    let servers = [
        ("io_uring, 1 shard", "uring", "1", None),
        ("io_uring, 2 shards", "uring", "2", Some("io_uring, 1 shard")),
        ("epoll, 1 shard", "epoll", "1", None),
        ("epoll, 2 shards", "epoll", "2", Some("epoll, 1 shard")),
    ];
    let load = [
        "publish",
        "--publishers",
        "8",
        "--requests-per-second",
        "40000",
        "--messages-per-tick",
        "32",
        "--duration-seconds",
        "1.5",
    ];
    let contender = |(name, io, shards, base)| Contender {
        name,
        server: Some(Program::Relay { io, shards }),
        scenario: load.to_vec(),
        figure: "server-cpu-per-request-ns",
        base,
    };
    Experiment {
        name: "publish-shards",
        title: "signed publishes by 8 connections, 32 pipelined at a time, server and generator both on cores 0 and 1",
        figure: "server CPU per request, ns",
        ratio: "to one shard",
        place: Place::Together,
        contenders: servers.into_iter().map(contender).collect(),
        is_about_runtimes: false,
    }
}

/// Name of the row that is the kernel's own cost.
pub(crate) const FLOOR: &str = "floor: bare send loop";
