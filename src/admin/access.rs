//! What operations of the admin API work on, and the steps that several of them share.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::deliveries::Deliveries;
use super::explainer::Explainer;
use super::fault::Fault;
use super::replayer::Replayer;
use crate::app::actor::Actor;
use crate::label::Label;
use crate::moment::Moment;
use crate::store::{Batch, Idempotency, Role, Store, StoreError};

/// What operations work on, and for whom.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// The store.
    pub store: &'a Store,
    /// Who makes the change.
    pub actor: &'a Actor,
    /// What the caller may do.
    pub role: Role,
    /// The time of the request.
    pub now: Moment,
    /// Networks in which every webhook endpoint and authorizer may be.
    pub allowed: &'a [IpNet],
    /// The server that runs; the command line has none.
    pub running: Option<&'a Running>,
    /// Answers questions about refusals.
    pub explainer: Option<&'a Explainer>,
    /// Publishes kept events of the server that runs.
    pub replayer: Option<&'a Replayer>,
    /// Lists failed deliveries and tests endpoints.
    pub deliveries: Option<&'a Deliveries>,
}

/// The running server.
#[derive(Clone, Debug)]
pub struct Running {
    /// The driver in use.
    pub driver: &'static str,
    /// Why it was chosen.
    pub driver_reason: String,
    /// Number of shards.
    pub shards: u16,
    /// The public port.
    pub public: SocketAddr,
    /// When it started, unix ms.
    pub started_unix_ms: u64,
}

impl Access<'_> {
    pub(super) fn deliveries(&self) -> Result<&Deliveries, Fault> {
        self.deliveries.ok_or_else(|| Fault::unavailable("There are no deliveries here."))
    }

    /// Makes changes in one transaction, after a look at the revision that the caller expects of the app (threat T52).
    pub(super) fn change<V>(
        &self,
        call: &Call,
        body: impl FnOnce(&mut Batch<'_, '_>) -> Result<V, StoreError>,
    ) -> Result<V, Fault> {
        Ok(self.store.change_all(self.actor, |batch| {
            if let Some(revision) = call.if_match {
                batch.expect_revision(call.app_id(), revision)?;
            }
            body(batch)
        })?)
    }

    /// Creates something once for each `Idempotency-Key`: `create` returns its id, and `found` reads what an earlier
    /// request created.
    pub(super) fn create<V>(
        &self,
        call: &Call,
        create: impl FnOnce(&mut Batch<'_, '_>) -> Result<(String, V), StoreError>,
    ) -> Result<Created<V>, Fault> {
        let Some(repeat) = &call.idempotency else {
            return Ok(Created::Now(self.store.change_all(self.actor, create)?.1));
        };
        let credential = format!("{} {}", self.actor.kind.label(), self.actor.id);
        let request =
            Idempotency { credential: &credential, route: &repeat.route, key: &repeat.key, body: &repeat.body };
        let done = self.store.change_all(self.actor, |batch| {
            if let Some(id) = batch.repeated(&request)? {
                return Ok(Created::Before(id));
            }
            let (id, made) = create(batch)?;
            batch.remember(&request, &id)?;
            Ok(Created::Now(made))
        });
        Ok(done?)
    }
}

/// The outcome of a create.
pub(super) enum Created<V> {
    /// It was created.
    Now(V),
    /// An earlier request with the same `Idempotency-Key` created the record with this id.
    Before(String),
}

/// The answer to a repeat whose record is gone.
pub(super) fn gone(id: &str) -> Fault {
    Fault::answer(409, format!("This Idempotency-Key created {id}, which was deleted since."))
}

/// One page of a list: its items, and the cursor after the last of them if there are more.
pub(super) fn page<T>(
    items: impl IntoIterator<Item = T>,
    limit: usize,
    cursor: impl Fn(&T) -> String,
    encode: impl Fn(&T) -> Value,
) -> Answer {
    let mut items: Vec<T> = items.into_iter().take(limit.saturating_add(1)).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(cursor);
    Answer::ok(json!({ "items": items.iter().map(encode).collect::<Vec<_>>(), "next": next }))
}

/// The cursor of a list that is in the order of numbers.
pub(super) fn number_cursor<N: std::str::FromStr>(call: &Call) -> Result<Option<N>, Fault> {
    call.cursor()
        .map(|text| text.parse().map_err(|_| Fault::bad_request("cursor takes `next` of the page before.")))
        .transpose()
}

/// One page of the records after the cursor of a call, the oldest first; those of one millisecond keep their order.
/// `age` is the creation time in unix ms and the id of a record.
pub(super) fn page_by_age<T>(
    mut records: Vec<T>,
    call: &Call,
    age: impl Fn(&T) -> (u64, &str),
    encode: impl Fn(&T) -> Value,
) -> Answer {
    // Texts of one length before the id, so that positions compare as the times do.
    let position = |record: &T| {
        let (created_at_ms, id) = age(record);
        format!("{created_at_ms:020}.{id}")
    };
    records.sort_by_key(|record| age(record).0);
    let start = call.cursor().map_or(0, |after| {
        let last = records.iter().position(|record| position(record) == after);
        // If that was removed, a record may occur twice, and none is left out.
        let time = after.split('.').next().unwrap_or_default();
        let removed = || records.partition_point(|record| *position(record) < *time);
        last.map_or_else(removed, |last| last + 1)
    });
    page(records.into_iter().skip(start), call.limit(), position, encode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Operation;

    /// R-ADMIN-15: pages of every length list all records by age, those of one millisecond in their order; where the
    /// last record of a page was removed, those of its millisecond may occur again, and none is left out.
    #[test]
    fn pages_by_age_have_every_record() {
        let records = [(7, "d"), (5, "z"), (5, "b"), (5, "m"), (2, "x"), (7, "a")];
        let list = |records: &[(u64, &'static str)], limit: usize, cursor: Option<&str>| {
            let call = Call::new(Operation::ListTokens).with("limit", limit);
            let call = cursor.into_iter().fold(call, |call, cursor| call.with("cursor", cursor));
            let page = page_by_age(records.to_vec(), &call, |(at, id)| (*at, id), |(_, id)| json!(id)).body;
            let ids: Vec<String> = serde_json::from_value(page["items"].clone()).expect("texts");
            (ids.concat(), page["next"].as_str().map(str::to_owned))
        };
        for limit in 1..=records.len() {
            let (mut listed, mut cursor) = list(&records, limit, None);
            while let Some(next) = cursor {
                let (more, next) = list(&records, limit, Some(&next));
                listed.push_str(&more);
                cursor = next;
            }
            assert_eq!(listed, "xzbmda", "{limit}");
        }
        let (_, cursor) = list(&records, 3, None);
        let left: Vec<_> = records.into_iter().filter(|(_, id)| *id != "b").collect();
        assert_eq!(list(&left, 10, cursor.as_deref()), ("zmda".to_owned(), None));
    }
}
