//! Properties that must hold when a run is at rest: order, exactly once, nothing missed, correct presence.

use std::collections::{BTreeMap, BTreeSet};

use crate::reference::{Group, Model, Origin, Outcome, Session};

impl Model {
    /// All checks at rest. `reading` reports whether a client has read everything that was sent to it.
    pub(crate) fn check_at_rest(&mut self, reading: impl Fn(usize) -> bool) {
        for session in &self.sessions {
            self.check_own_order(session);
            if session.live && reading(session.client) {
                self.check_nothing_missed(session);
            }
        }
        self.check_between_sessions();
        self.check_histories(&reading);
        self.check_presence(&reading);
    }

    /// FIFO per publisher, and a publish sent after a 200 is ordered after it (P-HTTP-17).
    fn check_own_order(&self, session: &Session) {
        let mut last_of: BTreeMap<Origin, Group> = BTreeMap::new();
        for group in &session.received {
            let before = last_of.insert(self.publishes[*group].origin, *group);
            assert!(
                before.is_none_or(|before| before < *group),
                "client {} got group {group} after {before:?} of the same publisher on {} (R-PUB-6)",
                session.client,
                session.channel
            );
        }
        let mut answered_first = u64::MAX;
        // Client events have no place among past events.
        let received: Vec<&Group> = self.ordered(session, session.history.has_past()).collect();
        for group in received.into_iter().rev() {
            let publish = &self.publishes[*group];
            assert!(
                publish.started < answered_first,
                "client {} got group {group} on {} before a group that was answered 200 before it was sent (P-HTTP-17)",
                session.client,
                session.channel
            );
            if let (Outcome::Accepted(at), Origin::Caller(_)) = (publish.outcome, publish.origin) {
                answered_first = answered_first.min(at);
            }
        }
    }

    /// An accepted publish that was started after succeeded was read has arrived (P-SUB-5).
    fn check_nothing_missed(&self, session: &Session) {
        let received: BTreeSet<Group> = session.received.iter().copied().collect();
        for (group, publish) in self.publishes.iter().enumerate() {
            let due = publish.app == session.app
                && publish.started > session.from
                && matches!(publish.outcome, Outcome::Accepted(_))
                && publish.excluded != Some(session.client)
                && publish.channels.contains(&session.channel);
            assert!(
                !due || received.contains(&group) || self.is_in_gap(session, group),
                "client {} subscribed to {} at tick {} and missed group {group} of tick {} (P-SUB-5)",
                session.client,
                session.channel,
                session.from,
                publish.started
            );
        }
    }

    /// Every two subscribers of a channel agree on the order, and neither has a gap that the other does not have.
    fn check_between_sessions(&self) {
        let mut by_channel: BTreeMap<(usize, &str), Vec<&Session>> = BTreeMap::new();
        for session in &self.sessions {
            by_channel.entry((session.app, &session.channel)).or_default().push(session);
        }
        for sessions in by_channel.values() {
            for (index, first) in sessions.iter().enumerate() {
                for second in &sessions[index + 1..] {
                    self.check_pair(first, second);
                    self.check_pair(second, first);
                }
            }
        }
    }

    /// `second` has everything that `first` got between two events that both got, in the same order; a subscriber that
    /// is still present also has all later events.
    fn check_pair(&self, first: &Session, second: &Session) {
        let with_past = first.history.has_past() || second.history.has_past();
        let place: BTreeMap<Group, usize> =
            self.ordered(second, with_past).enumerate().map(|(place, group)| (*group, place)).collect();
        let mut last_place = None;
        let mut missing: Option<Group> = None;
        for group in self.ordered(first, with_past) {
            match place.get(group) {
                Some(at) => {
                    assert!(
                        last_place.is_none_or(|last| last < *at),
                        "clients {} and {} saw {} in different orders at group {group}",
                        first.client,
                        second.client,
                        first.channel
                    );
                    assert!(
                        missing.is_none(),
                        "client {} has a gap on {}: group {missing:?}, which client {} got between groups both got",
                        second.client,
                        first.channel,
                        first.client
                    );
                    last_place = Some(*at);
                }
                None if last_place.is_some()
                    && self.publishes[*group].excluded != Some(second.client)
                    && !self.is_in_gap(second, *group) =>
                {
                    missing = Some(*group)
                }
                None => {}
            }
        }
        assert!(
            missing.is_none() || !second.live || !first.live,
            "client {} is still on {} and never got group {missing:?}, which client {} got",
            second.client,
            first.channel,
            first.client
        );
    }

    /// Every member sees the present members; nobody was notified of a user that was present all the time.
    fn check_presence(&mut self, reading: &impl Fn(usize) -> bool) {
        let mut truth: BTreeMap<(usize, String), BTreeSet<String>> = BTreeMap::new();
        let mut pins: BTreeMap<(usize, String, String), Vec<usize>> = BTreeMap::new();
        for (number, session) in self.sessions.iter().enumerate().filter(|(_, session)| session.live) {
            let Some(user) = &session.user else { continue };
            truth.entry((session.app, session.channel.clone())).or_default().insert(user.clone());
            pins.entry((session.app, session.channel.clone(), user.clone())).or_default().push(number);
        }
        for session in
            self.sessions.iter().filter(|session| session.live && session.user.is_some() && reading(session.client))
        {
            let members: BTreeSet<String> = session.roster.keys().cloned().collect();
            let expected = &truth[&(session.app, session.channel.clone())];
            assert_eq!(
                &members, expected,
                "client {} sees other members of {} than there are (P-PRES-2)",
                session.client, session.channel
            );
            for user in &session.changed {
                let pinned = self.pinned.get(&(session.app, session.channel.clone(), user.clone()));
                let stayed = pinned.is_some_and(|sessions| sessions.iter().any(|number| self.sessions[*number].live));
                assert!(
                    !stayed,
                    "client {} was told that {user} came or went in {}, who was there all the time (P-PRES-2)",
                    session.client, session.channel
                );
            }
        }
        self.check_rosters_agree(reading);
        for session in &mut self.sessions {
            session.changed.clear();
        }
        self.pinned = pins;
    }

    /// All members of a channel see the same `user_info` of each user (P-PRES-3).
    fn check_rosters_agree(&self, reading: &impl Fn(usize) -> bool) {
        let mut seen: BTreeMap<(usize, &str), &Session> = BTreeMap::new();
        for session in
            self.sessions.iter().filter(|session| session.live && session.user.is_some() && reading(session.client))
        {
            let first = seen.entry((session.app, &session.channel)).or_insert(session);
            assert_eq!(
                first.roster, session.roster,
                "clients {} and {} see different members of {} (P-PRES-3)",
                first.client, session.client, session.channel
            );
        }
    }

    /// Live subscriptions and distinct users of a channel.
    pub(crate) fn counts(&self, app: usize, channel: &str) -> (usize, usize) {
        let live =
            self.sessions.iter().filter(|session| session.live && session.app == app && session.channel == channel);
        let users: BTreeSet<&String> = live.clone().filter_map(|session| session.user.as_ref()).collect();
        (live.count(), users.len())
    }
}
