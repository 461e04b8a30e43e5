//! A worker process: one thread and one epoll set, with the connections and publishers that its coordinator orders.
//!
//! Each turn does what is due, then handles a limited number of events, so that schedules are checked often.

use std::io::{self, Write};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

mod checker;
mod client_events;
mod connection;
mod connections;
mod event_stream;
mod poll;
mod polled;
mod published;
mod publisher;
mod readers;
mod receive;
mod resets;
mod shared;
mod socket;
mod subscribe;
mod subscriptions;
mod verifier;

use self::client_events::ClientEvents;
use self::connections::Connections;
use self::poll::{Poll, Token};
use self::publisher::Publisher;
use self::readers::Readers;
use self::shared::Shared;
use crate::clock::{MILLISECOND_NS, SECOND_NS, now_ns, thread_cpu_ns};
use crate::messages::{Order, Progress, Report};
use crate::process;

struct Worker {
    shared: Shared,
    connections: Connections,
    publishers: Vec<Publisher>,
    client_events: Vec<ClientEvents>,
    orders: OrderLines,
    progress_ns: u64,
    flushed_second: u64,
}

/// Runs a worker until its coordinator ends.
pub(crate) fn run() -> io::Result<()> {
    process::end_with_parent();
    // Without this, sleeps end up to 50 us late.
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
    let connections = Connections::new();
    let shared = Shared::new(plan, poll);
    Worker {
        shared,
        connections,
        publishers: Vec::new(),
        client_events: Vec::new(),
        orders,
        progress_ns: 0,
        flushed_second: 0,
    }
    .work()
}

impl Worker {
    /// Works until the coordinator ends. After an error, the last counts are still reported.
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
                self.execute(order);
            }
            // A turn waits at most until the next report, so a longer one means that the worker did not run.
            let now = now_ns();
            if now - turned_ns > LATE_NS {
                self.shared.judged_from_ns = now;
            }
            turned_ns = now;
            self.connections.run_schedule(&mut self.shared)?;
            for publisher in &mut self.publishers {
                if publisher.waits_for_deliveries()
                    || publisher.next_ns(&self.shared).is_some_and(|next| next <= now_ns())
                {
                    publisher.run_schedule(&mut self.shared);
                }
            }
            for events in &mut self.client_events {
                events.run_schedule(&mut self.connections, &mut self.shared);
            }
            self.client_events.retain(|events| events.next_ns().is_some());
            subscribe::run_schedule(&mut self.connections, &mut self.shared);
            resets::run_schedule(&mut self.connections, &mut self.shared)?;
            let now = now_ns();
            if now >= self.progress_ns {
                self.report(now)?;
            }
            let publisher = self.publishers.iter().filter_map(|publisher| publisher.next_ns(&self.shared)).min();
            let events = self.client_events.iter().filter_map(ClientEvents::next_ns).min();
            let subscription = self.shared.subscriptions.next_ns();
            let joining = self.connections.joining();
            let reset = self.shared.readers.as_ref().and_then(|readers| readers.next_ns(joining));
            let connection = self.connections.next_ns(&self.shared);
            let due = [connection, publisher, events, subscription, reset].into_iter().flatten().min();
            self.shared.poll.wait(due.unwrap_or(u64::MAX).min(self.progress_ns), now_ns())?;
            if !self.handle_events()? {
                return Ok(());
            }
        }
    }

    fn handle_events(&mut self) -> io::Result<bool> {
        let events = self.shared.poll.take_events();
        let mut continues = true;
        for event in &events {
            match poll::read(event) {
                (Token::Connection(slot, generation), flags) => {
                    self.connections.handle_event(slot, generation, flags, &mut self.shared);
                }
                (Token::Publisher(slot, generation), flags) => {
                    self.publishers[slot as usize].handle_event(generation, flags, &mut self.shared);
                }
                (Token::Orders, _) => continues = self.orders.read()?,
                (Token::Timer, _) => {}
            }
        }
        self.shared.poll.return_events(events);
        Ok(continues)
    }

    fn execute(&mut self, order: Order) {
        match order {
            Order::Begin(_) => {}
            Order::Connect(order) => self.connections.begin(order),
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
            Order::ClientEvents(order) => self.client_events.push(ClientEvents::send(&order, &self.connections)),
            Order::Churn(order) => {
                self.shared.churn_from_ns = Some(order.start_ns);
                self.client_events.push(ClientEvents::churn(&order, &self.connections, &self.shared));
            }
            Order::Ping(order) => self.client_events.push(ClientEvents::ping(&order, &self.connections)),
            Order::PrepareSubscribe(plan) => self.shared.subscriptions.prepare(plan),
            Order::Subscribe(order) => self.shared.subscriptions.begin(&order, self.connections.subscribed()),
            Order::Drop { group, back } => {
                let numbers = self.connections.drop_group(group, &mut self.shared);
                if let Some(back) = back {
                    self.connections.begin_again(group, numbers, back);
                }
            }
            Order::Reset(order) => self.shared.readers.iter_mut().for_each(|readers| readers.begin_resets(&order)),
            Order::Conclude { events } => {
                let left_out = self.shared.readers.as_ref().map_or(0, |readers| readers.conclude(&events));
                self.shared.counters.resume.left_out += left_out;
            }
            Order::Halt => {
                self.connections.halt();
                self.publishers.iter_mut().for_each(Publisher::halt);
                self.client_events.clear();
                self.shared.subscriptions.halt();
                self.shared.readers.iter_mut().for_each(Readers::halt);
            }
            Order::MeasureFrom { at_ns } => self.shared.recorder.from_ns = at_ns,
        }
        self.progress_ns = 0;
    }

    fn report(&mut self, now: u64) -> io::Result<()> {
        self.progress_ns = now + PROGRESS_NS;
        let running = self.publishers.iter().filter(|publisher| publisher.is_running()).count() as u64;
        self.shared.counters.schedules_running =
            running + self.connections.waves_running() + self.client_events.len() as u64;
        self.shared.counters.schedules_running += u64::from(self.shared.subscriptions.is_running());
        let resets = self.shared.readers.as_ref().is_some_and(Readers::is_running);
        self.shared.counters.schedules_running += u64::from(resets);
        let second = now / SECOND_NS;
        // Writing histograms takes a while, so it happens once a second while they are being filled.
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

/// The orders on standard input, one per line.
#[derive(Default)]
struct OrderLines {
    bytes: Vec<u8>,
    taken: u64,
}

impl OrderLines {
    /// Reads what is available; false at the end of the input.
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
