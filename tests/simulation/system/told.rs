//! What the shards told webhooks, against a naive model: on every channel occupied and vacated alternate, and so do the
//! comings and goings of every user (P-HOOK-1, P-HOOK-2, P-HOOK-8), however mail is delayed between shards.

use std::collections::{BTreeMap, BTreeSet};

use relay::app::{AppSerial, Directory};
use relay::protocol::webhook::{Happened, WebhookEvent};

/// What receivers know so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Channels that are occupied, with the users who are in them.
    occupied: BTreeMap<(AppSerial, String), BTreeSet<String>>,
    /// Apps that were disabled or deleted: what happened meanwhile was not told.
    unknown: BTreeSet<AppSerial>,
}

impl Told {
    /// The shards learn of this directory from now on.
    pub(crate) fn note_directory(&mut self, directory: &Directory, serials: impl Iterator<Item = AppSerial>) {
        let served = |serial: &AppSerial| directory.app(*serial).is_some_and(|app| app.enabled);
        self.unknown.extend(serials.filter(|serial| !served(serial)));
    }

    /// An event was told.
    pub(crate) fn note(&mut self, event: &WebhookEvent) {
        if self.unknown.contains(&event.app) {
            return;
        }
        let channel = (event.app, event.channel.to_string());
        let users = self.occupied.get_mut(&channel);
        match (&event.what, users) {
            (Happened::ChannelOccupied { subscription_count }, None) => {
                assert!(*subscription_count > 0, "{event:?}");
                self.occupied.insert(channel, BTreeSet::new());
            }
            (Happened::ChannelVacated, Some(users)) => {
                assert!(users.is_empty(), "{event:?} with {users:?} in it");
                self.occupied.remove(&channel);
            }
            (Happened::MemberAdded { user_id }, Some(users)) => {
                assert!(users.insert(user_id.to_string()), "{event:?} twice");
            }
            (Happened::MemberRemoved { user_id }, Some(users)) => {
                assert!(users.remove(&**user_id), "{event:?} of nobody");
            }
            // A sender may have left while its event was on the way to the owner.
            (Happened::ClientEvent(_) | Happened::SubscriptionCount(_), _) => {}
            (Happened::CacheMiss, Some(_)) => {}
            (_, users) => panic!("{event:?} while occupied is {}", users.is_some()),
        }
    }
}
