//! `relay-loadgen`: a load generator for servers of the Pusher Channels protocol.
//!
//! One coordinator (this process) orders worker processes to open connections and to publish, and adds up their
//! reports. Each worker is one thread with its own epoll set. None of the server's code is used: the protocol and the
//! signatures are implemented here independently.
//!
//! Folders, each of which imports only from those below it:
//!
//! ```text
//! arguments               command line
//! scenario/               one file per scenario, and the options they share
//! coordinator/            worker processes, watchdog, progress bar
//! worker/   report/       connections and publishers of one worker; results as text, JSON, CSV, HTML and charts
//! messages                orders and reports between coordinator and workers
//! wire/                   HTTP, WebSocket frames, server-sent events, events, signatures, stamps
//! clock, outcome, ...     leaves
//! ```

// A function fits one screen (`clippy.toml`).
#![cfg_attr(not(test), warn(clippy::too_many_lines))]

use std::process::ExitCode;

mod abort;
mod arguments;
mod clock;
mod coordinator;
mod environment;
mod messages;
mod outcome;
mod process;
mod recorder;
mod report;
mod scenario;
mod schedule;
mod sys;
mod wire;
mod worker;

fn main() -> ExitCode {
    arguments::run()
}
