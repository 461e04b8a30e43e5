//! The webhooks of an app of another server: the endpoints planned for them, and whether the store has them already.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde_json::Value;

use super::app::{dropped, is_empty, plain};
use super::entries::{Entry, app_at, unfold};
use super::table::{Effect, Row};
use super::verdict::{Outcome, Verdict};
use crate::app::outgoing_url::Reach;
use crate::app::webhook::{Batching, COUNT_CHANGED, CountName, NewWebhook, WebhookKind, WebhookKinds};
use crate::label::Label;
use crate::limits;
use crate::store::check_webhook;
use crate::store::record::AppRecord;

/// A webhook, value by value.
#[derive(Default)]
pub(super) struct Draft {
    /// Its location in the file.
    pub(super) at: String,
    url: Option<String>,
    /// The events that it receives, with their location.
    events: Option<(String, Vec<String>)>,
    calls: Calls,
}

/// The target of a webhook.
#[derive(Default)]
enum Calls {
    /// A URL; it has one or should have one.
    #[default]
    Url,
    /// A function in a cloud, which is reported to the operator.
    Function,
}

/// An endpoint that the file describes.
pub(super) struct PlannedWebhook {
    /// Its location in the file, the first of several with its URL.
    at: String,
    url: String,
    kinds: WebhookKinds,
    count_name: CountName,
    batching: Batching,
}

/// An endpoint and its outcome.
pub(super) struct JudgedWebhook {
    pub(super) new: NewWebhook,
    pub(super) outcome: Outcome,
}

/// The number of the webhook that an entry of an app belongs to, and the entry seen from there.
pub(super) fn part(entry: &Entry) -> Option<(usize, Entry)> {
    let [first, number, rest @ ..] = entry.path.as_slice() else {
        return None;
    };
    let number = number.parse().ok().filter(|_| first == "webhooks" && !rest.is_empty())?;
    Some((number, Entry { path: rest.to_vec(), ..entry.clone() }))
}

/// Plans the endpoints of a separate JSON list of webhooks for an app without any, with a row for each value.
pub(super) fn of_list(at: &str, list: &str, allowed: &[IpNet]) -> (Vec<JudgedWebhook>, Vec<Row>) {
    let whole = Entry { at: at.into(), path: vec!["webhooks".into()], value: list.into() };
    let mut drafts: BTreeMap<usize, Draft> = BTreeMap::new();
    let mut table = Vec::new();
    for entry in unfold(whole).iter().filter(|entry| !entry.is_unset()) {
        let verdict = match part(entry) {
            Some((number, entry)) => field(&entry, drafts.entry(number).or_default()),
            None => dropped("it is no webhook"),
        };
        match verdict {
            Verdict::Dropped(effect, reason) => table.push(Row::dropped(&entry.at, effect, reason)),
            Verdict::Wrong(takes) => table.push(Row::dropped(&entry.at, Effect::Same, format!("it takes {takes}"))),
            Verdict::Id(_)
            | Verdict::Key(_)
            | Verdict::Secret(_)
            | Verdict::Enabled(_)
            | Verdict::Set(..)
            | Verdict::Otherwise(..)
            | Verdict::AtLeast(..)
            | Verdict::Changed { .. }
            | Verdict::Same => {}
        }
    }
    let planned = settle(drafts.into_values(), Batching::default(), &mut table);
    let judged = judge(&planned, None, Reach::Public, allowed, &mut table);
    (judged, table)
}

/// Processes one value of a webhook; the path of `entry` starts below it.
pub(super) fn field(entry: &Entry, draft: &mut Draft) -> Verdict {
    draft.at = app_at(entry);
    let words: Vec<&str> = entry.path.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["url"] => match &entry.value {
            Value::Null => Verdict::Same,
            Value::String(url) => {
                draft.url = Some(url.clone());
                Verdict::Same
            }
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Verdict::Wrong("a URL"),
        },
        ["eventTypes" | "events"] => {
            let names = entry.value.as_array().and_then(|values| values.iter().map(plain).collect());
            match names {
                Some(names) => {
                    draft.events = Some((entry.at.clone(), names));
                    Verdict::Same
                }
                None => Verdict::Wrong("a list of events"),
            }
        }
        ["headers" | "filter" | "lambda" | "lambdaFunction", ..] if is_empty(&entry.value) => Verdict::Same,
        ["headers", ..] => dropped("Relay signs requests and adds no headers of yours"),
        ["filter", ..] => Verdict::Dropped(
            Effect::Loosens,
            "Relay filters by event, not by channel: the receiver gets all channels".into(),
        ),
        ["lambdaFunction" | "lambda", ..] => {
            draft.calls = Calls::Function;
            dropped("Relay calls URLs alone, no functions of a cloud")
        }
        ["retry" | "requestTimeoutMs", ..] => dropped("Relay times and repeats deliveries by its own schedule"),
        _ => dropped("Relay knows of no such key of a webhook"),
    }
}

