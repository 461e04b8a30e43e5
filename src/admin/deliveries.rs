//! What webhook endpoints are tested with, and where failed deliveries are listed (R-ADMIN-23).

use std::sync::Mutex;

use super::fault::Fault;
use crate::app::App;
use crate::app::webhook::WebhookEndpoint;
use crate::outgoing::client::Client;
use crate::store::queue::{FailedDelivery, Queue};
use crate::webhook::WebhookOptions;
use crate::webhook::request::{self, SendError};

/// The queue that lists failed deliveries, and the way to endpoints.
pub struct Deliveries {
    /// Missing where no server has run yet.
    queue: Option<Queue>,
    /// Held by the only call that tests an endpoint.
    client: Mutex<Client>,
}

impl Deliveries {
    /// With the queue of a data directory, and a client that reaches what webhooks may reach.
    pub fn new(queue: Option<Queue>, options: &WebhookOptions) -> Self {
        Self { queue, client: Mutex::new(Client::new(&options.allowed, &options.roots, request::KEPT)) }
    }

    /// The last deliveries that were given up, with their numbers, oldest first.
    ///
    /// # Errors
    /// The queue cannot be read.
    pub(super) fn failed(&self) -> Result<Vec<(u64, FailedDelivery)>, Fault> {
        Ok(self.queue.as_ref().map(Queue::failed).transpose()?.unwrap_or_default())
    }

    /// Sends one event named `test` to an endpoint, past the queue.
    ///
    /// # Errors
    /// 503 while another endpoint is tested: a request may take seconds, and there are few threads for all operations.
    pub(super) fn test(
        &self,
        app: &App,
        endpoint: &WebhookEndpoint,
        unix_ms: u64,
    ) -> Result<Result<u16, SendError>, Fault> {
        let client = self.client.try_lock();
        let client = client.map_err(|_| Fault::unavailable("Another endpoint is being tested; try again."))?;
        Ok(request::send_test(&client, app, endpoint, unix_ms))
    }
}
