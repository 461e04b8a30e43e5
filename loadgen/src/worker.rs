//! A worker process: one thread, one epoll set, the connections and publishers that it is told to play.
//!
//! Each turn does what is due, then handles at most a few events, so that schedules are looked at often.

use std::io::{self, Write};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::clock::{MILLISECOND_NS, SECOND_NS, now_ns, thread_cpu_ns};
use crate::crowd::Crowd;
use crate::ledger::{Arrived, Ledger};
use crate::messages::{Counters, Measure, Order, Plan, Progress, Report};
use crate::poll::{self, Poll, Token};
use crate::process;
use crate::publisher::Publisher;
use crate::recorder::Recorder;
use crate::speech::Speech;
use crate::stamp::Stamp;
use crate::subscriptions::Subscriptions;
use crate::target::Signer;

/// What the parts of a worker have in common.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) poll: Poll,
    pub(crate) counters: Counters,
    pub(crate) recorder: Recorder,
    pub(crate) ledger: Ledger,
    pub(crate) signer: Signer,
    pub(crate) subscriptions: Subscriptions,
    /// The request that opens each WebSocket.
    pub(crate) upgrade: Vec<u8>,
    /// When members began to change.
    churn_from_ns: Option<u64>,
    /// No time before this counts against the server: the worker was stopped or had no core, and did not look.
    pub(crate) judged_from_ns: u64,
    /// Space for one request body.
    pub(crate) body: Vec<u8>,
}

impl Shared {
    fn new(plan: Plan, poll: Poll) -> Self {
        let counters = Counters { accepted_by_channel: vec![0; plan.channels.len()], ..Counters::default() };
        Self {
            counters,
            recorder: Recorder::new(),
            ledger: Ledger::new(plan.run, plan.publishers, plan.payload_bytes, &plan.channels),
            signer: Signer::new(&plan.target),
            subscriptions: Subscriptions::default(),
            upgrade: plan.target.upgrade_request(),
            churn_from_ns: None,
            judged_from_ns: 0,
            body: Vec::new(),
            plan,
            poll,
        }
    }

    /// Counts why something failed. Only so many different reasons are kept.
    #[cold]
    pub(crate) fn reason(&mut self, reason: &str) {
        let reasons = &mut self.counters.reasons;
        let name = if reasons.len() < REASONS_MAX || reasons.contains_key(reason) { reason } else { "other" };
        *reasons.entry(name.to_owned()).or_default() += 1;
    }

    /// Counts what an event turned out to be.
    pub(crate) fn count(&mut self, arrived: Arrived, now: u64) {
        match arrived {
            Arrived::InOrder(stamp) => self.delivered(stamp, now),
            Arrived::Late(stamp) => {
                self.counters.disordered += 1;
                self.delivered(stamp, now);
            }
            Arrived::Duplicate => self.counters.duplicates += 1,
            Arrived::WrongChannel => self.counters.wrong_channel += 1,
            Arrived::Damaged => self.counters.damaged += 1,
            Arrived::Foreign => self.counters.foreign += 1,
            Arrived::Other => {}
        }
    }

    /// Whether what was due then is a change of a member and not its first subscription.
    pub(crate) fn is_change(&self, due_ns: u64) -> bool {
        self.churn_from_ns.is_some_and(|from_ns| due_ns >= from_ns)
    }

    fn delivered(&mut self, stamp: Stamp, now: u64) {
        self.counters.delivered += 1;
        self.recorder.record(Measure::Delivery, stamp.intended_ns, now);
    }

    /// Index of the channel of the connection with this number.
    pub(crate) fn channel_of(&self, number: u32) -> usize {
        number as usize % self.plan.channels.len()
    }

    /// Whether the connection will subscribe again.
    pub(crate) fn keeps_socket_id(&self, number: u32) -> bool {
        self.subscriptions.is_prepared() || self.plan.channels[self.channel_of(number)].starts_with("presence-")
    }

