//! Signals to processes. The tests of the load generator use this file too.

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal to a process, without running a program.
#[track_caller]
pub(crate) fn signal_process(pid: u32, name: &str) {
    let signal = match name {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        "KILL" => Signal::KILL,
        name => panic!("no test sends SIG{name} yet"),
    };
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    kill_process(pid, signal).unwrap_or_else(|error| panic!("SIG{name} to {pid:?}: {error}"));
}
