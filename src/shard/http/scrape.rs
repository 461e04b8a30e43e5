//! The pages of the metrics port: metrics are gathered from all shards and from the process, then written.
//!
//! Every shard sends a copy of its metrics as the answer to one mail, between two of its inputs; none waits for
//! another. The shard that received the request writes the page when the last part has arrived.

use super::{Parts, Requests};
use crate::connection::ConnectionKey;
use crate::index::{ShardIndex, Slot};
use crate::limits;
use crate::metrics::exposition;
use crate::metrics::figures::{Overload, ProcessFigures, Snapshot};
use crate::metrics::health::{Headroom, encode_health, encode_usage};
use crate::metrics::page::Report;
use crate::shard::connections::{JSON, Response, TEXT};
use crate::shard::io::Output;
use crate::shard::mail::{MetricsMessage, PendingId};
use crate::wire::http::Request;
use crate::wire::query::Query;

/// The requested page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ScrapePage {
    /// `/metrics`.
    Metrics,
    /// `/stats`.
    Stats,
    /// `/usage`.
    Usage,
    /// `/accept-traffic`.
    AcceptTraffic,
}

/// A page under construction.
pub(super) struct Scrape {
    nonce: u32,
    connection: ConnectionKey,
    ticket: u32,
    page: ScrapePage,
    form: Form,
    /// A HEAD request: the answer is sent without its body.
    head: bool,
    shards: Vec<Snapshot>,
    /// Shards that have not answered.
    awaited: usize,
    process: Option<ProcessFigures>,
}

/// The form of a health page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Brief,
    /// As JSON.
    Verbose,
}

impl Form {
    /// The form requested by `?verbose`, which only the metrics port supports.
    fn of(request: &Request<'_>, metrics_port: bool) -> Self {
        let asked = Query::new(request.query).first("verbose").is_some();
        if asked && metrics_port { Self::Verbose } else { Self::Brief }
    }
}

impl Requests {
    /// Starts gathering for a page; answers 503 when too many are in flight. `/accept-traffic` is public and holds
    /// nothing: strangers who request it often cannot make a load balancer receive 503.
    pub(super) fn start_scrape(&mut self, parts: &mut Parts<'_>, slot: Slot, request: &Request<'_>, page: ScrapePage) {
        let is_public = |page| matches!(page, ScrapePage::AcceptTraffic);
        let reports = || self.scrapes.iter().filter(|(_, scrape)| !is_public(scrape.page)).count();
        if !is_public(page) && reports() >= limits::SCRAPES_MAX {
            parts.context.metrics.count_overload(Overload::Gathering);
            return parts.connections.answer_text(
                parts.context,
                slot,
                request,
                503,
                "Too many pages are being made: try again",
            );
        }
        let form = Form::of(request, parts.connections.http(slot).metrics);
        let (connection, ticket) =
            (parts.connections.key(slot), parts.connections.take_ticket(parts.context, slot, request));
        if matches!(page, ScrapePage::Metrics | ScrapePage::Stats) {
            parts.connections.http(slot).large_answer = Some(ticket);
        }
        let nonce = self.next_nonce();
        let awaited = match page {
            ScrapePage::Metrics | ScrapePage::Stats => usize::from(parts.context.config.shards),
            ScrapePage::Usage | ScrapePage::AcceptTraffic => 0,
        };
        let head = request.method == "HEAD";
        let scrape = Scrape { nonce, connection, ticket, page, form, head, shards: Vec::new(), awaited, process: None };
        let request = PendingId { index: self.scrapes.insert(scrape) as u32, nonce };
        for to in 0..awaited {
            parts.context.send(to as ShardIndex, MetricsMessage::Measure { request });
        }
        parts.context.outputs.push_back(Output::MeasureProcess);
    }

    /// A shard has sent its metrics.
    pub(in crate::shard) fn handle_measured(&mut self, parts: &mut Parts<'_>, request: PendingId, snapshot: Snapshot) {
        let scrape = self.scrapes.get_mut(request.index as usize).filter(|scrape| scrape.nonce == request.nonce);
        let scrape = scrape.expect("a page waits for every shard, and each answers once");
        scrape.awaited -= 1;
        scrape.shards.push(snapshot);
        self.finish_scrape_if_whole(parts, request.index as usize);
    }

