//! The rest of the process, as the loop of a shard sees it: the store writer and the webhooks.

use crate::app::{AppSerial, MessagesUsed, TokenId};
use crate::auth::explain::RefusalId;
use crate::metrics::figures::{AuthorizerFigures, WebhookFigures};
use crate::metrics::refusal_log::LogLine;
use crate::moment::Moment;
use crate::protocol::webhook::WebhookEvent;
use crate::shard::{Authorize, Change, ReplayOutcome};

/// Carries out the effects that the core of one shard requests beyond its sockets and mail. Each method is called on
/// the shard's thread and must not block.
pub trait Host: Send {
    /// A token was used (R-TOKEN-4).
    fn token_used(&mut self, token: TokenId, at: Moment);
    /// An event for webhooks.
    fn webhook(&mut self, event: WebhookEvent);
    /// A change of the store. The answer is [`crate::shard::Mail::changed`].
    fn change(&mut self, change: Change);
    /// A question to an authorizer. The answer is [`crate::shard::Mail::authorized`].
    fn authorize(&mut self, authorize: Authorize);
    /// A replay of the admin API has ended.
    fn replayed(&mut self, call: u64, outcome: ReplayOutcome);
    /// The number of messages that an app has published on a day (R-LIM-3).
    fn messages_counted(&mut self, app: AppSerial, used: MessagesUsed);
    /// A refusal is logged. Keeps it for `explain` and returns its id (R-EXPLAIN-6).
    fn refused(&mut self, line: &LogLine) -> Option<RefusalId>;
    /// Webhook metrics.
    fn webhook_figures(&mut self) -> WebhookFigures;
    /// Authorizer metrics.
    fn authorizer_figures(&mut self) -> AuthorizerFigures;
}

/// No process around the shard: effects are dropped, and a change or a question to an authorizer never gets an answer.
pub struct NoHost;

impl Host for NoHost {
    fn token_used(&mut self, _: TokenId, _: Moment) {}

    fn webhook(&mut self, _: WebhookEvent) {}

    fn change(&mut self, _: Change) {}

    fn authorize(&mut self, _: Authorize) {}

    fn replayed(&mut self, _: u64, _: ReplayOutcome) {}

    fn messages_counted(&mut self, _: AppSerial, _: MessagesUsed) {}

    fn refused(&mut self, _: &LogLine) -> Option<RefusalId> {
        None
    }

    fn webhook_figures(&mut self) -> WebhookFigures {
        WebhookFigures::default()
    }

    fn authorizer_figures(&mut self) -> AuthorizerFigures {
        AuthorizerFigures::default()
    }
}
