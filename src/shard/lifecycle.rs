//! How a connection begins and ends (P-CLOSE rules), and what happens when its sends complete.

use std::net::SocketAddr;
use std::sync::Arc;

use super::deliver::unread_from;
use super::mail::Body;
use super::sweep::Deadline;
use super::{Listener, Output, Shard};
use crate::app::{App, AppSerial, Directory};
use crate::connection::{Cold, ConnectionKey, Flags, Hot, Http, NONE, Phase, Proxy};
use crate::limits;
use crate::metrics::figures::ProtocolError;
use crate::protocol::close::CloseReason;
use crate::protocol::server_event;
use crate::wire::websocket;

impl Shard {
    pub(super) fn handle_accepted(
        &mut self,
        connection: ConnectionKey,
        peer: SocketAddr,
        listener: Listener,
        refuse: bool,
    ) {
        let slot = connection.slot as usize;
        if slot >= self.hot.len() {
            self.hot.resize_with(slot + 1, || Hot::FREE);
            self.heard.resize(slot + 1, 0);
        }
        let line = &mut self.hot[slot];
        assert!(line.phase == Phase::Free, "a slot is used again only after Closed");
        *line = Hot { generation: connection.generation, phase: Phase::Http, ..Hot::FREE };
        self.heard[slot] = self.tenths();
        self.stats.connections += 1;
        self.figures.counted.accepted += 1;
        let client = peer.ip().to_canonical();
        let trusted = self.config.options.trusted_proxies.iter().any(|network| network.contains(&client));
        let http = Http {
            decoder: Default::default(),
            client,
            proxy: if trusted { Proxy::Awaited(Vec::new()) } else { Proxy::Direct },
            metrics: listener == Listener::Metrics,
            refuse,
            made_request: false,
            deadline_ms: 0,
            deadline_queued: false,
            answers: Default::default(),
            first_ticket: 0,
            held_back: Vec::new(),
            parked: false,
            refused: None,
            caller: None,
            upgrade_waits: false,
            large_answer: None,
            unsent_list: None,
            request_bytes: 0,
            app: None,
        };
        self.cold_mut(connection.slot).http = Some(Box::new(http));
        self.renew_request_deadline(connection.slot);
        self.admit(connection, refuse);
    }

    /// The driver has ended the connection; the slot is free from here on.
    pub(super) fn handle_closed(&mut self, connection: ConnectionKey) {
        if !self.is_live(connection) {
            return;
        }
        let slot = connection.slot;
        self.retire(slot);
        let line = &mut self.hot[slot as usize];
        self.admissions.ending -= u32::from(line.phase == Phase::Ended);
        self.frames.clear(&mut line.outbox);
        self.release_input(slot);
        self.release_unsent(slot);
        let line = &mut self.hot[slot as usize];
        if line.cold != NONE {
            self.cold.remove(line.cold as usize);
        }
        *line = Hot::FREE;
        self.stats.connections -= 1;
    }

    pub(super) fn handle_sent(&mut self, connection: ConnectionKey, bytes: usize) {
        if !self.is_live(connection) {
            return;
        }
        let slot = connection.slot;
        let line = &mut self.hot[slot as usize];
        self.frames.take_sent(&mut line.outbox, bytes);
        self.apps.sent(line.app, bytes);
        line.flags.remove(Flags::STALLED.union(Flags::STALLED_LONG));
        // The usual case, once per delivery: a subscriber that has all of it and is read from. Nothing follows from that.
        if line.phase == Phase::Open && line.outbox.unsent_bytes() == 0 && !line.flags.contains(Flags::PAUSED) {
            return;
        }
        let all_sent = line.outbox.unsent_bytes() == 0;
        match line.phase {
            Phase::Free | Phase::Ended => return,
            Phase::Http => {
                if all_sent {
                    self.release_unsent(slot);
                } else {
                    self.dirty.push_answer(slot, &mut line.flags);
                }
                self.account_sent(slot);
            }
            Phase::Admitting | Phase::Open | Phase::Closing | Phase::Lingering => {
                if !all_sent {
                    self.dirty.push_rest(slot, &mut line.flags);
                }
            }
        }
        self.resume_if_due(slot);
        self.settle(slot);
    }

    /// The peer sends no more. An HTTP client still gets its answers; a WebSocket is over.
    pub(super) fn handle_read_ended(&mut self, connection: ConnectionKey) {
        if !self.is_live(connection) {
            return;
        }
        let slot = connection.slot;
        let line = &mut self.hot[slot as usize];
        line.flags.insert(Flags::READ_ENDED);
        match line.phase {
            Phase::Open => {
                self.receive_all_held_back(slot);
                if self.is_live(connection) {
                    self.end(slot, false);
                }
            }
            Phase::Admitting => self.end(slot, false),
            Phase::Http | Phase::Closing | Phase::Lingering => self.settle(slot),
            Phase::Free | Phase::Ended => {}
        }
    }

