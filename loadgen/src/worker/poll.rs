//! An epoll set with tokens, and a timer with a finer resolution than the timeout of epoll_wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::clock::SECOND_NS;

/// The source of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Token {
    /// Slot and the low bits of its generation.
    Connection(u32, u16),
    Publisher(u32, u16),
    Orders,
    Timer,
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, index, generation) = match self {
            Self::Connection(index, generation) => (0_u64, index, generation),
            Self::Publisher(index, generation) => (1, index, generation),
            Self::Orders => (2, 0, 0),
            Self::Timer => (3, 0, 0),
        };
        (kind << 56) | (u64::from(generation) << 32) | u64::from(index)
    }

    fn decode(value: u64) -> Self {
        let index = (value & 0xffff_ffff) as u32;
        let generation = ((value >> 32) & 0xffff) as u16;
        match value >> 56 {
            0 => Self::Connection(index, generation),
            1 => Self::Publisher(index, generation),
            2 => Self::Orders,
            _ => Self::Timer,
        }
    }
}

/// The epoll set of a worker.
pub(crate) struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed_ns: u64,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &timer, EventData::new_u64(Token::Timer.encode()), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll, timer, armed_ns: 0, events: Vec::with_capacity(EVENTS_MAX) })
    }

    pub(crate) fn add(&self, source: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token.encode()), flags)?)
    }

    pub(crate) fn modify(&self, source: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(token.encode()), flags)?)
    }

    /// Waits for an event or until the given moment, which may be in the past.
    pub(crate) fn wait(&mut self, until_ns: u64, now_ns: u64) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if until_ns <= now_ns {
            Some(&zero)
        } else {
            if until_ns != self.armed_ns {
                let it_value = Timespec {
                    tv_sec: (until_ns / SECOND_NS).cast_signed(),
                    tv_nsec: (until_ns % SECOND_NS).cast_signed(),
                };
                let once = Itimerspec { it_interval: zero, it_value };
                rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
                self.armed_ns = until_ns;
            }
            None
        };
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the events out, so that handlers may change the set.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Returns the vector for reuse.
    pub(crate) fn return_events(&mut self, events: Vec<Event>) {
        self.events = events;
    }
}

/// The source of an event and its flags.
pub(crate) fn read(event: &Event) -> (Token, EventFlags) {
    (Token::decode(event.data.u64()), event.flags)
}

/// Events handled before the schedules are checked again; limits how late they can be.
const EVENTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back() {
        for token in [Token::Connection(u32::MAX, u16::MAX), Token::Publisher(3, 4), Token::Orders, Token::Timer] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
