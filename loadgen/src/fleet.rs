//! The coordinator's side of the worker processes: starts them, gives orders, sums up what they report.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::cut::{self, Cut};
use crate::messages::{Counters, GROUPS, Order, Plan, Progress, Report};
use crate::outcome::Failure;
use crate::progress::Bar;
use crate::times::Times;

/// All workers of a run.
pub(crate) struct Fleet {
    workers: Vec<Worker>,
    heard: Receiver<(usize, Option<Report>)>,
    /// Tells this run's events from others.
    pub(crate) run: u32,
    /// Times of the part of the run that counts.
    pub(crate) times: Times,
    /// Since when the run is being cut short, and what was counted last.
    halted: Option<Halted>,
}

struct Worker {
    child: Child,
    /// Dropped to end the worker.
    orders: Option<ChildStdin>,
    orders_given: u64,
    latest: Option<Progress>,
    heard: Instant,
    /// It has ended, or hangs and will be ended.
    is_lost: bool,
}

/// A run that is being cut short takes what is still under way.
struct Halted {
    since: Instant,
    counted: u64,
    changed: Instant,
}

/// Totals over all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) counters: Counters,
    /// CPU of the busiest worker, and of all.
    pub(crate) cpu_ns: Vec<u64>,
    pub(crate) wait_ns: u64,
    /// When the worker that has not reported for longest did, on the monotonic clock.
    pub(crate) as_of_ns: u64,
}

/// How waiting ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    Reached,
    TimedOut,
    /// See [`cut::reason`]. Every later wait ends at once, so that a scenario comes to its report.
    CutShort,
}

