//! `relay-loadgen`: a load generator for servers of the Pusher Channels protocol.
//!
//! One coordinator (this process) gives orders to worker processes, each one thread with its own epoll set, and sums
//! up what they report. Nothing of the server's code is used: protocol and signatures are written anew.

use std::process::ExitCode;

mod answer;
mod arguments;
mod chart;
mod client;
mod clock;
mod crowd;
mod csv;
mod cut;
mod environment;
mod fleet;
mod floor_sender;
mod frame;
mod hdr;
mod histogram;
mod html;
mod http_echo;
mod ledger;
mod messages;
mod outcome;
mod poll;
mod preflight;
mod process;
mod progress;
mod publisher;
mod quantity;
mod receive;
mod recorder;
mod report;
mod scenario;
mod scenario_file;
mod schedule;
mod silence;
mod socket;
mod speech;
mod stamp;
mod subscriptions;
mod sys;
mod target;
mod threshold;
mod times;
mod window;
mod worker;

fn main() -> ExitCode {
    arguments::run()
}
