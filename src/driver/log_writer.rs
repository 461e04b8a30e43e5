//! Queues log lines on their way to standard error, so that no server thread waits for its reader (R-PROC-1).
//!
//! ```text
//! any thread --push--> queue (bounded in lines and bytes) --writer thread--> standard error
//!                |
//!                +-- no room: counted as dropped
//! ```
//!
//! A pipe without a reader blocks its writer forever. Here only the writer thread blocks: a push takes no lock and
//! makes at most the one system call that wakes the writer. Lines that do not fit are counted, in
//! `log_lines_dropped_total` and, once the reader is back, in one line. At the end of the process [`flush`] waits for
//! the last lines, but no longer than its caller allows.

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::limits::{LOG_BYTES_WAITING_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_WAITING_MAX};

/// Dropped lines are reported at most once in this interval while further lines wait to be written.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A bounded queue of lines and the thread that writes them. Clones share it.
#[derive(Clone)]
pub struct LogWriter {
    queue: Arc<Queue>,
    thread: Thread,
}

struct Queue {
    lines: ArrayQueue<Box<[u8]>>,
    /// Lines that were pushed and not yet written, including the one being written.
    unwritten: AtomicUsize,
    unwritten_bytes: AtomicUsize,
    dropped: AtomicU64,
    /// Never held by a pushing thread.
    flushed: (Mutex<()>, Condvar),
}

thread_local! {
    /// Where the writer thread writes its own log lines, without queueing them.
    static DIRECT: Cell<Option<BorrowedFd<'static>>> = const { Cell::new(None) };
}

impl LogWriter {
    /// Starts the thread, which writes to `output` as long as the process lives. `report` logs how many lines were
    /// dropped since the last report, and in total.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(output: OwnedFd, report: fn(u64, u64)) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            lines: ArrayQueue::new(LOG_LINES_WAITING_MAX),
            unwritten: AtomicUsize::new(0),
            unwritten_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            flushed: (Mutex::new(()), Condvar::new()),
        });
        // Lines are written until the process exits, so the descriptor is never closed.
        let output: &'static OwnedFd = Box::leak(Box::new(output));
        let written = Arc::clone(&queue);
        let run = move || written.write_all(std::os::fd::AsFd::as_fd(output), report);
        let thread = thread::Builder::new().name("log-writer".into()).spawn(run)?;
        Ok(Self { queue, thread: thread.thread().clone() })
    }

    /// Queues a line, including its end of line. Never blocks; a line that does not fit is dropped and counted, and a
    /// line longer than [`LOG_LINE_BYTES_MAX`] is cut.
    pub fn push(&self, line: &[u8]) {
        if let Some(output) = DIRECT.get() {
            // A line from the writer thread itself: the queue may be full, and the thread must not wait for itself.
            let _ = write_line(output, line);
            return;
        }
        if self.queue.push(cut(line)) {
            self.thread.unpark();
        }
    }

    /// Number of lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines pushed so far are written, at most `within`. Returns false when they are not.
    pub fn flush(&self, within: Duration) -> bool {
        let (lock, condition) = &self.queue.flushed;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |_: &mut ()| self.queue.unwritten.load(Ordering::Acquire) > 0;
        let (_guard, waited) =
            condition.wait_timeout_while(guard, within, waits).unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }
}

impl Queue {
    /// Returns false when the queue is full.
    fn push(&self, line: Box<[u8]>) -> bool {
        let bytes = line.len();
        self.unwritten.fetch_add(1, Ordering::AcqRel);
        let waiting_bytes = self.unwritten_bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = waiting_bytes + bytes <= LOG_BYTES_WAITING_MAX;
        if !has_room || self.lines.push(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.forget(bytes);
            return false;
        }
        true
    }

    fn forget(&self, bytes: usize) {
        self.unwritten_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.unwritten.fetch_sub(1, Ordering::AcqRel);
    }