impl Fleet {
    /// Starts `workers` processes with this plan, each with its number.
    pub(crate) fn start(plan: &Plan, workers: usize) -> Result<Self, Failure> {
        let (sender, heard) = channel();
        let mut fleet = Self { workers: Vec::new(), heard, run: plan.run, times: Times::default(), halted: None };
        for index in 0..workers {
            fleet.workers.push(start_worker(index, &sender)?);
        }
        fleet.order_all(|index| {
            Some(Order::Begin(Box::new(Plan { worker: u32::try_from(index).unwrap_or(u32::MAX), ..plan.clone() })))
        })?;
        // Their first reports are what later ones are compared with.
        match fleet.wait(Duration::from_secs(30), &Bar::hidden(), |_| true)? {
            Waited::Reached | Waited::CutShort => Ok(fleet),
            Waited::TimedOut => Err(Failure::Run("the workers did not start within 30 s".into())),
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Gives each worker its order, if there is one for it. Of a run that is being cut short nothing new is asked.
    pub(crate) fn order_all(&mut self, mut order: impl FnMut(usize) -> Option<Order>) -> Result<(), Failure> {
        for index in 0..self.workers.len() {
            if cut::reason().is_some() {
                return Ok(());
            }
            let Some(order) = order(index) else { continue };
            self.order(index, &order);
        }
        Ok(())
    }

    /// A worker that takes no order is lost; its last words say why.
    fn order(&mut self, index: usize, order: &Order) {
        let mut line = serde_json::to_vec(order).expect("orders are plain data");
        line.push(b'\n');
        let worker = &mut self.workers[index];
        worker.orders_given += 1;
        let written = worker.orders.as_mut().map(|pipe| pipe.write_all(&line));
        if !worker.is_lost && !matches!(written, Some(Ok(()))) {
            self.listen(Duration::from_millis(200));
            self.lose(index, None);
        }
    }

    /// Waits until the totals, with all orders taken, are as wanted, or the run is cut short.
    ///
    /// # Errors
    /// If a worker cannot be told to do something.
    pub(crate) fn wait(
        &mut self,
        bound: Duration,
        bar: &Bar,
        mut done: impl FnMut(&Totals) -> bool,
    ) -> Result<Waited, Failure> {
        let begin = Instant::now();
        let caught_up_since = self.workers.iter().map(|worker| worker.orders_given).collect::<Vec<_>>();
        if self.halted.is_some() {
            return Ok(Waited::CutShort);
        }
        self.halt_if_cut();
        loop {
            let looked = Instant::now();
            let heard = self.listen(Duration::from_millis(100));
            self.notice_silence(looked.elapsed());
            let caught_up = self
                .workers
                .iter()
                .zip(&caught_up_since)
                .all(|(worker, orders)| worker.latest.as_ref().is_some_and(|latest| latest.orders >= *orders));
            let totals = self.totals();
            bar.show(&totals);
            if caught_up && heard && done(&totals) {
                return Ok(if self.halted.is_some() { Waited::CutShort } else { Waited::Reached });
            }
            self.halt_if_cut();
            if self.has_settled(&totals) {
                return Ok(Waited::CutShort);
            }
            if begin.elapsed() > bound {
                return Ok(if self.halted.is_some() { Waited::CutShort } else { Waited::TimedOut });
            }
        }
    }

    /// Lets every worker begin nothing new once the run is cut short.
    fn halt_if_cut(&mut self) {
        if cut::reason().is_none() || self.halted.is_some() {
            return;
        }
        let now = Instant::now();
        self.halted = Some(Halted { since: now, counted: 0, changed: now });
        for index in 0..self.workers.len() {
            self.order(index, &Order::Halt);
        }
    }

    /// Whether what was under way when the run was cut short has arrived, or has had its time.
    fn has_settled(&mut self, totals: &Totals) -> bool {
        let Some(halted) = &mut self.halted else { return false };
        let counters = &totals.counters;
        let counted = counters.delivered + counters.accepted + counters.refused + counters.joined + counters.failed;
        if counted != halted.counted {
            (halted.counted, halted.changed) = (counted, Instant::now());
        }
        halted.changed.elapsed() > SETTLED_AFTER || halted.since.elapsed() > SETTLE_MAX
    }

    /// Takes reports until there are none for a moment; whether there were any.
    fn listen(&mut self, timeout: Duration) -> bool {
        let mut heard = false;
        let mut timeout = timeout;
        loop {
            match self.heard.recv_timeout(timeout) {
                Ok((index, Some(Report::Progress(progress)))) => {
                    for interval in &progress.intervals {
                        self.times.add(interval);
                    }
                    self.workers[index].latest = Some(*progress);
                    self.workers[index].heard = Instant::now();
                    heard = true;
                }
                Ok((index, Some(Report::Broken { message }))) => self.lose(index, Some(message)),
                Ok((index, None)) => self.lose(index, None),
                Err(RecvTimeoutError::Timeout) => return heard,
                Err(RecvTimeoutError::Disconnected) => {
                    // Nobody is left to be heard.
                    std::thread::sleep(timeout);
                    return true;
                }
            }
            timeout = Duration::ZERO;
        }
    }

    /// Counts a worker as lost, which cuts the run short; what it reported so far stays.
    fn lose(&mut self, index: usize, message: Option<String>) {
        let worker = &mut self.workers[index];
        if worker.is_lost {
            return;
        }
        worker.is_lost = true;
        let why = message.unwrap_or_else(|| format!("has ended unexpectedly{}", ended(&mut worker.child)));
        cut::set(Cut::Generator(format!("worker {index}: {why}")));
    }

    /// A worker reports several times a second; one that is silent for long hangs or has been stopped. When this process
    /// itself was stopped, all get their time anew: what they said waits to be read.
    fn notice_silence(&mut self, listened: Duration) {
        if listened > LISTEN_MAX {
            self.workers.iter_mut().for_each(|worker| worker.heard = Instant::now());
        }
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if !worker.is_lost && worker.heard.elapsed() > SILENCE_MAX {
                worker.is_lost = true;
                let seconds = SILENCE_MAX.as_secs();
                cut::set(Cut::Generator(format!("worker {index} has said nothing for {seconds} s: it hangs")));
            }
        }
    }

    /// The sum of the latest reports.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for latest in self.workers.iter().filter_map(|worker| worker.latest.as_ref()) {
            totals.counters.add(&latest.counters);
            totals.cpu_ns.push(latest.cpu_ns);
            totals.wait_ns += latest.wait_ns;
        }
        let reports = self.workers.iter().filter(|worker| !worker.is_lost).map(|worker| worker.latest.as_ref());
        totals.as_of_ns = reports.map(|latest| latest.map_or(0, |latest| latest.at_ns)).min().unwrap_or(0);
        totals
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.orders = None;
            if worker.is_lost {
                // It may be one that hangs.
                let _ = worker.child.kill();
            }
        }
        // The end of its orders ends a worker; one that hangs is ended by force.
        let begin = Instant::now();
        for worker in &mut self.workers {
            while matches!(worker.child.try_wait(), Ok(None)) {
                if begin.elapsed() > TEARDOWN_MAX {
                    let _ = worker.child.kill();
                    let _ = worker.child.wait();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// How a process ended, if it says so within a moment.
pub(crate) fn ended(child: &mut Child) -> String {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        match child.try_wait() {
            Ok(Some(status)) => return format!(" ({})", described(status)),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => break,
        }
    }
    String::new()
}

fn described(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "by SIGKILL: did the kernel run out of memory?".to_owned(),
        (Some(signal), _) => format!("by signal {signal}"),
        (None, Some(code)) => format!("with code {code}"),
        (None, None) => "in an unknown way".to_owned(),
    }
}

impl Counters {
    /// Adds another worker's.
    pub(crate) fn add(&mut self, other: &Self) {
        for group in 0..GROUPS {
            self.open[group] += other.open[group];
            self.subscribed[group] += other.subscribed[group];
            self.lost[group] += other.lost[group];
        }
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
        self.accepted_by_channel.resize(other.accepted_by_channel.len().max(self.accepted_by_channel.len()), 0);
        for (sum, more) in self.accepted_by_channel.iter_mut().zip(&other.accepted_by_channel) {
            *sum += more;
        }
        for (sum, more) in [
            (&mut self.attempted, other.attempted),
            (&mut self.joined, other.joined),
            (&mut self.failed, other.failed),
            (&mut self.delivered, other.delivered),
            (&mut self.bytes_received, other.bytes_received),
            (&mut self.reads, other.reads),
            (&mut self.duplicates, other.duplicates),
            (&mut self.disordered, other.disordered),
            (&mut self.wrong_channel, other.wrong_channel),
            (&mut self.damaged, other.damaged),
            (&mut self.foreign, other.foreign),
            (&mut self.sent, other.sent),
            (&mut self.accepted, other.accepted),
            (&mut self.refused, other.refused),
            (&mut self.schedules_running, other.schedules_running),
            (&mut self.changes, other.changes),
            (&mut self.removals, other.removals),
            (&mut self.pongs, other.pongs),
        ] {
            *sum += more;
        }
    }
}

fn start_worker(index: usize, sender: &Sender<(usize, Option<Report>)>) -> Result<Worker, Failure> {
    let mut child = own_command("worker")?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::Run(format!("cannot start worker {index}: {error}")))?;
    let output = child.stdout.take().expect("it is piped");
    let sender = sender.clone();
    std::thread::Builder::new()
        .name(format!("worker {index}"))
        .stack_size(256 * 1024)
        .spawn(move || {
            for line in BufReader::new(output).lines() {
                let report = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let is_last = report.is_none();
                // Nobody listens any more when the run is over.
                if sender.send((index, report)).is_err() || is_last {
                    return;
                }
            }
            let _ = sender.send((index, None));
        })
        .map_err(|error| Failure::Run(format!("cannot start a thread for worker {index}: {error}")))?;
    let orders = child.stdin.take();
    Ok(Worker { child, orders, orders_given: 0, latest: None, heard: Instant::now(), is_lost: false })
}

/// This program again, in another role.
pub(crate) fn own_command(role: &str) -> Result<Command, Failure> {
    let path = std::env::current_exe().map_err(|error| Failure::Run(format!("cannot find this program: {error}")))?;
    let mut command = Command::new(path);
    // In a group of its own: Ctrl-C on a terminal is for the coordinator alone, which then asks for the last reports.
    command.arg(role).process_group(0);
    Ok(command)
}

/// Listening takes a tenth of a second; when it takes so long, this process was not running.
const LISTEN_MAX: Duration = Duration::from_secs(2);
/// Silence after which a worker counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// When nothing has changed for so long after a run was cut short, nothing more is under way.
const SETTLED_AFTER: Duration = Duration::from_millis(700);
/// And how long it may take at most.
const SETTLE_MAX: Duration = Duration::from_secs(3);
/// How long all workers together may take to reset their connections.
const TEARDOWN_MAX: Duration = Duration::from_secs(10);