    /// Takes the next step of an ending connection once what it owes is sent.
    pub(super) fn settle(&mut self, slot: u32) {
        let line = &self.hot[slot as usize];
        let (flags, sent) = (line.flags, line.outbox.unsent_bytes() == 0);
        match line.phase {
            Phase::Http => {
                let answered =
                    self.cold(slot).and_then(|cold| cold.http.as_ref()).is_some_and(|http| http.is_answered());
                if !sent || !answered {
                } else if flags.contains(Flags::READ_ENDED) {
                    self.end(slot, false);
                } else if flags.contains(Flags::LAST_ANSWER) {
                    self.linger(slot);
                }
            }
            Phase::Closing if sent && (flags.contains(Flags::PEER_CLOSED) || flags.contains(Flags::READ_ENDED)) => {
                self.end(slot, false);
            }
            Phase::Closing if sent && flags.contains(Flags::LAST_ANSWER) => self.linger(slot),
            Phase::Lingering if flags.contains(Flags::READ_ENDED) => self.end(slot, false),
            Phase::Free | Phase::Admitting | Phase::Open | Phase::Closing | Phase::Lingering | Phase::Ended => {}
        }
    }

    /// Everything is said: sends FIN and waits for the peer's, so that it reads the answer (P-HTTP-16).
    fn linger(&mut self, slot: u32) {
        let connection = self.key(slot);
        self.hot[slot as usize].phase = Phase::Lingering;
        self.resume_reading(slot);
        self.outputs.push_back(Output::ShutdownWrite { connection });
        self.await_deadline(Deadline::Linger, slot, limits::LINGER_MS);
    }

    /// Has the driver close the connection.
    pub(super) fn end(&mut self, slot: u32, reset: bool) {
        let connection = self.key(slot);
        self.retire(slot);
        let line = &mut self.hot[slot as usize];
        if line.phase != Phase::Ended {
            line.phase = Phase::Ended;
            self.admissions.ending += 1;
            self.outputs.push_back(Output::Close { connection, reset });
        }
    }

    /// `pusher:error`, then Close with the same code (P-SDK-13), for an established or refused WebSocket.
    pub(super) fn close_websocket(&mut self, slot: u32, reason: &CloseReason) {
        self.catch_up(slot);
        match self.hot[slot as usize].phase {
            Phase::Open | Phase::Admitting => {}
            Phase::Free | Phase::Http | Phase::Closing | Phase::Lingering | Phase::Ended => return,
        }
        self.note_close(slot, reason);
        self.retire(slot);
        self.hot[slot as usize].phase = Phase::Closing;
        self.resume_reading(slot);
        let message = reason.message();
        self.send_text(slot, |out| server_event::encode_error(out, Some(reason.code()), &message));
        self.send_close(slot, reason.code(), &message);
        self.await_deadline(Deadline::CloseAnswer, slot, limits::CLOSE_WITHIN_MS);
    }

    /// A breach of RFC 6455: Close with its code, then FIN; nothing more is read.
    pub(super) fn fail_websocket(&mut self, slot: u32, code: u16, reason: &str) {
        self.catch_up(slot);
        self.retire(slot);
        let line = &mut self.hot[slot as usize];
        let already_closing = line.phase == Phase::Closing;
        line.phase = Phase::Closing;
        line.flags.insert(Flags::LAST_ANSWER);
        if !already_closing {
            self.figures.counted.protocol_errors.count(ProtocolError::of(code));
            self.send_close(slot, code, reason);
        }
        self.await_deadline(Deadline::CloseAnswer, slot, limits::CLOSE_WITHIN_MS);
    }

    /// P-CLOSE-5: a slow reader loses what it has not begun to receive, is told, and is reset soon.
    pub(super) fn close_slow(&mut self, slot: u32) {
        let line = &mut self.hot[slot as usize];
        match line.phase {
            Phase::Free | Phase::Ended => return,
            Phase::Http | Phase::Lingering | Phase::Admitting => return self.end(slot, true),
            Phase::Open | Phase::Closing => {}
        }
        if line.flags.contains(Flags::RESET) {
            return;
        }
        line.flags.insert(Flags::RESET);
        self.stats.slow_closed += 1;
        if line.phase == Phase::Open {
            self.frames.drop_queued(&mut line.outbox);
            self.close_websocket(slot, &CloseReason::TooSlow);
        }
        self.await_deadline(Deadline::SlowReset, slot, limits::SLOW_RESET_MS);
    }

    fn send_close(&mut self, slot: u32, code: u16, reason: &str) {
        let mut frame = Vec::new();
        websocket::encode_close(&mut frame, code, reason);
        self.queue(slot, frame.into());
        self.hot[slot as usize].flags.insert(Flags::CLOSE_QUEUED);
    }

