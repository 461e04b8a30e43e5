//! The steps of every turn of a loop, the same for both drivers.
//!
//! ```text
//! loop {
//!     wait for events, at most `turn.sleep(core)`        (the driver)
//!     turn.begin(core)                                   clock, signals, mail
//!     feed the events                                    (the driver)
//!     turn.finish_inputs(core, fed)                      caught up?, timeout
//!     end_batch; poll_effect(core), poll_flush: carry out, until nothing comes    (the driver)
//!     turn.end(core)                                     mail out, drained?
//! }
//! ```
//! With several batches in one turn, outputs may be drained after each; the other steps run once.

use std::sync::Arc;

use super::control::{Control, Phase};
use super::host::{Host, NoHost};
use super::mailbox::Sleep;
use super::outgoing::OutgoingMail;
use super::pass::{Fed, Pass};
use super::watchdog::Beat;
use super::{Core, ShardSetup, clock::Clock, log, process};
use crate::app::MessagesUsed;
use crate::connection::ConnectionKey;
use crate::limits::{MAIL_PER_TURN, MAIL_RETRY_MS};
use crate::metrics::figures::{DriverFigures, ProcessFigures};
use crate::metrics::refusal_log::Reports;
use crate::moment::Moment;
use crate::shard::{Input, Mail, Output};

/// State of one shard's turns.
pub struct Turn {
    /// The loop's counts; a driver adds its own.
    pub figures: DriverFigures,
    clock: Clock,
    now: Moment,
    /// When the last turn ended, in µs.
    ended_us: u64,
    process: Process,
    pass: Pass,
    outgoing: OutgoingMail<Mail>,
    control: Arc<Control>,
    directory_seen: u64,
    drain: Drain,
    started: Started,
    host: Box<dyn Host>,
}

/// Whether the core waits for process metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Process {
    NotAsked,
    Asked,
}

/// Whether the server knows that this loop runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Started {
    NotYet,
    Reported,
}

/// This shard's progress in draining.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Drain {
    NotAsked,
    Fed,
    Reported,
}

/// A request from the core about the driver's sockets; outputs that concern no socket are handled here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// [`Output::Close`].
    Close {
        /// The connection.
        connection: ConnectionKey,
        /// Send RST and drop unsent data.
        reset: bool,
    },
    /// [`Output::ShutdownWrite`].
    ShutdownWrite(ConnectionKey),
    /// [`Output::Pause`].
    Pause(ConnectionKey),
    /// [`Output::Resume`].
    Resume(ConnectionKey),
}

/// How long the driver may wait for events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Not at all: check for events and continue.
    No,
    /// At most this long, in ms, at least 1.
    AtMost(u64),
    /// Until an event or a wake.
    Forever,
}

/// Whether the loop continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Another turn.
    Turn,
    /// All shards have drained, or the server stopped waiting: return.
    Stop,
}

impl Turn {
    /// Takes its part of the shard's setup; the rest (listeners, slots) belongs to the driver.
    pub fn new(setup: &mut ShardSetup) -> Self {
        setup.control.beats()[usize::from(setup.index)].begin();
        Self {
            figures: DriverFigures::default(),
            clock: setup.clock,
            now: setup.clock.read(),
            ended_us: setup.clock.monotonic_us(),
            process: Process::NotAsked,
            pass: Pass::new(),
            outgoing: OutgoingMail::new(setup.index, Arc::clone(&setup.mailboxes)),
            control: Arc::clone(&setup.control),
            directory_seen: 0,
            drain: Drain::NotAsked,
            started: Started::NotYet,
            host: std::mem::replace(&mut setup.host, Box::new(NoHost)),
        }
    }

    /// The time of this turn.
    pub fn now(&self) -> Moment {
        self.now
    }

    fn beat(&self) -> &Beat {
        &self.control.beats()[usize::from(self.outgoing.index())]
    }

    /// The mailbox of this shard; the driver must wait on its descriptor.
    pub fn outgoing(&self) -> &OutgoingMail<Mail> {
        &self.outgoing
    }

    /// Reads the clocks and feeds signals and mail, at most `MAIL_PER_TURN`.
    pub fn begin(&mut self, core: &mut impl Core) {
        self.outgoing.mailbox().end_sleep();
        self.beat().turn();
        let began_us = self.clock.monotonic_us();
        self.now = self.clock.moment(began_us);
        core.handle_turn_begin(began_us);
        if self.process == Process::Asked {
            self.process = Process::NotAsked;
            let figures = ProcessFigures {
                webhooks: self.host.webhook_figures(),
                authorizers: self.host.authorizer_figures(),
                ..process::measure()
            };
            core.handle_process_figures(&figures);
        }
        if let Some(directory) = self.control.take_directory(&mut self.directory_seen) {
            core.handle_input(self.now, Input::Directory(directory));
        }
        if self.drain == Drain::NotAsked && self.control.phase() >= Phase::Draining {
            self.drain = Drain::Fed;
            core.handle_input(self.now, Input::Drain);
        }
        for _ in 0..MAIL_PER_TURN {
            let Some((from, mail)) = self.outgoing.mailbox().pop() else {
                break;
            };
            core.handle_input(self.now, Input::Mail { from, mail });
        }
    }

