//! The coordinator: starts the worker processes, sends them orders and adds up their reports.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use self::progress::Bar;
use self::totals::Totals;

pub(crate) mod preflight;
pub(crate) mod progress;
pub(crate) mod totals;
pub(crate) mod watchdog;
pub(crate) mod window;
use crate::abort::{self, Abort};
use crate::messages::{Order, Plan, Progress, Report};
use crate::outcome::Failure;
use crate::report::times::Times;

/// The workers of a run.
pub(crate) struct Coordinator {
    workers: Vec<Worker>,
    reports: Receiver<(usize, Option<Report>)>,
    /// Distinguishes this run's events from others.
    pub(crate) run: u32,
    /// Times of the measured part of the run.
    pub(crate) times: Times,
    /// Set once the run is being cut short.
    halted: Option<Halted>,
}

struct Worker {
    child: Child,
    /// Dropped to end the worker.
    orders: Option<ChildStdin>,
    orders_given: u64,
    latest: Option<Progress>,
    last_report: Instant,
    /// It has ended, or hangs and will be killed.
    is_lost: bool,
}

/// A run that is being cut short still takes what is in flight.
struct Halted {
    since: Instant,
    counted: u64,
    changed: Instant,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    Reached,
    TimedOut,
    /// See [`abort::reason`]. Every later wait ends at once, so that a scenario reaches its report.
    Aborted,
}

