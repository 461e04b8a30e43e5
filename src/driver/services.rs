//! What the loop of a shard reaches of the rest of the process: the store's keeper and the webhooks. Each is called on the
//! shard's thread and must not block.

use crate::app::{AppSerial, MessagesUsed, TokenId};
use crate::metrics::figures::WebhookFigures;
use crate::moment::Moment;
use crate::protocol::webhook::WebhookEvent;
use crate::shard::Change;

/// The services of one shard. By default nobody is there: what is told is dropped, and a change is never answered.
pub struct Services {
    /// Where used tokens are reported (R-TOKEN-4).
    pub token_used: Box<dyn FnMut(TokenId, Moment) + Send>,
    /// Where events for webhooks go.
    pub webhook: Box<dyn FnMut(WebhookEvent) + Send>,
    /// Where changes of the store go. The answer is [`crate::shard::Mail::changed`].
    pub change: Box<dyn FnMut(Change) + Send>,
    /// Where the messages of an app are reported (R-LIM-3).
    pub messages_counted: Box<dyn FnMut(AppSerial, MessagesUsed) + Send>,
    /// How it stands with webhooks.
    pub webhook_figures: Box<dyn FnMut() -> WebhookFigures + Send>,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            token_used: Box::new(|_, _| {}),
            webhook: Box::new(|_| {}),
            change: Box::new(|_| {}),
            messages_counted: Box::new(|_, _| {}),
            webhook_figures: Box::new(WebhookFigures::default),
        }
    }
}