    /// The driver has measured the process; all requests that wait for the result receive it now.
    pub(in crate::shard) fn handle_process_figures(&mut self, parts: &mut Parts<'_>, process: &ProcessFigures) {
        let waiting = self.scrapes.iter_mut().filter(|(_, scrape)| scrape.process.is_none());
        let mut whole = Vec::new();
        for (index, scrape) in waiting {
            scrape.process = Some(*process);
            whole.push(index);
        }
        for index in whole {
            self.finish_scrape_if_whole(parts, index);
        }
    }

    fn finish_scrape_if_whole(&mut self, parts: &mut Parts<'_>, index: usize) {
        let is_whole = |scrape: &Scrape| scrape.awaited == 0 && scrape.process.is_some();
        if !self.scrapes.get(index).is_some_and(is_whole) {
            return;
        }
        let Scrape { connection, ticket, page, form, head, mut shards, process, .. } = self.scrapes.remove(index);
        shards.sort_unstable_by_key(|shard| shard.shard);
        let process = process.expect("a whole page has it");
        let (status, content_type, body) = match page {
            ScrapePage::Metrics | ScrapePage::Stats => self.encode_report(parts, page, &shards, &process),
            ScrapePage::Usage => (200, JSON, encode_usage(&process)),
            ScrapePage::AcceptTraffic => self.judge_headroom(parts, form, &process),
        };
        let response = Response { status, content_type, extra: "", body: &body };
        if head {
            parts.connections.finish_head_request(parts.context, connection, ticket, &response);
        } else {
            parts.connections.finish_request(parts.context, connection, ticket, &response);
        }
    }

    fn encode_report(
        &mut self,
        parts: &Parts<'_>,
        page: ScrapePage,
        shards: &[Snapshot],
        process: &ProcessFigures,
    ) -> (u16, &'static str, Vec<u8>) {
        let mut clients = std::mem::take(&mut self.clients_reported);
        clients.merge(shards);
        let report = Report {
            prefix: &parts.context.config.options.metrics_prefix,
            identity: parts.context.identity(),
            shards,
            process,
            clients: &clients,
            directory: &parts.context.directory,
            unix_ms: parts.context.now.unix_ms,
        };
        let answer = match page {
            ScrapePage::Stats => (200, JSON, report.encode_stats_json()),
            ScrapePage::Metrics | ScrapePage::Usage | ScrapePage::AcceptTraffic => {
                (200, exposition::CONTENT_TYPE, report.encode().into_bytes())
            }
        };
        self.clients_reported = clients;
        answer
    }

    fn judge_headroom(
        &self,
        parts: &mut Parts<'_>,
        form: Form,
        process: &ProcessFigures,
    ) -> (u16, &'static str, Vec<u8>) {
        // Reserved slots are not capacity for WebSockets (P-CLOSE-2).
        let mut driver = parts.context.metrics.driver;
        driver.slots = driver.slots.saturating_sub(u64::from(parts.context.config.refusal_slots));
        let here = Snapshot { driver, ..Snapshot::default() };
        let headroom = Headroom::of(process, &[here], parts.context.is_draining);
        let refusal = headroom.refusal();
        if refusal.is_some() {
            parts.context.metrics.count_overload(Overload::Headroom);
        }
        let status = if refusal.is_some() { 503 } else { 200 };
        match form {
            Form::Verbose => (status, JSON, headroom.encode()),
            Form::Brief => {
                let body = refusal.map_or_else(|| "OK\n".to_owned(), |reason| format!("No room: {reason}"));
                (status, TEXT, body.into_bytes())
            }
        }
    }

    /// Answers live and ready: text, or JSON with `?verbose` on the metrics port.
    pub(super) fn answer_health(
        &self,
        parts: &mut Parts<'_>,
        slot: Slot,
        request: &Request<'_>,
        status: u16,
        text: &str,
    ) {
        let metrics_port = parts.connections.http(slot).metrics;
        match Form::of(request, metrics_port) {
            Form::Brief => parts.connections.answer_text(parts.context, slot, request, status, text),
            Form::Verbose => {
                let uptime_s =
                    parts.context.now.unix_ms.saturating_sub(parts.context.identity().started_unix_ms) / 1_000;
                let body = encode_health(if status == 200 { "ok" } else { "draining" }, uptime_s);
                parts.connections.answer(
                    parts.context,
                    slot,
                    request,
                    &Response { status, content_type: JSON, extra: "", body: &body },
                );
            }
        }
    }
}
