//! Inputs: one due event, fed to its shard.

use relay::connection::ConnectionKey;
use relay::shard::{Input, ShardIndex};

use super::{Link, Pace, Ready, SendStyle, System};
use crate::coverage::Happening;
use crate::fault::FaultKind;
use crate::network::{End, Wire};
use crate::random::Random;

impl System {
    pub(super) fn feed(
        &mut self,
        index: usize,
        ready: Ready,
        wires: &mut [Wire],
        random: &mut Random,
        pace: Pace,
        closed: &mut Vec<ConnectionKey>,
    ) {
        match ready {
            Ready::Accept => self.feed_accept(index, wires),
            Ready::Read(slot) => self.feed_read(index, slot, wires, random, pace),
            Ready::ReadEnd(slot) => {
                self.link(index, slot).read_ended = true;
                let connection = self.key(index, slot);
                self.trace.note(|| format!("shard {index}: {connection:?} read ended"));
                self.input(index, Input::ReadEnded { connection });
            }
            Ready::Sent(slot) => {
                if self.link(index, slot).sending.as_ref().is_some_and(|sending| sending.taken == 0) {
                    self.take(index, slot, wires, random, pace);
                    if self.options.send_style != SendStyle::Immediate && random.one_in(3) {
                        return;
                    }
                }
                self.feed_sent(index, slot, wires);
            }
            Ready::Close(slot) => self.feed_closed(index, slot, wires, random, closed),
            Ready::Mail(from) => self.feed_mail(index, from),
            Ready::Timeout => {
                self.trace.note(|| format!("shard {index}: timeout"));
                self.input(index, Input::Timeout);
            }
            Ready::Directory => {
                let directory = self.hosts[index].directories.pop_front().expect("it was ready");
                self.trace.note(|| format!("shard {index}: directory"));
                self.input(index, Input::Directory(directory));
            }
            Ready::Drain => {
                self.hosts[index].drain = Some(true);
                self.trace.note(|| format!("shard {index}: drain"));
                self.input(index, Input::Drain);
            }
        }
    }