    /// The writer thread: writes lines in order as they arrive.
    fn write_all(&self, output: BorrowedFd<'static>, report: fn(u64, u64)) {
        DIRECT.set(Some(output));
        let (mut reported, mut reported_at) = (0, Instant::now());
        loop {
            while let Some(line) = self.lines.pop() {
                if write_line(output, &line).is_err() {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                self.forget(line.len());
                let more_wait = !self.lines.is_empty();
                let dropped = self.dropped.load(Ordering::Relaxed);
                if dropped > reported && !(more_wait && reported_at.elapsed() < REPORT_INTERVAL) {
                    report(dropped - reported, dropped);
                    (reported, reported_at) = (dropped, Instant::now());
                }
            }
            drop(self.flushed.0.lock().unwrap_or_else(PoisonError::into_inner));
            self.flushed.1.notify_all();
            thread::park();
        }
    }
}

/// The part of a line that is kept: all of it, or its beginning with an end of line.
fn cut(line: &[u8]) -> Box<[u8]> {
    if line.len() <= LOG_LINE_BYTES_MAX {
        return line.into();
    }
    let mut kept = line[..LOG_LINE_BYTES_MAX - 1].to_vec();
    kept.push(b'\n');
    kept.into()
}

/// Writes a complete line and waits as long as necessary, even if other code made the descriptor non-blocking.
fn write_line(output: BorrowedFd<'_>, mut line: &[u8]) -> Result<(), Errno> {
    while !line.is_empty() {
        match rustix::io::write(output, line) {
            Ok(count) => line = &line[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(output, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Standard error of this process, once a server logs to it.
static STANDARD_ERROR: OnceLock<LogWriter> = OnceLock::new();

/// From this call on, lines to standard error go through a writer thread. A second call leaves the first in place.
///
/// # Errors
/// The thread cannot be started, or no descriptor is available.
pub fn start(report: fn(u64, u64)) -> io::Result<LogWriter> {
    if let Some(writer) = STANDARD_ERROR.get() {
        return Ok(writer.clone());
    }
    // A copy of the descriptor: a thread that may wait forever must not hold the lock of `std::io::stderr`.
    let output = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?;
    let writer = LogWriter::start(output, report)?;
    Ok(STANDARD_ERROR.get_or_init(|| writer).clone())
}

/// Writes text to standard error without waiting for its reader, or directly if no server runs.
pub fn write(text: &str) {
    match STANDARD_ERROR.get() {
        Some(writer) => writer.push(text.as_bytes()),
        // If standard error cannot be written, there is nowhere to report it.
        None => drop(io::stderr().lock().write_all(text.as_bytes())),
    }
}

/// Number of log lines of this process that were dropped.
pub fn dropped() -> u64 {
    STANDARD_ERROR.get().map_or(0, LogWriter::dropped)
}

/// Waits for the last lines before the process ends, at most `within`.
pub fn flush(within: Duration) {
    if let Some(writer) = STANDARD_ERROR.get() {
        writer.flush(within);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader};

    use super::*;

    /// 64 KiB.
    fn pipe() -> (BufReader<File>, OwnedFd) {
        let (reader, writer) = io::pipe().expect("a pipe");
        (BufReader::new(OwnedFd::from(reader).into()), writer.into())
    }

    /// R-PROC-1: while nobody reads, pushes return and lines that do not fit are counted; a reader that comes back gets
    /// every line that was kept, in order, and the number of lines that were dropped.
    #[test]
    fn a_reader_that_stops_blocks_nobody() {
        static REPORTED: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());
        let (reader, output) = pipe();
        let report = |more, all| REPORTED.lock().expect("no holder panics").push((more, all));
        let writer = LogWriter::start(output, report).expect("a thread");
        let pushed = LOG_LINES_WAITING_MAX as u64 + 5_000;
        for number in 0..pushed {
            writer.push(format!("line {number} {:200}\n", "").as_bytes());
        }
        let dropped = writer.dropped();
        assert!(dropped >= 4_000, "{dropped}");
        assert!(!writer.flush(Duration::from_millis(20)), "nobody reads, so the wait has an end");

        let mut read = Vec::new();
        let mut lines = reader.lines();
        while (read.len() as u64) < pushed - dropped {
            read.push(lines.next().expect("a line").expect("text"));
        }
        let numbers: Vec<u64> = read.iter().map(|line| line[5..].trim_end().parse().expect("a number")).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert!(writer.flush(Duration::from_secs(30)));
        writer.push(b"after\n");
        assert_eq!(lines.next().expect("a line").expect("text"), "after");
        assert!(writer.flush(Duration::from_secs(30)));
        let reported = REPORTED.lock().expect("no holder panics");
        assert_eq!(reported.last().map(|last| last.1), Some(dropped), "{reported:?}");
        assert_eq!(reported.iter().map(|report| report.0).sum::<u64>(), dropped);
    }

    /// R-PROC-1: the queue is also bounded in bytes, and a line longer than its bound is cut.
    #[test]
    fn long_lines_are_bounded() {
        let (_reader, output) = pipe();
        let writer = LogWriter::start(output, |_, _| {}).expect("a thread");
        let long = vec![b'x'; 2 * LOG_LINE_BYTES_MAX];
        assert_eq!(cut(&long).len(), LOG_LINE_BYTES_MAX);
        assert!(cut(&long).ends_with(b"x\n"));
        for _ in 0..LOG_BYTES_WAITING_MAX / LOG_LINE_BYTES_MAX + 2 {
            writer.push(&long);
        }
        assert!(writer.dropped() >= 1);
        assert!(writer.queue.unwritten_bytes.load(Ordering::Relaxed) <= LOG_BYTES_WAITING_MAX);
    }

    /// A reader that has gone loses the lines and causes no other harm.
    #[test]
    fn a_closed_pipe_is_counted() {
        let (reader, output) = pipe();
        drop(reader);
        let writer = LogWriter::start(output, |_, _| {}).expect("a thread");
        writer.push(b"one\n");
        assert!(writer.flush(Duration::from_secs(30)));
        assert_eq!(writer.dropped(), 1);
    }
}