impl Coordinator {
    /// Starts `workers` processes with this plan, each with its number.
    pub(crate) fn start(plan: &Plan, workers: usize) -> Result<Self, Failure> {
        let (sender, reports) = channel();
        let mut coordinator =
            Self { workers: Vec::new(), reports, run: plan.run, times: Times::default(), halted: None };
        for index in 0..workers {
            coordinator.workers.push(start_worker(index, &sender)?);
        }
        coordinator.order_all(|index| {
            Some(Order::Begin(Box::new(Plan { worker: u32::try_from(index).unwrap_or(u32::MAX), ..plan.clone() })))
        })?;
        // Later reports are compared with the first ones.
        match coordinator.wait(Duration::from_secs(30), &Bar::hidden(), |_| true)? {
            Waited::Reached | Waited::Aborted => Ok(coordinator),
            Waited::TimedOut => Err(Failure::Run("the workers did not start within 30 s".into())),
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Sends each worker its order, if there is one for it. Once the run is being cut short, no order is sent.
    pub(crate) fn order_all(&mut self, mut order: impl FnMut(usize) -> Option<Order>) -> Result<(), Failure> {
        for index in 0..self.workers.len() {
            if abort::reason().is_some() {
                return Ok(());
            }
            let Some(order) = order(index) else { continue };
            self.order(index, &order);
        }
        Ok(())
    }

    /// A worker that takes no order is lost; its last report says why.
    fn order(&mut self, index: usize, order: &Order) {
        let mut line = serde_json::to_vec(order).expect("orders are plain data");
        line.push(b'\n');
        let worker = &mut self.workers[index];
        worker.orders_given += 1;
        let written = worker.orders.as_mut().map(|pipe| pipe.write_all(&line));
        if !worker.is_lost && !matches!(written, Some(Ok(()))) {
            self.receive(Duration::from_millis(200));
            self.lose(index, None);
        }
    }

    /// Waits until every worker has taken its orders and `done` holds for the totals, or the run is cut short, or `bound`
    /// has passed.
    pub(crate) fn wait(
        &mut self,
        bound: Duration,
        bar: &Bar,
        mut done: impl FnMut(&Totals) -> bool,
    ) -> Result<Waited, Failure> {
        let begin = Instant::now();
        let caught_up_since = self.workers.iter().map(|worker| worker.orders_given).collect::<Vec<_>>();
        if self.halted.is_some() {
            return Ok(Waited::Aborted);
        }
        self.halt_if_aborted();
        loop {
            let looked = Instant::now();
            let received = self.receive(Duration::from_millis(100));
            self.check_workers(looked.elapsed());
            let caught_up = self
                .workers
                .iter()
                .zip(&caught_up_since)
                .all(|(worker, orders)| worker.latest.as_ref().is_some_and(|latest| latest.orders >= *orders));
            let totals = self.totals();
            bar.show(&totals);
            if caught_up && received && done(&totals) {
                return Ok(if self.halted.is_some() { Waited::Aborted } else { Waited::Reached });
            }
            self.halt_if_aborted();
            if self.has_settled(&totals) {
                return Ok(Waited::Aborted);
            }
            if begin.elapsed() > bound {
                return Ok(if self.halted.is_some() { Waited::Aborted } else { Waited::TimedOut });
            }
        }
    }

    /// Stops the schedules of every worker once the run is cut short.
    fn halt_if_aborted(&mut self) {
        if abort::reason().is_none() || self.halted.is_some() {
            return;
        }
        let now = Instant::now();
        self.halted = Some(Halted { since: now, counted: 0, changed: now });
        for index in 0..self.workers.len() {
            self.order(index, &Order::Halt);
        }
    }

    /// Whether everything in flight when the run was cut short has arrived, or has had its time.
    fn has_settled(&mut self, totals: &Totals) -> bool {
        let Some(halted) = &mut self.halted else { return false };
        let counters = &totals.counters;
        let counted = counters.delivered + counters.accepted + counters.refused + counters.joined + counters.failed;
        if counted != halted.counted {
            (halted.counted, halted.changed) = (counted, Instant::now());
        }
        halted.changed.elapsed() > SETTLED_AFTER || halted.since.elapsed() > SETTLE_MAX
    }

    /// Takes reports until there are none for a moment. Returns whether there were any.
    fn receive(&mut self, timeout: Duration) -> bool {
        let mut received = false;
        let mut timeout = timeout;
        loop {
            match self.reports.recv_timeout(timeout) {
                Ok((index, Some(Report::Progress(progress)))) => {
                    for interval in &progress.intervals {
                        self.times.add(interval);
                    }
                    self.workers[index].latest = Some(*progress);
                    self.workers[index].last_report = Instant::now();
                    received = true;
                }
                Ok((index, Some(Report::Broken { message }))) => self.lose(index, Some(message)),
                Ok((index, None)) => self.lose(index, None),
                Err(RecvTimeoutError::Timeout) => return received,
                Err(RecvTimeoutError::Disconnected) => {
                    // No worker is left.
                    std::thread::sleep(timeout);
                    return true;
                }
            }
            timeout = Duration::ZERO;
        }
    }

    /// Counts a worker as lost, which cuts the run short. Its reports so far remain in the totals.
    fn lose(&mut self, index: usize, message: Option<String>) {
        let worker = &mut self.workers[index];
        if worker.is_lost {
            return;
        }
        worker.is_lost = true;
        let why = message.unwrap_or_else(|| format!("ended unexpectedly{}", ended(&mut worker.child)));
        abort::set(Abort::Generator(format!("worker {index}: {why}")));
    }

    /// A worker reports several times a second; one that is silent for long hangs or has been stopped. When this process
    /// itself was stopped, the timeout starts again for all: their reports are waiting to be read.
    fn check_workers(&mut self, waited: Duration) {
        if waited > RECEIVE_MAX {
            self.workers.iter_mut().for_each(|worker| worker.last_report = Instant::now());
        }
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if !worker.is_lost && worker.last_report.elapsed() > WORKER_SILENCE_MAX {
                worker.is_lost = true;
                let seconds = WORKER_SILENCE_MAX.as_secs();
                abort::set(Abort::Generator(format!("worker {index} has not reported for {seconds} s: it hangs")));
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

impl Drop for Coordinator {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.orders = None;
            if worker.is_lost {
                // It may hang.
                let _ = worker.child.kill();
            }
        }
        // A worker exits at the end of its orders; one that hangs is killed.
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

/// How a process ended, if it does so within a second.
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
        (Some(9), _) => "killed by SIGKILL: did the kernel run out of memory?".to_owned(),
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "unknown status".to_owned(),
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
                // The receiver is gone when the run is over.
                if sender.send((index, report)).is_err() || is_last {
                    return;
                }
            }
            let _ = sender.send((index, None));
        })
        .map_err(|error| Failure::Run(format!("cannot start a thread for worker {index}: {error}")))?;
    let orders = child.stdin.take();
    Ok(Worker { child, orders, orders_given: 0, latest: None, last_report: Instant::now(), is_lost: false })
}

/// A command that starts this program in another role.
pub(crate) fn own_command(role: &str) -> Result<Command, Failure> {
    let path = std::env::current_exe().map_err(|error| Failure::Run(format!("cannot find this program: {error}")))?;
    let mut command = Command::new(path);
    // In its own process group: Ctrl-C on a terminal reaches only the coordinator, which then collects the last reports.
    command.arg(role).process_group(0);
    Ok(command)
}

/// Waiting for reports takes a tenth of a second; if it took longer than this, the process was not running.
const RECEIVE_MAX: Duration = Duration::from_secs(2);
/// Time without a report after which a worker counts as lost.
const WORKER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// When no count has changed for this long after a run was cut short, nothing is in flight any more.
const SETTLED_AFTER: Duration = Duration::from_millis(700);
/// The longest time to wait for that.
const SETTLE_MAX: Duration = Duration::from_secs(3);
/// Time for all workers together to reset their connections.
const TEARDOWN_MAX: Duration = Duration::from_secs(10);