    fn key(&self, index: usize, slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: self.hosts[index].slots[slot as usize].generation }
    }

    pub(super) fn link(&mut self, index: usize, slot: u32) -> &mut Link {
        self.hosts[index].slots[slot as usize].link.as_mut().expect("the slot is in use")
    }

    /// True when a shard was full a moment ago, measured in time that the shards served: then connections without a
    /// complete request may have been ended (P-CLOSE-2). A client may read of its end only after the shards were late.
    pub(crate) fn was_full(&self, index: usize) -> bool {
        self.hosts[index].full_ms.is_some_and(|full_ms| self.served_ms() - full_ms <= 5_000)
    }

    fn feed_accept(&mut self, index: usize, wires: &[Wire]) {
        let (kept_back, served_ms) = (self.options.slots_kept_back, self.served_ms());
        let host = &mut self.hosts[index];
        let (wire, listener) = host.backlog.pop_front().expect("it was ready");
        let number = host.free.pop().expect("it was ready");
        let refuse = host.free.len() < kept_back;
        if refuse {
            host.full_ms = Some(served_ms);
        }
        let slot = &mut host.slots[number as usize];
        slot.generation += 1;
        slot.link = Some(Link {
            wire,
            paused: false,
            straggler: false,
            read_ended: false,
            sending: None,
            remainder: None,
            finishing: false,
            closing: None,
        });
        let connection = self.key(index, number);
        self.trace.mix(u64::from(number));
        self.trace.note(|| format!("shard {index}: accepted wire {wire} as {connection:?}, refuse {refuse}"));
        self.input(index, Input::Accepted { connection, peer: wires[wire].peer, listener, refuse });
    }

    fn feed_read(&mut self, index: usize, slot: u32, wires: &mut [Wire], random: &mut Random, pace: Pace) {
        let bytes_max = match pace {
            Pace::Chaos => match random.below(6) {
                0 => 1,
                1 => random.between(2, 16),
                2 => random.between(17, 512),
                _ => self.options.read_bytes_max,
            },
            Pace::Settle | Pace::Gentle => random.between(self.options.read_bytes_max / 2, self.options.read_bytes_max),
        };
        let link = self.link(index, slot);
        link.straggler = false;
        let paused = link.paused;
        let wire = link.wire;
        let mut bytes = wires[wire].server_read(bytes_max);
        if self.fault.strikes(FaultKind::LoseBytes) && bytes.len() > 1 {
            bytes.pop();
        }
        if paused {
            self.coverage.note(Happening::ReadWhilePaused);
        }
        self.feed_received(index, slot, &bytes);
    }

    fn feed_received(&mut self, index: usize, slot: u32, bytes: &[u8]) {
        let connection = self.key(index, slot);
        self.trace.mix(bytes.len() as u64);
        self.trace.note(|| format!("shard {index}: {connection:?} received {} {}", bytes.len(), bytes.escape_ascii()));
        let mut buffer = std::mem::take(&mut self.read_buffer);
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.input(index, Input::Received { connection, bytes: &mut buffer });
        self.read_buffer = buffer;
    }

    /// The kernel accepts some of a send in flight.
    pub(super) fn take(&mut self, index: usize, slot: u32, wires: &mut [Wire], random: &mut Random, pace: Pace) {
        let doubled = self.fault.strikes(FaultKind::DoubleSend);
        let link = self.link(index, slot);
        let wire = &mut wires[link.wire];
        let sending = link.sending.as_mut().expect("a send is under way");
        let room = wire.server_space().min(sending.bytes.len());
        sending.taken = match pace {
            Pace::Chaos if random.one_in(4) => random.between(1, room),
            Pace::Chaos | Pace::Settle | Pace::Gentle => room,
        };
        wire.server_write(&sending.bytes[..sending.taken]);
        if doubled {
            wire.server_write(&sending.bytes[..sending.taken]);
        }
    }

    pub(super) fn feed_sent(&mut self, index: usize, slot: u32, wires: &mut [Wire]) {
        let connection = self.key(index, slot);
        let link = self.link(index, slot);
        let sending = link.sending.take().expect("a send is under way");
        link.remainder = sending.bytes.get(sending.taken).copied();
        let bytes = sending.taken;
        if bytes < sending.bytes.len() {
            self.coverage.note(Happening::ShortSend);
        }
        self.trace.mix(bytes as u64);
        self.trace.note(|| format!("shard {index}: {connection:?} sent {bytes} of {}", sending.bytes.len()));
        self.input(index, Input::Sent { connection, bytes });
        let link = self.link(index, slot);
        if link.finishing && link.remainder.is_none() {
            let wire = link.wire;
            wires[wire].server_finish();
        }
    }

    fn feed_closed(
        &mut self,
        index: usize,
        slot: u32,
        wires: &mut [Wire],
        random: &mut Random,
        closed: &mut Vec<ConnectionKey>,
    ) {
        let connection = self.key(index, slot);
        let link = self.link(index, slot);
        let wire = link.wire;
        let closing = link.closing;
        let may_read = !link.read_ended && !link.paused && wires[wire].server_readable() > 0;
        let taken = link.sending.as_ref().map_or(0, |sending| sending.taken);
        let under_way = link.sending.is_some() && taken == 0 && wires[wire].server_space() > 0;
        // Operations that had completed when `Close` was drained are still reported, or are discarded, at random.
        if may_read && random.one_in(4) {
            let bytes = wires[wire].server_read(random.between(1, 64));
            self.feed_received(index, slot, &bytes);
        }
        if taken > 0 && random.one_in(2) {
            self.feed_sent(index, slot, wires);
        } else if under_way && closing == Some(false) && random.one_in(2) {
            self.take(index, slot, wires, random, Pace::Chaos);
        }
        let lose_unread = random.one_in(2);
        if wires[wire].server_sees() != End::Reset {
            wires[wire].server_close(closing == Some(true), lose_unread);
        }
        let host = &mut self.hosts[index];
        host.slots[slot as usize].link = None;
        host.free.push(slot);
        closed.push(connection);
        self.trace.mix(u64::from(slot));
        self.trace.note(|| format!("shard {index}: {connection:?} closed"));
        if !self.fault.strikes(FaultKind::ForgetClosed) {
            self.input(index, Input::Closed { connection });
        }
    }

    fn feed_mail(&mut self, index: usize, from: usize) {
        let lane = &mut self.lanes[from * self.hosts.len() + index];
        if lane.mails.len() > 1 && self.fault.strikes(FaultKind::SwapMail) {
            lane.mails.swap(0, 1);
        }
        let mail = lane.mails.pop_front().expect("it was ready");
        self.trace.mix(from as u64);
        if self.fault.strikes(FaultKind::DropMail) {
            return;
        }
        self.trace.note(|| format!("shard {index}: mail from {from} {mail:?}"));
        self.input(index, Input::Mail { from: from as ShardIndex, mail });
    }
}
