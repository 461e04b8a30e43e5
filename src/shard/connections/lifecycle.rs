//! How a connection opens and closes (P-CLOSE rules), and how completed sends are handled.

use std::net::SocketAddr;

use super::{Connections, unread_from};
use crate::app::{App, AppSerial, Directory};
use crate::connection::http::{Http, Proxy};
use crate::connection::outbox::FrameKind;
use crate::connection::{Cold, ConnectionKey, Flags, Hot, NONE, Phase};
use crate::index::Slot;
use crate::limits;
use crate::metrics::figures::ProtocolError;
use crate::protocol::close::CloseReason;
use crate::protocol::server_event;
use crate::shard::context::Context;
use crate::shard::deadlines::DeadlineKind;
use crate::shard::io::{Listener, Output};
use crate::wire::websocket;

impl Connections {
    pub(in crate::shard) fn handle_accepted(
        &mut self,
        context: &mut Context,
        connection: ConnectionKey,
        peer: SocketAddr,
        listener: Listener,
        refuse: bool,
    ) {
        let slot = connection.slot();
        self.table.reach(slot);
        let line = &mut self.table.hot[slot];
        assert!(line.phase == Phase::Free, "a slot is used again only after Closed");
        *line = Hot { generation: connection.generation, phase: Phase::Http, ..Hot::FREE };
        self.table.last_activity[slot] = context.tenths();
        context.metrics.stats.connections += 1;
        context.metrics.counted.accepted += 1;
        let client = peer.ip().to_canonical();
        let trusted = context.config.options.trusted_proxies.iter().any(|network| network.contains(&client));
        let http = Http {
            decoder: Default::default(),
            client,
            proxy: if trusted { Proxy::Awaited(Vec::new()) } else { Proxy::Direct },
            metrics: listener == Listener::Metrics,
            refuse,
            made_request: false,
            deadline_ms: 0,
            queued_deadline_ms: 0,
            answers: Default::default(),
            first_ticket: 0,
            held_back: Vec::new(),
            parked: false,
            polls: false,
            refused: None,
            caller: None,
            upgrade_waits: false,
            large_answer: None,
            unsent_list: None,
            request_bytes: 0,
            app: None,
        };
        self.cold_or_default(slot).http = Some(Box::new(http));
        self.renew_request_deadline(context, slot);
        self.admit(context, connection, refuse);
    }

    /// The driver has closed the connection, and nothing refers to it any more: the slot is free from now on.
    pub(in crate::shard) fn free(&mut self, context: &mut Context, slot: Slot) {
        let line = &mut self.table.hot[slot];
        self.capacity.ending -= u32::from(line.phase == Phase::Ended);
        self.frames.clear(&mut line.outbox);
        self.release_input(slot);
        self.release_unsent_list(slot);
        self.table.free(slot);
        context.metrics.stats.connections -= 1;
    }

    /// The kernel accepted bytes of a send. False when nothing follows from that.
    pub(in crate::shard) fn handle_sent(
        &mut self,
        context: &mut Context,
        connection: ConnectionKey,
        bytes: usize,
    ) -> bool {
        if !self.is_live(connection) {
            return false;
        }
        let slot = connection.slot();
        let line = &mut self.table.hot[slot];
        self.frames.take_sent(&mut line.outbox, bytes);
        context.metrics.app_counters.sent(line.app, bytes);
        line.flags.remove(Flags::STALLED.union(Flags::STALLED_LONG));
        // The usual case, once per delivery: a subscriber that received all of it, is being read from and missed
        // nothing. Nothing follows from that.
        let all_sent = line.outbox.unsent_bytes() == 0;
        if line.phase == Phase::Open && all_sent && !line.flags.intersects(Flags::PAUSED.union(Flags::CATCHING_UP)) {
            return false;
        }
        match line.phase {
            Phase::Free | Phase::Ended => return false,
            Phase::Http => {
                if all_sent {
                    self.release_unsent_list(slot);
                } else {
                    self.send_queue.push_answer(slot, &mut line.flags);
                }
                self.account_sent(context, slot);
            }
            Phase::Admitting | Phase::Open | Phase::Closing | Phase::Lingering => {
                if !all_sent {
                    self.send_queue.push_rest(slot, &mut line.flags);
                }
            }
        }
        self.follow_up(connection);
        true
    }