    /// Takes the connection out of everything that others see: channels, rosters, counts.
    pub(super) fn retire(&mut self, slot: u32) {
        self.leave_all(slot);
        self.sign_out(slot);
        let line = &self.hot[slot as usize];
        if line.phase == Phase::Open {
            self.count_ended(line.app);
        }
        let line = &mut self.hot[slot as usize];
        if line.flags.contains(Flags::COUNTED) {
            line.flags.remove(Flags::COUNTED);
            let app = AppSerial(line.app);
            let counter = self.counter_of(app);
            self.send(counter, Body::Departed { app });
        }
    }

    /// The store changed: connections of apps that are disabled or gone are closed with 4003 (P-CLOSE-4).
    pub(super) fn handle_directory(&mut self, directory: Arc<Directory>) {
        let before = std::mem::replace(&mut self.directory, directory);
        self.app_in_hand = None;
        self.forget_cached_of_deleted_apps();
        self.forget_tallies_of_deleted_apps();
        self.return_leases();
        self.count_channels_of_limited_apps(&before);
        self.tell_which_are_full();
        self.forget_figures_of_deleted_apps();
        let serves = |app: &App| self.directory.app(app.serial).is_some_and(|app| app.enabled);
        if before.apps().all(|app| !app.enabled || serves(app)) {
            return;
        }
        for slot in 0..self.hot.len() as u32 {
            let line = &self.hot[slot as usize];
            let open = matches!(line.phase, Phase::Open | Phase::Admitting) && line.app != NONE;
            if open && !self.directory.app(AppSerial(line.app)).is_some_and(|app| app.enabled) {
                self.close_websocket(slot, &CloseReason::AppDisabled);
            }
        }
    }

    /// Reads again from a connection that owes little enough.
    pub(super) fn resume_if_due(&mut self, slot: u32) {
        let line = &self.hot[slot as usize];
        if !line.flags.contains(Flags::PAUSED) || line.phase == Phase::Admitting {
            return;
        }
        let unsent_bytes = line.outbox.unsent_bytes();
        if line.phase == Phase::Http {
            if unsent_bytes > limits::HTTP_OUTBOX_BYTES_SOFT / 2 || self.holds_requests_back(slot) {
                return;
            }
            let mut held_back = std::mem::take(&mut self.http(slot).held_back);
            self.resume_reading(slot);
            if !held_back.is_empty() {
                self.handle_received(self.key(slot), &mut held_back);
            }
        } else if unsent_bytes <= unread_from(line.phase) / 2 {
            self.resume_reading(slot);
            self.receive_held_back(slot);
        }
    }

    pub(super) fn resume_reading(&mut self, slot: u32) {
        let connection = self.key(slot);
        let flags = &mut self.hot[slot as usize].flags;
        if flags.contains(Flags::PAUSED) {
            flags.remove(Flags::PAUSED);
            self.outputs.push_back(Output::Resume { connection });
        }
    }

    /// True when the key is that of the connection now in the slot.
    pub(super) fn is_live(&self, connection: ConnectionKey) -> bool {
        let line = self.hot.get(connection.slot as usize);
        line.is_some_and(|line| line.generation == connection.generation && line.phase != Phase::Free)
    }

    pub(super) fn key(&self, slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: self.hot[slot as usize].generation }
    }

    /// Tenths of a second of the service clock, of which 32 bits last 13 years.
    pub(super) fn tenths(&self) -> u32 {
        (self.clock.served_ms() / 100) as u32
    }

    pub(super) fn cold(&self, slot: u32) -> Option<&Cold> {
        let index = self.hot[slot as usize].cold;
        (index != NONE).then(|| &*self.cold[index as usize])
    }

    pub(super) fn cold_of(&mut self, slot: u32) -> Option<&mut Cold> {
        let index = self.hot[slot as usize].cold;
        (index != NONE).then(|| &mut *self.cold[index as usize])
    }

    /// The cold part, made when there is none.
    pub(super) fn cold_mut(&mut self, slot: u32) -> &mut Cold {
        let line = &mut self.hot[slot as usize];
        if line.cold == NONE {
            line.cold = self.cold.insert(Box::default()) as u32;
        }
        &mut self.cold[line.cold as usize]
    }

    pub(super) fn drop_cold_if_empty(&mut self, slot: u32) {
        let line = &mut self.hot[slot as usize];
        if line.cold != NONE && self.cold[line.cold as usize].is_empty() {
            self.cold.remove(line.cold as usize);
            line.cold = NONE;
        }
    }
}

impl Http {
    /// True when every request so far has its answer queued.
    pub(super) fn is_answered(&self) -> bool {
        self.answers.is_empty()
    }
}