    /// Feeds the inputs that follow the turn's other inputs: whether the driver is caught up, and the timeout if it is
    /// due. No peer is judged before everything it sent has been read (P-LIVE-6).
    pub(super) fn finish_inputs(&mut self, core: &mut impl Core, fed: Fed) {
        if self.pass.is_complete_with(fed) {
            core.handle_input(self.now, Input::CaughtUp);
        }
        if core.poll_timeout().is_some_and(|at| at <= self.now.monotonic_ms) {
            core.handle_input(self.now, Input::Timeout);
        }
    }

    /// Takes the next output that concerns a socket; sends mail and reports tokens along the way.
    pub fn poll_effect(&mut self, core: &mut impl Core) -> Option<Effect> {
        loop {
            return Some(match core.poll_output()? {
                Output::Log(line) => {
                    let id = if line.reports == Reports::Refusal { self.host.refused(&line) } else { None };
                    log::write(self.outgoing.index(), &line, id);
                    continue;
                }
                Output::MeasureProcess => {
                    self.process = Process::Asked;
                    continue;
                }
                Output::Mail { to, mail } => {
                    self.figures.mails_sent += 1;
                    self.outgoing.send(to, mail);
                    continue;
                }
                Output::TokenUsed { token, at } => {
                    self.host.token_used(token, at);
                    continue;
                }
                Output::Change(change) => {
                    self.host.change(change);
                    continue;
                }
                Output::Authorize(authorize) => {
                    self.host.authorize(authorize);
                    continue;
                }
                Output::Replayed { call, outcome } => {
                    self.host.replayed(call, outcome);
                    continue;
                }
                Output::Webhook(event) => {
                    self.host.webhook(event);
                    continue;
                }
                Output::MisleadingName { app, channel } => {
                    tracing::warn!(
                        app = app.0,
                        %channel,
                        "this channel is public: its prefix must come first, as in private-no-history-x"
                    );
                    continue;
                }
                Output::MessagesCounted { app, day, messages } => {
                    self.host.messages_counted(app, MessagesUsed { day, messages });
                    continue;
                }
                Output::Close { connection, reset } => Effect::Close { connection, reset },
                Output::ShutdownWrite { connection } => Effect::ShutdownWrite(connection),
                Output::Pause { connection } => Effect::Pause(connection),
                Output::Resume { connection } => Effect::Resume(connection),
            });
        }
    }

    /// Ends the turn: delivers mail, wakes its targets, and notifies the server when the core has drained.
    pub fn end(&mut self, core: &mut impl Core) -> Next {
        debug_assert!(!core.has_pending(), "the core was drained");
        self.outgoing.deliver();
        self.ended_us = self.clock.monotonic_us();
        self.figures.mails_waiting = self.outgoing.waiting() as u64;
        self.figures.mailbox_depth = self.outgoing.mailbox().len() as u64;
        core.handle_turn_end(self.ended_us, &self.figures);
        if self.started == Started::NotYet {
            self.started = Started::Reported;
            self.control.report_started();
        }
        if self.drain == Drain::Fed && core.is_drained() {
            self.drain = Drain::Reported;
            self.control.report_drained();
        }
        match self.control.phase() {
            Phase::Running | Phase::Draining => Next::Turn,
            Phase::Stopped => Next::Stop,
        }
    }

    /// How long the driver may wait now. Unless this returns `No`, the sleep is announced to the other shards, and the
    /// driver must also wait on the mailbox's descriptor.
    pub fn sleep(&self, core: &impl Core) -> Wait {
        if self.process == Process::Asked {
            return Wait::No;
        }
        // Not the time when the turn began: the turn took time, and the timeout must not be late by that much.
        let now_ms = self.ended_us / 1_000;
        let timeout_ms = core.poll_timeout().map(|at| at.saturating_sub(now_ms));
        let retry_ms = (self.outgoing.waiting() > 0).then_some(MAIL_RETRY_MS);
        let wait = match (timeout_ms, retry_ms) {
            (None, None) => Wait::Forever,
            (Some(0), _) => return Wait::No,
            (Some(ms), None) | (None, Some(ms)) => Wait::AtMost(ms),
            (Some(timeout_ms), Some(retry_ms)) => Wait::AtMost(timeout_ms.min(retry_ms)),
        };
        match self.outgoing.mailbox().prepare_sleep() {
            Sleep::Announced => wait,
            Sleep::MailWaits => Wait::No,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.beat().end();
    }
}

#[cfg(test)]
mod tests;
