//! Where a command works: on the store of a data directory, or on a remote server through its admin API. Both run the
//! same operations ([`crate::admin::Access`]), so a command has the same output and the same errors in both places.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::remote::{Remote, RemoteArguments};
use super::{CommandError, StoreArguments, actor};
use crate::admin::call::Call;
use crate::admin::{Access, Deliveries, Explainer, Operation};
use crate::moment::Moment;
use crate::store::queue::Queue;
use crate::store::{Missing, Role, Store, StoreError, unix_ms};
use crate::webhook::WebhookOptions;

/// Where a command works, and how it answers.
pub(super) struct Place {
    store: StoreArguments,
    remote: Option<Remote>,
}

impl Place {
    /// The remote server if `--server` names one, else the data directory.
    pub(super) fn new(store: StoreArguments, remote: &RemoteArguments) -> Result<Self, CommandError> {
        Ok(Self { store, remote: remote.open()? })
    }

    /// Runs an operation; returns the body of its answer.
    pub(super) fn call(&self, call: &Call) -> Result<Value, CommandError> {
        if let Some(remote) = &self.remote {
            return remote.call(call);
        }
        let is_first = matches!(call.operation, Operation::CreateApp | Operation::CreateAdminToken);
        let missing = if is_first { Missing::Create } else { Missing::Refuse };
        // Only these depend on the configuration, which may be missing or wrong.
        let has_urls =
            matches!(call.operation, Operation::CreateApp | Operation::ChangeSettings | Operation::CreateWebhook);
        let allowed = if has_urls { self.store.webhook_options()?.allowed } else { Vec::new() };
        let store = self.store.open(missing)?;
        let explainer = (call.operation == Operation::Explain).then(|| self.explainer(&store)).transpose()?;
        let deliveries = if call.operation == Operation::TestWebhook {
            Some(Deliveries::new(None, &self.store.webhook_options()?))
        } else if call.operation == Operation::ListFailedDeliveries {
            Some(Deliveries::new(queue(&store)?, &WebhookOptions::default()))
        } else {
            None
        };
        let access = Access {
            store: &store,
            actor: &actor(),
            role: Role::Admin,
            now: Moment { monotonic_ms: 0, unix_ms: unix_ms() },
            allowed: &allowed,
            running: None,
            explainer: explainer.as_ref(),
            replayer: None,
            deliveries: deliveries.as_ref(),
        };
        access.run(call).map(|answer| answer.body).map_err(CommandError::Refused)
    }

    /// Explains what is refused with the apps of the store.
    fn explainer(&self, store: &Store) -> Result<Explainer, CommandError> {
        let settings = self.store.settings()?;
        let path_prefix = settings.text("path_prefix").unwrap_or_default();
        Ok(Explainer::new(store.directory()?.into(), Arc::default(), path_prefix))
    }

    /// Runs an operation with this body.
    pub(super) fn call_with(&self, mut call: Call, fields: Map<String, Value>) -> Result<Value, CommandError> {
        call.set_body(fields).map_err(CommandError::Refused)?;
        self.call(&call)
    }

    /// All items of a list, page by page, or the first `most`.
    pub(super) fn list(&self, call: &Call, most: usize) -> Result<Vec<Value>, CommandError> {
        let mut items = Vec::new();
        let mut page = call.clone();
        while items.len() < most {
            // A store is read once for all of its items.
            let limit = if self.remote.is_some() { PAGE_ITEMS.min(most - items.len()) } else { most };
            page = page.with("limit", limit);
            let mut answer = self.call(&page)?;
            items.extend(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
            match answer["next"].as_str() {
                Some(next) => page = page.with("cursor", next),
                None => break,
            }
        }
        Ok(items)
    }

    /// Prints the answer in the requested form.
    pub(super) fn answer(&self, json: &Value, text: &str) -> Result<(), CommandError> {
        self.store.answer(json, text)
    }

    /// The data directory, for commands that have no operation of the admin API.
    pub(super) fn local(&self, command: &str) -> Result<&StoreArguments, CommandError> {
        if self.remote.is_some() {
            let text = format!("`relay {command}` works on the data directory only: run it there, without --server");
            return Err(CommandError::Usage(text));
        }
        Ok(&self.store)
    }
}

/// The queue of deliveries beside a store, if a server has run on it.
fn queue(store: &Store) -> Result<Option<Queue>, StoreError> {
    let file = store.file();
    match Queue::open(file.parent().unwrap_or(&file), Missing::Refuse) {
        Ok(queue) => Ok(Some(queue)),
        Err(StoreError::Missing { .. } | StoreError::Empty { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The largest page of the admin API (R-ADMIN-15).
const PAGE_ITEMS: usize = crate::limits::ADMIN_PAGE_ITEMS_MAX;

/// A member of an answer as text; empty if it is missing or null.
pub(super) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The texts of a list; none if it is missing.
pub(super) fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