/// Plans the endpoints for the webhooks of an app, one for each URL. `table` gets a row for each value that is left
/// out.
pub(super) fn settle(
    drafts: impl Iterator<Item = Draft>,
    batching: Batching,
    table: &mut Vec<Row>,
) -> Vec<PlannedWebhook> {
    let mut planned: Vec<PlannedWebhook> = Vec::new();
    for draft in drafts {
        let Some(url) = draft.url.filter(|url| !url.is_empty()) else {
            match draft.calls {
                Calls::Url => table.push(Row::dropped(&draft.at, Effect::Same, "it has no url")),
                Calls::Function => {}
            }
            continue;
        };
        let (at, names) = draft.events.unwrap_or_else(|| (draft.at.clone(), Vec::new()));
        let (kinds, count_name, unknown) = kinds(&names);
        if !unknown.is_empty() {
            let reason = format!("Relay has no such webhook event: {}", unknown.join(", "));
            table.push(Row::dropped(&at, Effect::Same, reason));
        }
        if kinds.is_empty() {
            let reason = "it names no event of Relay's, so it would get nothing";
            table.push(Row::dropped(&draft.at, Effect::Same, reason));
            continue;
        }
        if kinds.has(WebhookKind::SubscriptionCount) {
            let reason = "subscription_count is sent only while the app has subscription_count=true";
            table.push(Row::changed(&at, Effect::Tightens, reason));
        }
        match planned.iter_mut().find(|webhook| webhook.url == url) {
            Some(webhook) => {
                webhook.kinds = webhook.kinds.union(kinds);
                if count_name == CountName::Changed {
                    webhook.count_name = count_name;
                }
            }
            None => planned.push(PlannedWebhook { at: draft.at, url, kinds, count_name, batching }),
        }
    }
    planned
}

/// The kinds with these names, as those servers spell them, the spelling of one of them, and the unknown names.
fn kinds(names: &[String]) -> (WebhookKinds, CountName, Vec<String>) {
    let (mut kinds, mut count_name, mut unknown) = (WebhookKinds::empty(), CountName::Pusher, Vec::new());
    for name in names {
        // Relay's own spelling would have matched nothing there.
        match WebhookKind::from_name(name).filter(|kind| kind.relay_name() != name) {
            Some(kind) => kinds = kinds.with(kind),
            None => unknown.push(format!("{name:?}")),
        }
        if name == COUNT_CHANGED {
            count_name = CountName::Changed;
        }
    }
    (kinds, count_name, unknown)
}

impl PlannedWebhook {
    fn to_new(&self, reach: Reach) -> NewWebhook {
        NewWebhook {
            url: self.url.clone(),
            events: self.kinds.kinds().map(|kind| kind.label().to_owned()).collect(),
            batching: self.batching,
            reach,
            count_name: self.count_name,
            ..NewWebhook::default()
        }
    }
}

/// Compares the endpoints of an app with the store, before anything is written. `reach` is the operator's permission
/// for all endpoints of a file (threat T19), `allowed` are networks in which every endpoint may be.
pub(super) fn judge(
    planned: &[PlannedWebhook],
    before: Option<&AppRecord>,
    reach: Reach,
    allowed: &[IpNet],
    table: &mut Vec<Row>,
) -> Vec<JudgedWebhook> {
    let present = before.map_or(&[][..], |app| &app.webhooks);
    let mut count = present.len();
    let mut judged = Vec::new();
    for webhook in planned {
        let same_place = present.iter().find(|present| present.url == webhook.url);
        // A permission that was granted once need not be granted again with every run.
        let new = match same_place {
            Some(present) if present.allow_private => webhook.to_new(Reach::Anywhere),
            Some(_) | None => webhook.to_new(reach),
        };
        if let Err(error) = check_webhook(&new, allowed) {
            table.push(Row::dropped(&format!("{}.url", webhook.at), Effect::Same, error.to_string()));
            continue;
        }
        let outcome = match same_place {
            Some(present) if present.does(&new) => Outcome::Same,
            Some(_) => Outcome::Changed,
            None if count >= limits::WEBHOOKS_PER_APP_MAX => {
                let reason = format!("an app has {} webhooks at most", limits::WEBHOOKS_PER_APP_MAX);
                table.push(Row::dropped(&webhook.at, Effect::Same, reason));
                continue;
            }
            None => Outcome::Created,
        };
        table.push(Row::taken(&webhook.at, format!("webhook {}", new.url)));
        count += usize::from(outcome == Outcome::Created);
        judged.push(JudgedWebhook { new, outcome });
    }
    judged
}