    /// The message by which a connection subscribes its channel, signed where the channel's name asks for it. A
    /// presence member's id is a stamp: so the others can tell how long the news of it took.
    pub(crate) fn subscribe_message(&self, number: u32, sequence: u32, socket_id: &str, intended_ns: u64) -> String {
        let index = self.channel_of(number);
        let channel = &self.plan.channels[index];
        if channel.starts_with("presence-") {
            let channel_index = u32::try_from(index).expect("below 2^24");
            let stamp = Stamp { run: self.plan.run, publisher: number, sequence, intended_ns, channel: channel_index };
            let mut user = Vec::new();
            stamp.write(0, &mut user);
            let data = format!("{{\"user_id\":\"{}\"}}", String::from_utf8_lossy(&user));
            let auth = self.signer.subscription(socket_id, channel, Some(&data));
            let data = data.replace('"', "\\\"");
            return format!(
                "{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"{channel}\",\"auth\":\"{auth}\",\
                 \"channel_data\":\"{data}\"}}}}"
            );
        }
        let auth = if channel.starts_with("private-") {
            self.signer.subscription(socket_id, channel, None)
        } else {
            String::new()
        };
        format!("{{\"event\":\"pusher:subscribe\",\"data\":{{\"auth\":\"{auth}\",\"channel\":\"{channel}\"}}}}")
    }
}

struct Worker {
    shared: Shared,
    crowd: Crowd,
    publishers: Vec<Publisher>,
    speeches: Vec<Speech>,
    orders: OrderLines,
    progress_ns: u64,
    flushed_second: u64,
}

/// Runs a worker until its coordinator goes away.
pub(crate) fn run() -> io::Result<()> {
    process::end_with_parent();
    // Sleeps end on time, not up to 50 us later.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let result = work();
    if let Err(error) = &result {
        write_report(&Report::Broken { message: error.to_string() })?;
    }
    result
}

fn work() -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.add(rustix::stdio::stdin(), Token::Orders, EventFlags::IN)?;
    let mut orders = OrderLines::default();
    let plan = loop {
        poll.wait(u64::MAX / 2, now_ns())?;
        if !orders.read()? {
            return Ok(());
        }
        match orders.take()? {
            Some(Order::Begin(plan)) => break *plan,
            Some(_) => return Err(io::Error::other("the first order must be the plan")),
            None => {}
        }
    };
    let crowd = Crowd::new();
    let shared = Shared::new(plan, poll);
    Worker { shared, crowd, publishers: Vec::new(), speeches: Vec::new(), orders, progress_ns: 0, flushed_second: 0 }
        .work()
}

impl Worker {
    /// Works until the coordinator goes away. If it cannot go on, what it has counted so far is not lost.
    fn work(mut self) -> io::Result<()> {
        let result = self.turns();
        if result.is_err() {
            self.flushed_second = 0;
            self.report(now_ns())?;
        }
        result
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut turned_ns = now_ns();
        loop {
            while let Some(order) = self.orders.take()? {
                self.obey(order);
            }
            // A turn sleeps no longer than until the next report.
            let now = now_ns();
            if now - turned_ns > LATE_NS {
                self.shared.judged_from_ns = now;
            }
            turned_ns = now;
            self.crowd.run_schedule(&mut self.shared)?;
            for publisher in &mut self.publishers {
                if publisher.waits_for_deliveries()
                    || publisher.next_ns(&self.shared).is_some_and(|next| next <= now_ns())
                {
                    publisher.run_schedule(&mut self.shared);
                }
            }
            for speech in &mut self.speeches {
                speech.run_schedule(&mut self.crowd, &mut self.shared);
            }
            self.speeches.retain(|speech| speech.next_ns().is_some());
            Subscriptions::run_schedule(&mut self.crowd, &mut self.shared);
            let now = now_ns();
            if now >= self.progress_ns {
                self.report(now)?;
            }
            let publisher = self.publishers.iter().filter_map(|publisher| publisher.next_ns(&self.shared)).min();
            let speech = self.speeches.iter().filter_map(Speech::next_ns).min();
            let subscription = self.shared.subscriptions.next_ns();
            let due = [self.crowd.next_ns(&self.shared), publisher, speech, subscription].into_iter().flatten().min();
            self.shared.poll.wait(due.unwrap_or(u64::MAX).min(self.progress_ns), now_ns())?;
            if !self.handle_events()? {
                return Ok(());
            }
        }
    }