    /// The peer has ended its direction. An HTTP client still gets its answers; a WebSocket, which has been read to its
    /// end, is finished.
    pub(in crate::shard) fn handle_read_ended(&mut self, context: &mut Context, slot: Slot) {
        match self.table.hot[slot].phase {
            Phase::Open | Phase::Admitting => self.end(context, slot, false),
            // Nobody waits for a poll, or for a stream that was not admitted yet (threat T64).
            Phase::Http if self.is_reading(slot) => self.end(context, slot, false),
            Phase::Http | Phase::Closing | Phase::Lingering => self.settle(context, slot),
            Phase::Free | Phase::Ended => {}
        }
    }

    /// A stream or poll begins that waited until now: its client may have ended its direction meanwhile.
    pub(in crate::shard) fn end_if_read_ended(&mut self, context: &mut Context, slot: Slot) {
        if self.has(slot, Flags::READ_ENDED) {
            self.handle_read_ended(context, slot);
        }
    }

    /// Takes the next step of a closing connection once everything is sent.
    pub(in crate::shard) fn settle(&mut self, context: &mut Context, slot: Slot) {
        let line = &self.table.hot[slot];
        let (flags, sent) = (line.flags, line.outbox.unsent_bytes() == 0);
        match line.phase {
            Phase::Http => {
                let answered = self.http_of(slot).is_some_and(|http| http.is_answered());
                if !sent || !answered {
                } else if flags.contains(Flags::READ_ENDED) {
                    self.end(context, slot, false);
                } else if flags.contains(Flags::LAST_ANSWER) {
                    self.linger(context, slot);
                }
            }
            Phase::Closing if sent && (flags.contains(Flags::PEER_CLOSED) || flags.contains(Flags::READ_ENDED)) => {
                self.end(context, slot, false);
            }
            Phase::Closing if sent && flags.contains(Flags::LAST_ANSWER) => self.linger(context, slot),
            Phase::Lingering if flags.contains(Flags::READ_ENDED) => self.end(context, slot, false),
            Phase::Free | Phase::Admitting | Phase::Open | Phase::Closing | Phase::Lingering | Phase::Ended => {}
        }
    }

    /// Everything is sent: sends FIN and waits for the peer's, so that it reads the answer (P-HTTP-16).
    fn linger(&mut self, context: &mut Context, slot: Slot) {
        let connection = self.key(slot);
        self.table.hot[slot].phase = Phase::Lingering;
        self.resume_reading(context, slot);
        context.outputs.push_back(Output::ShutdownWrite { connection });
        self.await_deadline(context, DeadlineKind::Linger, slot, limits::LINGER_MS);
    }

    /// Has the driver close the connection.
    pub(in crate::shard) fn end(&mut self, context: &mut Context, slot: Slot, reset: bool) {
        let connection = self.key(slot);
        self.retire(context, slot);
        let line = &mut self.table.hot[slot];
        if line.phase != Phase::Ended {
            line.phase = Phase::Ended;
            self.capacity.ending += 1;
            context.outputs.push_back(Output::Close { connection, reset });
        }
    }

    /// `pusher:error`, then Close with the same code (P-SDK-13), for an established or refused WebSocket.
    pub(in crate::shard) fn close_websocket(&mut self, context: &mut Context, slot: Slot, reason: &CloseReason) {
        self.catch_up(context, slot);
        match self.table.hot[slot].phase {
            Phase::Open if self.is_stream(slot) => {
                self.note_close(context, slot, reason);
                return self.end_stream(context, slot);
            }
            Phase::Open | Phase::Admitting => {}
            Phase::Free | Phase::Http | Phase::Closing | Phase::Lingering | Phase::Ended => return,
        }
        self.note_close(context, slot, reason);
        self.retire(context, slot);
        self.table.hot[slot].phase = Phase::Closing;
        self.resume_reading(context, slot);
        let message = reason.message();
        self.send_text(context, slot, |out| server_event::encode_error(out, Some(reason.code()), &message));
        self.send_close(context, slot, reason.code(), &message);
        self.await_deadline(context, DeadlineKind::CloseAnswer, slot, limits::CLOSE_WITHIN_MS);
    }

    /// A breach of RFC 6455: Close with its code, then FIN; nothing more is read.
    pub(in crate::shard) fn fail_websocket(&mut self, context: &mut Context, slot: Slot, code: u16, reason: &str) {
        self.catch_up(context, slot);
        self.retire(context, slot);
        let line = &mut self.table.hot[slot];
        let already_closing = line.phase == Phase::Closing;
        line.phase = Phase::Closing;
        line.flags.insert(Flags::LAST_ANSWER);
        if !already_closing {
            context.metrics.counted.protocol_errors.count(ProtocolError::of(code));
            self.send_close(context, slot, code, reason);
        }
        self.await_deadline(context, DeadlineKind::CloseAnswer, slot, limits::CLOSE_WITHIN_MS);
    }

