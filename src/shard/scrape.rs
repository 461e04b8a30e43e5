//! The pages of the metrics port: figures gathered from all shards and from the process, then written.
//!
//! Every shard hands over a copy of its figures as the answer to one mail, between two of its inputs; none waits for
//! another. The shard that was asked writes the page when the last part has come.

use super::mail::{Body, PendingId};
use super::request::{JSON, Response, TEXT};
use super::{Output, Shard};
use crate::connection::ConnectionKey;
use crate::limits;
use crate::metrics::exposition;
use crate::metrics::figures::{Overload, ProcessFigures, Snapshot};
use crate::metrics::health::{Headroom, encode_health, encode_usage};
use crate::metrics::page::Report;
use crate::wire::http::Request;
use crate::wire::query::Query;

/// What is asked for.
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
    /// A HEAD request: the answer goes without its body.
    head: bool,
    shards: Vec<Snapshot>,
    /// Shards that have not answered.
    awaited: usize,
    process: Option<ProcessFigures>,
}

/// How a page about health reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Brief,
    /// As JSON.
    Verbose,
}

impl Form {
    /// `?verbose`; what it tells is for those who reach the metrics port.
    fn of(request: &Request<'_>, metrics_port: bool) -> Self {
        let asked = Query::new(request.query).first("verbose").is_some();
        if asked && metrics_port { Self::Verbose } else { Self::Brief }
    }
}

impl Shard {
    /// Begins to gather for a page; answers 503 when too many are in flight. `/accept-traffic` is public and holds nothing: a
    /// stranger who asks for many cannot make a load balancer read 503.
    pub(super) fn start_scrape(&mut self, slot: u32, request: &Request<'_>, page: ScrapePage) {
        let is_public = |page| matches!(page, ScrapePage::AcceptTraffic);
        let reports = || self.figures.scrapes.iter().filter(|(_, scrape)| !is_public(scrape.page)).count();
        if !is_public(page) && reports() >= limits::SCRAPES_MAX {
            self.count_overload(Overload::Gathering);
            return self.answer_text(slot, request, 503, "Too many pages are being made: try again");
        }
        let form = Form::of(request, self.http(slot).metrics);
        let (connection, ticket) = (self.key(slot), self.take_ticket(slot, request));
        if matches!(page, ScrapePage::Metrics | ScrapePage::Stats) {
            self.http(slot).large_answer = Some(ticket);
        }
        self.pending_nonce = self.pending_nonce.wrapping_add(1);
        let nonce = self.pending_nonce;
        let awaited = match page {
            ScrapePage::Metrics | ScrapePage::Stats => usize::from(self.config.shards),
            ScrapePage::Usage | ScrapePage::AcceptTraffic => 0,
        };
        let head = request.method == "HEAD";
        let scrape = Scrape { nonce, connection, ticket, page, form, head, shards: Vec::new(), awaited, process: None };
        let request = PendingId { index: self.figures.scrapes.insert(scrape) as u32, nonce };
        for to in 0..awaited {
            self.send(to as super::ShardIndex, Body::Measure { request });
        }
        self.outputs.push_back(Output::MeasureProcess);
    }

    /// As a shard that is asked.
    pub(super) fn handle_measure(&mut self, from: super::ShardIndex, request: PendingId) {
        let snapshot = Box::new(self.snapshot());
        self.send(from, Body::Measured { request, snapshot });
    }

    /// As the shard that asked.
    pub(super) fn handle_measured(&mut self, request: PendingId, snapshot: Snapshot) {
        let scrape =
            self.figures.scrapes.get_mut(request.index as usize).filter(|scrape| scrape.nonce == request.nonce);
        let scrape = scrape.expect("a page waits for every shard, and each answers once");
        scrape.awaited -= 1;
        scrape.shards.push(snapshot);
        self.finish_scrape_if_whole(request.index as usize);
    }

    /// The driver has measured the process; everybody who waits for that has it now.
    pub fn handle_process_figures(&mut self, process: &ProcessFigures) {
        let waiting = self.figures.scrapes.iter_mut().filter(|(_, scrape)| scrape.process.is_none());
        let mut whole = Vec::new();
        for (index, scrape) in waiting {
            scrape.process = Some(*process);
            whole.push(index);
        }
        for index in whole {
            self.finish_scrape_if_whole(index);
        }
    }

    fn finish_scrape_if_whole(&mut self, index: usize) {
        let is_whole = |scrape: &Scrape| scrape.awaited == 0 && scrape.process.is_some();
        if !self.figures.scrapes.get(index).is_some_and(is_whole) {
            return;
        }
        let Scrape { connection, ticket, page, form, head, mut shards, process, .. } =
            self.figures.scrapes.remove(index);
        shards.sort_unstable_by_key(|shard| shard.shard);
        let process = process.expect("a whole page has it");
        let (status, content_type, body) = match page {
            ScrapePage::Metrics | ScrapePage::Stats => self.encode_report(page, &shards, &process),
            ScrapePage::Usage => (200, JSON, encode_usage(&process)),
            ScrapePage::AcceptTraffic => self.judge_headroom(form, &process),
        };
        let response = Response { status, content_type, extra: "", body: &body };
        if head {
            self.finish_head_request(connection, ticket, &response);
        } else {
            self.finish_request(connection, ticket, &response);
        }
    }

    fn encode_report(
        &mut self,
        page: ScrapePage,
        shards: &[Snapshot],
        process: &ProcessFigures,
    ) -> (u16, &'static str, Vec<u8>) {
        let mut clients = std::mem::take(&mut self.figures.clients_told);
        clients.merge(shards);
        let report = Report {
            prefix: &self.config.options.metrics_prefix,
            identity: self.identity(),
            shards,
            process,
            clients: &clients,
            directory: &self.directory,
            unix_ms: self.now.unix_ms,
        };
        let told = match page {
            ScrapePage::Stats => (200, JSON, report.encode_stats_json()),
            ScrapePage::Metrics | ScrapePage::Usage | ScrapePage::AcceptTraffic => {
                (200, exposition::CONTENT_TYPE, report.encode().into_bytes())
            }
        };
        self.figures.clients_told = clients;
        told
    }

    fn judge_headroom(&mut self, form: Form, process: &ProcessFigures) -> (u16, &'static str, Vec<u8>) {
        // What is kept back is no room for WebSockets (P-CLOSE-2).
        let mut driver = self.figures.driver;
        driver.slots = driver.slots.saturating_sub(u64::from(self.config.refusal_slots));
        let here = Snapshot { driver, ..Snapshot::default() };
        let headroom = Headroom::of(process, &[here], self.drain.is_some());
        let refusal = headroom.refusal();
        if refusal.is_some() {
            self.count_overload(Overload::Headroom);
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

    /// Live and ready: text, or JSON with `?verbose` on the metrics port.
    pub(super) fn answer_health(&mut self, slot: u32, request: &Request<'_>, status: u16, text: &str) {
        let metrics_port = self.http(slot).metrics;
        match Form::of(request, metrics_port) {
            Form::Brief => self.answer_text(slot, request, status, text),
            Form::Verbose => {
                let uptime_s = self.now.unix_ms.saturating_sub(self.identity().started_unix_ms) / 1_000;
                let body = encode_health(if status == 200 { "ok" } else { "draining" }, uptime_s);
                self.answer(slot, request, &Response { status, content_type: JSON, extra: "", body: &body });
            }
        }
    }
}
