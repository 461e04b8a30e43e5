//! The sweep over all connections (P-LIVE-4, P-CLOSE-5): silent ones are pinged and closed, slow readers are closed,
//! and idle HTTP connections are closed. It visits every slot every five seconds, on the service clock (P-LIVE-6).

use std::time::Duration;

use super::Connections;
use crate::app::AppSerial;
use crate::connection::outbox::FrameKind;
use crate::connection::{Flags, Phase};
use crate::index::Slot;
use crate::limits;
use crate::protocol::close::CloseReason;
use crate::shard::context::Context;
use crate::wire::websocket::{self, Opcode};

impl Connections {
    /// Visits a part of the slots: `step` of `steps`.
    pub(in crate::shard) fn sweep(&mut self, context: &mut Context, step: usize, steps: usize) {
        let slots = self.slots() as usize;
        for slot in slots * step / steps..slots * (step + 1) / steps {
            self.visit(context, Slot::from(slot));
        }
    }

    fn visit(&mut self, context: &mut Context, slot: Slot) {
        let line = &mut self.table.hot[slot];
        if line.phase == Phase::Free || line.phase == Phase::Ended {
            return;
        }
        // P-CLOSE-5: the reader is slow only while the kernel holds a send. Frames in the outbox wait for this shard.
        if line.outbox.is_lent() && !line.flags.raise(Flags::STALLED) && !line.flags.raise(Flags::STALLED_LONG) {
            self.close_slow(context, slot);
            return;
        }
        let idle_ms = self.idle_ms(context, slot);
        match self.table.hot[slot].phase {
            Phase::Open if self.is_stream(slot) => self.visit_stream(context, slot),
            Phase::Open => self.visit_open(context, slot, idle_ms),
            Phase::Http => {
                let answered = self.http(slot).is_answered() && self.unsent_bytes(slot) == 0;
                if !answered {
                    // The time between requests begins with the last byte of the answer.
                    self.table.last_activity[slot] = context.tenths();
                } else if Duration::from_millis(idle_ms) >= context.config.options.http_keep_alive {
                    self.end(context, slot, false);
                }
            }
            Phase::Free | Phase::Admitting | Phase::Closing | Phase::Lingering | Phase::Ended => {}
        }
    }

    /// P-LIVE-4: silence is answered with a ping, and silence after that ping with Close 4201. The second time begins
    /// when the ping can have reached the client, so not while the shard still has bytes to send to it.
    fn visit_open(&mut self, context: &mut Context, slot: Slot, idle_ms: u64) {
        let now = context.tenths();
        let line = &mut self.table.hot[slot];
        if line.flags.contains(Flags::AWAITING_PONG) {
            if line.outbox.unsent_bytes() > 0 {
                // The last of it may be sent just before the next visit.
                self.table.last_activity[slot] = now + limits::SWEEP_TENTHS;
            } else if idle_ms >= limits::PONG_WITHIN_MS {
                self.close_websocket(context, slot, &CloseReason::PongTimeout);
            }
            return;
        }
        // A client that sent something recently is in time under any setting: its app is not looked up.
        if idle_ms < limits::PING_AFTER_MS {
            return;
        }
        let app = AppSerial(line.app);
        let timeout_ms = u64::from(context.activity_timeout_s(app)) * 1_000;
        if idle_ms >= timeout_ms + limits::PING_AFTER_MS {
            self.table.hot[slot].flags.insert(Flags::AWAITING_PONG);
            self.table.last_activity[slot] = now;
            let mut ping = Vec::new();
            websocket::encode_frame(&mut ping, Opcode::Ping, &[]);
            self.send(context, slot, ping.into(), FrameKind::Control);
        }
    }

    /// How long a connection was silent, as far as that is known: up to the time by which everything was read.
    fn idle_ms(&self, context: &Context, slot: Slot) -> u64 {
        let heard_ms = u64::from(self.table.last_activity[slot]) * 100;
        context.clock.judged_ms().saturating_sub(heard_ms)
    }
}
