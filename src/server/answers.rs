//! Threads that answer shards: the store writer and those that ask authorizers.

use std::sync::Arc;
use std::time::Duration;

use super::ServeError;
use crate::admin::Explainer;
use crate::app::Directory;
use crate::authorizer::{self, Authorizers};
use crate::config::ServeConfig;
use crate::driver::clock::Clock;
use crate::driver::control::Control;
use crate::driver::mailbox::Mailbox;
use crate::outgoing::client::Client;
use crate::shard::{AnswerId, Mail};
use crate::store::Store;
use crate::store::writer::StoreWriter;
use crate::webhook::{WebhookHandle, WebhookOptions};

pub(super) fn store_writer(
    store: Store,
    control: &Arc<Control>,
    mailboxes: &Arc<[Mailbox<Mail>]>,
    (webhooks, authorizers, explainer): (WebhookHandle, Authorizers, Arc<Explainer>),
    options: &WebhookOptions,
) -> Result<StoreWriter, ServeError> {
    let (control, mailboxes) = (Arc::clone(control), Arc::clone(mailboxes));
    // Webhooks first: an endpoint that a shard knows must be known to the code that creates deliveries of its events.
    let on_change = Box::new(move |directory: Arc<_>| {
        webhooks.handle_directory(Arc::clone(&directory));
        authorizers.handle_directory(Arc::clone(&directory));
        explainer.handle_directory(Arc::clone(&directory));
        control.publish_directory(directory);
    });
    let on_changed = Box::new(move |id: AnswerId, changed| deliver(&mailboxes, id, Mail::changed(id, changed)));
    let writer = StoreWriter::spawn_changing(store, on_change, on_changed, options.allowed.clone());
    writer.map_err(|error| ServeError::start("start a thread", error))
}

/// Asks the authorizers of apps, through the same guard as webhooks.
pub(super) fn authorizers(
    config: &ServeConfig,
    clock: Clock,
    directory: Arc<Directory>,
    mailboxes: &Arc<[Mailbox<Mail>]>,
) -> Authorizers {
    let mailboxes = Arc::clone(mailboxes);
    let client = Client::new(&config.webhooks.allowed, &config.webhooks.roots, authorizer::KEPT);
    let on_decided = Box::new(move |id: AnswerId, decisions| deliver(&mailboxes, id, Mail::authorized(id, decisions)));
    Authorizers::new(client, clock, config.shard.channel_names, directory, on_decided)
}

/// Puts an answer into the mailbox of the shard that asked. A shard that accepts no mail for that long has ended, and nobody waits for the answer.
fn deliver(mailboxes: &[Mailbox<Mail>], id: AnswerId, mut mail: Mail) {
    let mailbox = &mailboxes[usize::from(id.shard)];
    for _ in 0..1_000 {
        match mailbox.push(id.shard, mail) {
            Ok(()) => return mailbox.wake(),
            Err(refused) => mail = refused,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