    /// P-CLOSE-5: a slow reader loses everything that it has not begun to receive, is sent the reason, and is reset
    /// soon.
    pub(in crate::shard) fn close_slow(&mut self, context: &mut Context, slot: Slot) {
        let line = &mut self.table.hot[slot];
        match line.phase {
            Phase::Free | Phase::Ended => return,
            Phase::Http | Phase::Lingering | Phase::Admitting => return self.end(context, slot, true),
            Phase::Open | Phase::Closing => {}
        }
        if line.flags.contains(Flags::RESET) {
            return;
        }
        line.flags.insert(Flags::RESET);
        context.metrics.stats.slow_closed += 1;
        if line.outbox.encoding().is_stream() {
            return self.end(context, slot, true);
        }
        if line.phase == Phase::Open {
            self.frames.drop_queued(&mut line.outbox);
            self.close_websocket(context, slot, &CloseReason::TooSlow);
        }
        self.await_deadline(context, DeadlineKind::SlowReset, slot, limits::SLOW_RESET_MS);
    }

    fn send_close(&mut self, context: &mut Context, slot: Slot, code: u16, reason: &str) {
        let mut frame = Vec::new();
        websocket::encode_close(&mut frame, code, reason);
        self.send(context, slot, frame.into(), FrameKind::Control);
        self.table.hot[slot].flags.insert(Flags::CLOSE_QUEUED);
    }

    /// The connection is to be removed from everything visible to others: its channels, its user, the counters.
    pub(in crate::shard) fn retire(&mut self, context: &mut Context, slot: Slot) {
        if !self.fan_outs.is_empty() {
            self.fan_outs.forget(slot);
        }
        let cold = self.cold(slot);
        let polls = |cold: &Cold| cold.http.as_ref().is_some_and(|http| http.polls);
        let is_known =
            cold.is_some_and(|cold| !cold.more_channels.is_empty() || cold.signed_in.is_some() || polls(cold));
        let line = &mut self.table.hot[slot];
        if is_known || line.channels_inline > 0 {
            self.retired.push_back(slot);
        }
        if line.phase == Phase::Open {
            context.metrics.count_ended(line.app, line.outbox.encoding().is_stream());
        }
        self.forget_stream(slot);
        let line = &mut self.table.hot[slot];
        // A poll departs with its request.
        if line.flags.contains(Flags::COUNTED) && line.phase != Phase::Http {
            line.flags.remove(Flags::COUNTED);
            let app = AppSerial(line.app);
            context.send_departure(app);
        }
    }

    /// The store changed: connections of apps that are disabled or deleted are closed with 4003 (P-CLOSE-4).
    pub(in crate::shard) fn close_disabled_apps(&mut self, context: &mut Context, before: &Directory) {
        let serves = |app: &App| context.directory.app(app.serial).is_some_and(|app| app.enabled);
        if before.apps().all(|app| !app.enabled || serves(app)) {
            return;
        }
        for slot in (0..self.slots()).map(Slot) {
            let line = &self.table.hot[slot];
            let open = matches!(line.phase, Phase::Open | Phase::Admitting) && line.app != NONE;
            if open && !context.app(line.app).is_some_and(|app| app.enabled) {
                self.close_websocket(context, slot, &CloseReason::AppDisabled);
            }
        }
    }

    /// Resumes reading from a connection that has little enough unsent. Its held-back input is then due to be read.
    pub(in crate::shard) fn resume_if_due(&mut self, context: &mut Context, slot: Slot) {
        let line = &self.table.hot[slot];
        if !line.flags.contains(Flags::PAUSED) || line.phase == Phase::Admitting {
            return;
        }
        let unsent_bytes = line.outbox.unsent_bytes();
        let is_due = if line.phase == Phase::Http {
            unsent_bytes <= limits::HTTP_OUTBOX_BYTES_SOFT / 2 && !self.holds_requests_back(slot)
        } else {
            unsent_bytes <= unread_from(line.phase) / 2
        };
        if is_due {
            self.resume_reading(context, slot);
        }
    }

    /// The connection may continue: with held-back input, or with its end.
    pub(in crate::shard) fn follow_up(&mut self, connection: ConnectionKey) {
        if self.unsettled.back() != Some(&connection) {
            self.unsettled.push_back(connection);
        }
    }
}