    fn handle_events(&mut self) -> io::Result<bool> {
        let events = self.shared.poll.take_events();
        let mut goes_on = true;
        for event in &events {
            match poll::read(event) {
                (Token::Connection(slot, generation), flags) => {
                    self.crowd.handle_event(slot, generation, flags, &mut self.shared);
                }
                (Token::Publisher(slot, generation), flags) => {
                    self.publishers[slot as usize].handle_event(generation, flags, &mut self.shared);
                }
                (Token::Orders, _) => goes_on = self.orders.read()?,
                (Token::Timer, _) => {}
            }
        }
        self.shared.poll.return_events(events);
        Ok(goes_on)
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin(_) => {}
            Order::Connect(order) => self.crowd.begin(order),
            Order::Publish(order) => {
                for id in &order.publishers {
                    let at = self.publishers.iter().position(|publisher| publisher.id() == *id).unwrap_or_else(|| {
                        let slot = u32::try_from(self.publishers.len()).expect("a handful");
                        self.publishers.push(Publisher::new(*id, slot, self.shared.plan.channels.len()));
                        self.publishers.len() - 1
                    });
                    self.publishers[at].begin(&order, &self.shared);
                }
            }
            Order::Say(order) => self.speeches.push(Speech::say(&order, &self.crowd)),
            Order::Churn(order) => {
                self.shared.churn_from_ns = Some(order.start_ns);
                self.speeches.push(Speech::churn(&order, &self.crowd, &self.shared));
            }
            Order::Ping(order) => self.speeches.push(Speech::ping(&order, &self.crowd)),
            Order::PrepareSubscribe(plan) => self.shared.subscriptions.prepare(plan),
            Order::Subscribe(order) => self.shared.subscriptions.begin(&order, &self.crowd),
            Order::Drop { group, back } => {
                let numbers = self.crowd.drop_group(group, &mut self.shared);
                if let Some(back) = back {
                    self.crowd.begin_again(group, numbers, back);
                }
            }
            Order::Halt => {
                self.crowd.halt();
                self.publishers.iter_mut().for_each(Publisher::halt);
                self.speeches.clear();
                self.shared.subscriptions.halt();
            }
            Order::MeasureFrom { at_ns } => self.shared.recorder.from_ns = at_ns,
        }
        self.progress_ns = 0;
    }

    fn report(&mut self, now: u64) -> io::Result<()> {
        self.progress_ns = now + PROGRESS_NS;
        let running = self.publishers.iter().filter(|publisher| publisher.is_running()).count() as u64;
        self.shared.counters.schedules_running = running + self.crowd.waves_running() + self.speeches.len() as u64;
        self.shared.counters.schedules_running += u64::from(self.shared.subscriptions.is_running());
        let second = now / SECOND_NS;
        // Writing histograms takes a while, so it is rare while they are being filled.
        let flush = second != self.flushed_second || self.shared.counters.schedules_running == 0;
        let intervals = if flush { self.shared.recorder.take(second) } else { Vec::new() };
        self.flushed_second = second;
        write_report(&Report::Progress(Box::new(Progress {
            orders: self.orders.taken,
            at_ns: now,
            counters: self.shared.counters.clone(),
            intervals,
            cpu_ns: thread_cpu_ns(),
            wait_ns: process::thread_cpu("/proc/thread-self").map_or(0, |time| time.wait_ns),
        })))
    }
}

fn write_report(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}

/// Orders as they come in on standard input.
#[derive(Default)]
struct OrderLines {
    bytes: Vec<u8>,
    taken: u64,
}

impl OrderLines {
    /// Reads what is there; false at the end of the input.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer[..]) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.bytes.extend_from_slice(&buffer[..length]);
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self) -> io::Result<Option<Order>> {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let order = serde_json::from_slice(&self.bytes[..end])?;
        self.bytes.drain(..=end);
        self.taken += 1;
        Ok(Some(order))
    }
}

const PROGRESS_NS: u64 = 200 * MILLISECOND_NS;
/// A turn that takes longer than this was late.
const LATE_NS: u64 = SECOND_NS;
const REASONS_MAX: usize = 24;
