//! The events sent to webhooks, as their receivers see them: on every channel occupied and vacated alternate, and so do
//! the arrivals and departures of every user (P-HOOK-1, P-HOOK-2, P-HOOK-8), no client event is sent twice and no count
//! is repeated (P-HOOK-3, P-HOOK-5), however mail is delayed between shards. `webhooks` compares it with the model.

use std::collections::{BTreeMap, BTreeSet};

use relay::app::{AppSerial, Directory};
use relay::moment::Moment;
use relay::protocol::webhook::{Happened, SentEvent, WebhookEvent};
use serde_json::Value;

use crate::reference::{Group, Model};

/// A channel of an app, given by its number in the run.
type Channel = (usize, String);

/// A departure: a channel was vacated or a user left.
#[derive(Debug)]
pub(crate) struct Departure {
    /// The channel.
    pub(crate) channel: Channel,
    /// The user who left; `None` where all did.
    pub(crate) user: Option<String>,
    /// When it was sent, in ms of the monotonic clock.
    pub(crate) told_ms: u64,
}

/// A client event.
#[derive(Debug)]
pub(crate) struct ToldEvent {
    /// The event, identified by its data.
    pub(crate) group: Group,
    /// Its name.
    pub(crate) name: String,
    /// Its data.
    pub(crate) data: String,
    /// Its sender.
    pub(crate) socket_id: String,
    /// The sender's user.
    pub(crate) user_id: Option<String>,
}

/// The receivers' knowledge so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Channels that are occupied, with the users who are in them.
    pub(crate) occupied: BTreeMap<Channel, BTreeSet<String>>,
    /// Departures that were not compared with the model yet.
    pub(crate) departures: Vec<Departure>,
    /// Client events by channel, in the order sent.
    pub(crate) client_events: BTreeMap<Channel, Vec<ToldEvent>>,
    /// The last count of each channel.
    pub(crate) counts: BTreeMap<Channel, u32>,
    /// Apps that were disabled or deleted: events meanwhile were not sent.
    unknown: BTreeSet<usize>,
}

/// An app's number in the run.
fn number_of(serial: AppSerial) -> usize {
    serial.0 as usize - 1
}

impl Told {
    /// The shards learn of this directory from now on.
    pub(crate) fn note_directory(&mut self, directory: &Directory, serials: impl Iterator<Item = AppSerial>) {
        let served = |serial: &AppSerial| directory.app(*serial).is_some_and(|app| app.enabled);
        self.unknown.extend(serials.filter(|serial| !served(serial)).map(number_of));
    }

    /// True when every event of this app was sent.
    pub(crate) fn knows_all_of(&self, app: usize) -> bool {
        !self.unknown.contains(&app)
    }

    /// An event was sent. While the process drains, departures are sent without delay.
    pub(crate) fn note(&mut self, event: &WebhookEvent, now: Moment, told_ms: u64, draining: bool) {
        assert_eq!(event.unix_ms, now.unix_ms, "{event:?} tells another time than that at which it is told");
        if !self.knows_all_of(number_of(event.app)) {
            return;
        }
        let channel = (number_of(event.app), event.channel.to_string());
        let users = self.occupied.get_mut(&channel);
        let departure = |user| Departure { channel: channel.clone(), user, told_ms };
        match (&event.what, users) {
            (Happened::ChannelOccupied { subscription_count }, None) => {
                assert!(*subscription_count > 0, "{event:?}");
                self.occupied.insert(channel, BTreeSet::new());
            }
            (Happened::ChannelVacated, Some(users)) => {
                assert!(users.is_empty(), "{event:?} with {users:?} in it");
                self.departures.extend((!draining).then(|| departure(None)));
                self.occupied.remove(&channel);
            }
            (Happened::MemberAdded { user_id }, Some(users)) => {
                assert!(users.insert(user_id.to_string()), "{event:?} twice");
            }
            (Happened::MemberRemoved { user_id }, Some(users)) => {
                assert!(users.remove(&**user_id), "{event:?} of nobody");
                self.departures.extend((!draining).then(|| departure(Some(user_id.to_string()))));
            }
            // A sender may have left while its event was in flight to the owner.
            (Happened::ClientEvent(sent), _) => self.note_client_event(channel, sent),
            (Happened::SubscriptionCount(count), _) => {
                let before = self.counts.insert(channel, *count);
                assert_ne!(before, Some(*count), "{event:?} again (P-HOOK-5)");
            }
            (Happened::CacheMiss, Some(_)) => {}
            (_, users) => panic!("{event:?} while occupied is {}", users.is_some()),
        }
    }

    fn note_client_event(&mut self, channel: Channel, sent: &SentEvent) {
        let data: Value = serde_json::from_str(&sent.data_literal).expect("data is a JSON literal");
        let data = data.as_str().expect("data is a string (P-HOOK-3)").to_owned();
        let group = Model::group_of(&data).unwrap_or_else(|| panic!("nobody sent {sent:?} (P-HOOK-3)"));
        let events = self.client_events.entry(channel).or_default();
        assert!(events.iter().all(|event| event.group != group), "{sent:?} is told twice (P-HOOK-3)");
        events.push(ToldEvent {
            group,
            name: sent.event.to_string(),
            data,
            socket_id: sent.socket_id.to_string(),
            user_id: sent.user_id.as_ref().map(ToString::to_string),
        });
    }
}
