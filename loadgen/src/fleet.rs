//! The coordinator's side of the worker processes: starts them, gives orders, sums up what they report.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

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
}

struct Worker {
    child: Child,
    /// Dropped to end the worker.
    orders: Option<ChildStdin>,
    orders_given: u64,
    latest: Option<Progress>,
}

/// Totals over all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) counters: Counters,
    /// CPU of the busiest worker, and of all.
    pub(crate) cpu_ns: Vec<u64>,
    pub(crate) wait_ns: u64,
}

/// How waiting ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    Reached,
    TimedOut,
}

impl Fleet {
    /// Starts `workers` processes with this plan, each with its number.
    pub(crate) fn start(plan: &Plan, workers: usize) -> Result<Self, Failure> {
        let (sender, heard) = channel();
        let mut fleet = Self { workers: Vec::new(), heard, run: plan.run, times: Times::default() };
        for index in 0..workers {
            fleet.workers.push(start_worker(index, &sender)?);
        }
        fleet.order_all(|index| {
            Some(Order::Begin(Box::new(Plan { worker: u32::try_from(index).unwrap_or(u32::MAX), ..plan.clone() })))
        })?;
        // Their first reports are what later ones are compared with.
        match fleet.wait(Duration::from_secs(30), &Bar::hidden(), |_| true)? {
            Waited::Reached => Ok(fleet),
            Waited::TimedOut => Err(Failure::Run("the workers did not start within 30 s".into())),
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Gives each worker its order, if there is one for it.
    pub(crate) fn order_all(&mut self, mut order: impl FnMut(usize) -> Option<Order>) -> Result<(), Failure> {
        for index in 0..self.workers.len() {
            let Some(order) = order(index) else { continue };
            let mut line = serde_json::to_vec(&order).map_err(|error| Failure::Run(error.to_string()))?;
            line.push(b'\n');
            let worker = &mut self.workers[index];
            let written = worker.orders.as_mut().map(|pipe| pipe.write_all(&line));
            if !matches!(written, Some(Ok(()))) {
                // Its last words say why.
                self.listen(Duration::from_millis(200))?;
                return Err(Failure::Run(format!("worker {index} has ended")));
            }
            worker.orders_given += 1;
        }
        Ok(())
    }

    /// Waits until the totals, with all orders taken, are as wanted.
    ///
    /// # Errors
    /// If a worker breaks.
    pub(crate) fn wait(
        &mut self,
        bound: Duration,
        bar: &Bar,
        mut done: impl FnMut(&Totals) -> bool,
    ) -> Result<Waited, Failure> {
        let begin = Instant::now();
        let caught_up_since = self.workers.iter().map(|worker| worker.orders_given).collect::<Vec<_>>();
        loop {
            let heard = self.listen(Duration::from_millis(100))?;
            let caught_up = self
                .workers
                .iter()
                .zip(&caught_up_since)
                .all(|(worker, orders)| worker.latest.as_ref().is_some_and(|latest| latest.orders >= *orders));
            let totals = self.totals();
            bar.show(&totals);
            if caught_up && heard && done(&totals) {
                return Ok(Waited::Reached);
            }
            if begin.elapsed() > bound {
                return Ok(Waited::TimedOut);
            }
        }
    }

    /// Takes reports until there are none for a moment; whether there were any.
    fn listen(&mut self, timeout: Duration) -> Result<bool, Failure> {
        let mut heard = false;
        let mut timeout = timeout;
        loop {
            match self.heard.recv_timeout(timeout) {
                Ok((index, Some(Report::Progress(progress)))) => {
                    for interval in &progress.intervals {
                        self.times.add(interval);
                    }
                    self.workers[index].latest = Some(*progress);
                    heard = true;
                }
                Ok((index, Some(Report::Broken { message }))) => {
                    return Err(Failure::Run(format!("worker {index}: {message}")));
                }
                Ok((index, None)) => return Err(Failure::Run(format!("worker {index} has ended unexpectedly"))),
                Err(RecvTimeoutError::Timeout) => return Ok(heard),
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Run("all workers have ended".into())),
            }
            timeout = Duration::ZERO;
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
        totals
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.orders = None;
        }
        for worker in &mut self.workers {
            // The end of its orders ends a worker; one that hangs is ended by force.
            let begin = Instant::now();
            while matches!(worker.child.try_wait(), Ok(None)) {
                if begin.elapsed() > Duration::from_secs(10) {
                    let _ = worker.child.kill();
                    let _ = worker.child.wait();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
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
    Ok(Worker { child, orders, orders_given: 0, latest: None })
}

/// This program again, in another role.
pub(crate) fn own_command(role: &str) -> Result<Command, Failure> {
    let path = std::env::current_exe().map_err(|error| Failure::Run(format!("cannot find this program: {error}")))?;
    let mut command = Command::new(path);
    command.arg(role);
    Ok(command)
}
