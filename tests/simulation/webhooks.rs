//! Events that webhooks must have received when a run is at rest, and events they must not: present users, users who
//! left for good, client events that were sent, counts of subscribers (P-HOOK-1, P-HOOK-2, P-HOOK-3, P-HOOK-5,
//! P-HOOK-8).

use std::collections::{BTreeMap, BTreeSet};

use relay::limits::WEBHOOK_DEPARTURE_MS;

use crate::coverage::Happening;
use crate::reference::{Group, Origin, Outcome, Publish, READERS, Session};
use crate::system::{Departure, ToldEvent};
use crate::world::{JUDGED_WITHIN_MS, World};

impl Session {
    fn is_on(&self, channel: &(usize, String)) -> bool {
        (self.app, &self.channel) == (channel.0, &channel.1)
    }

    /// Whether it concerns the user, or anybody.
    fn is_of(&self, user: Option<&String>) -> bool {
        user.is_none() || self.user.as_ref() == user
    }
}

impl World {
    /// All checks of webhooks at rest.
    pub(crate) fn check_webhooks(&mut self) {
        self.check_told_who_is_there();
        for departure in std::mem::take(&mut self.system.told.departures) {
            self.check_departure(&departure);
        }
        self.check_told_events();
        self.check_told_counts();
    }

    /// Receivers know every present user, and those who left only while the delay lasts (P-HOOK-8).
    fn check_told_who_is_there(&self) {
        let told = &self.system.told;
        for session in self.model.sessions.iter().filter(|session| session.live && told.knows_all_of(session.app)) {
            let users = told.occupied.get(&(session.app, session.channel.clone()));
            let users = users.unwrap_or_else(|| panic!("nobody told that {} is occupied (P-HOOK-1)", session.channel));
            let known = session.user.as_ref().is_none_or(|user| users.contains(user));
            assert!(known, "nobody told that {:?} is in {} (P-HOOK-2)", session.user, session.channel);
        }
        for (channel, users) in told.occupied.iter().filter(|((app, _), _)| told.knows_all_of(*app)) {
            for user in std::iter::once(None).chain(users.iter().map(Some)) {
                let may_be_there = self.model.sessions.iter().any(|session| {
                    let within_ms = WEBHOOK_DEPARTURE_MS + JUDGED_WITHIN_MS;
                    let recent = session.ended_ms.is_some_and(|at| at + within_ms > self.system.served_ms());
                    (session.live || recent) && session.is_on(channel) && session.is_of(user)
                });
                assert!(may_be_there, "nobody told that {user:?} left {channel:?}, long ago (P-HOOK-8)");
            }
        }
    }

    /// A user reported as having left was surely away for the entire delay (P-HOOK-8).
    fn check_departure(&mut self, departure: &Departure) {
        let Departure { channel, user, told_ms } = departure;
        let sessions = self.model.sessions.iter();
        for session in sessions.filter(|session| session.is_on(channel) && session.is_of(user.as_ref())) {
            let until_ms = self.surely_there_until_ms(session);
            let there = session.from_ms <= *told_ms && until_ms.is_some_and(|at| at + WEBHOOK_DEPARTURE_MS > *told_ms);
            assert!(!there, "{departure:?}, but client {} was there until {until_ms:?} (P-HOOK-8)", session.client);
        }
        let happening = if user.is_some() { Happening::MemberRemovedTold } else { Happening::VacatedTold };
        self.system.coverage.note(happening);
    }

    /// A time at which the server still held a subscription, in ms: it has answered a ping that was sent then, after
    /// which the client sent nothing but a request to leave.
    fn surely_there_until_ms(&self, session: &Session) -> Option<u64> {
        if session.live {
            return Some(self.system.served_ms());
        }
        // A stream says nothing after its request.
        let client = self.sockets.get(session.client)?;
        let last = client.pongs.min(session.left_with.unwrap_or(u64::MAX));
        let sent_ms = *client.sent_ms.get(usize::try_from(last).expect("few").checked_sub(1)?)?;
        (sent_ms >= session.from_ms).then_some(sent_ms)
    }

    /// Every client event that passed was sent once and unchanged, none that was refused, and all in the order in which
    /// the channel's subscribers got them (P-HOOK-3).
    fn check_told_events(&self) {
        let told = &self.system.told;
        let mut places: BTreeMap<(&(usize, String), Group), usize> = BTreeMap::new();
        for (channel, events) in &told.client_events {
            for (place, event) in events.iter().enumerate() {
                let publish = self.model.publishes.get(event.group).expect("only what was published has a group");
                self.check_told_event(channel, event, publish);
                places.insert((channel, event.group), place);
            }
        }
        for (group, publish) in self.model.publishes.iter().enumerate() {
            let due = matches!((publish.origin, publish.outcome), (Origin::Client(_), Outcome::Accepted(_)));
            let channel = (publish.app, publish.channels[0].clone());
            let missed = due && told.knows_all_of(publish.app) && !places.contains_key(&(&channel, group));
            assert!(!missed, "group {group} on {channel:?} passed and nobody told it (P-HOOK-3)");
        }
        for session in &self.model.sessions {
            let channel = (session.app, session.channel.clone());
            let seen = session.received.iter().filter_map(|group| places.get(&(&channel, *group)));
            assert!(seen.is_sorted(), "client events of {channel:?} are told in another order than they came in");
        }
    }

    fn check_told_event(&self, channel: &(usize, String), event: &ToldEvent, publish: &Publish) {
        let Origin::Client(sender) = publish.origin else { panic!("{event:?} is no client event") };
        assert_ne!(publish.outcome, Outcome::Refused, "{event:?} was refused (P-HOOK-3)");
        assert_eq!((publish.app, &publish.channels[0]), (channel.0, &channel.1), "{event:?}");
        assert_eq!((&event.name, &event.data), (&publish.name, &publish.data), "{event:?} (P-HOOK-3)");
        assert_eq!(Some(&event.socket_id), self.sockets[sender].socket_id.as_ref(), "{event:?} (P-HOOK-3)");
        assert_eq!(event.user_id, publish.user_id, "{event:?} (P-HOOK-3)");
    }

    /// Where counts are sent, subscribers and webhooks have the current count (P-COUNT-1, P-HOOK-5).
    fn check_told_counts(&self) {
        // A count for which there was no credit comes later.
        if self.may_overload() {
            return;
        }
        let told = &self.system.told;
        let live = |session: &&Session| session.live && !session.channel.starts_with("presence-");
        let occupied: BTreeSet<(usize, String)> =
            self.model.sessions.iter().filter(live).map(|session| (session.app, session.channel.clone())).collect();
        for channel in occupied.iter().chain(told.counts.keys()) {
            let is_told = self.apps[channel.0].subscription_count;
            assert!(is_told || !told.counts.contains_key(channel), "{channel:?} has a count that is off (P-HOOK-5)");
            if !is_told {
                continue;
            }
            let (count, _) = self.model.counts(channel.0, &channel.1);
            if told.knows_all_of(channel.0) {
                assert_eq!(told.counts.get(channel).copied(), Some(count as u32), "count of {channel:?} (P-HOOK-5)");
            }
            // Streams are not sent counts (R-SSE-4).
            let is_socket = |session: &&Session| session.client < READERS && session.is_on(channel);
            for session in self.model.sessions.iter().filter(live).filter(is_socket) {
                assert_eq!(session.count, Some(count as u64), "client {} on {channel:?} (P-COUNT-1)", session.client);
            }
        }
    }
}
