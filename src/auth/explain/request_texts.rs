//! The texts that code signs by mistake for a request (P-SIGN-2, P-SIGN-5).

use std::ops::ControlFlow;

use ring::hmac;

use super::cause::Cause;
use super::channel_texts::attempt_ends;
use super::encoding::{CODINGS, percent_encoded};
use super::search::{Search, Step};
use crate::auth::reading::{Pairs, Reading, candidate_paths};
use crate::auth::signature::Reserved;
use crate::limits::{CANDIDATE_BYTES_MAX, CANDIDATE_PARAMETERS_MAX};
use crate::wire::query::{self, Parameter, Query, Values};

/// What is signed for a request.
#[derive(Debug)]
pub(super) struct RequestText<'a> {
    method: String,
    /// As requested, without the query.
    path: &'a str,
    query: &'a str,
    /// The parameters but for the signature, in the order sent.
    covered: Vec<Parameter<'a>>,
    /// The body, and its MD5 in hex; none where it is not known.
    pub(super) body: Option<(&'a [u8], String)>,
    /// Hosts that the client may have signed.
    hosts: Vec<&'a str>,
    /// Prefixes that the path has before or behind a proxy.
    prefixes: Vec<&'a str>,
    /// `path_prefix` of the server.
    path_prefix: &'a str,
}

/// A pair of a query as it is read.
type Pair = (String, String);

impl<'a> RequestText<'a> {
    pub(super) fn new(method: &str, path: &'a str, query: &'a str, path_prefix: &'a str) -> Self {
        let mut decoded = Vec::new();
        let parameters = Query::new(Some(query)).parameters();
        let covered = parameters
            .filter(|parameter| {
                let reserved = Reserved::of_sent(parameter.name, &mut decoded);
                !matches!(reserved, Some((Reserved::Signature, _)))
            })
            .collect();
        let prefixes = vec!["/api/v1"];
        Self {
            method: method.to_ascii_uppercase(),
            path,
            query,
            covered,
            body: None,
            hosts: Vec::new(),
            prefixes,
            path_prefix,
        }
    }

    /// Adds hosts and prefixes that headers name.
    pub(super) fn add_headers(&mut self, header: impl Fn(&str) -> Option<&'a str>) {
        for host in ["Host", "X-Forwarded-Host"].into_iter().filter_map(&header) {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            self.hosts.extend([host, name].into_iter().filter(|host| !host.is_empty()));
        }
        self.hosts.dedup();
        let known = [header("X-Forwarded-Prefix"), Some(self.path_prefix)].into_iter().flatten();
        self.prefixes.extend(known.filter(|prefix| !prefix.is_empty()));
    }

    /// The values of a parameter, decoded.
    pub(super) fn values(&self, which: Reserved) -> Vec<String> {
        let mut decoded = Vec::new();
        let parameters = Query::new(Some(self.query)).parameters();
        let named = parameters.filter(|parameter| {
            Reserved::of_sent(parameter.name, &mut decoded).is_some_and(|(found, _)| found == which)
        });
        named.map(|parameter| String::from_utf8_lossy(&query::decode(parameter.value)).into_owned()).collect()
    }

    /// The text of these pairs, as Relay builds it.
    fn text(&self, pairs: &[Pair]) -> String {
        format!("{}\n{}\n{}", self.method, self.path, join(pairs))
    }

    /// The text that Relay expects, with the parameters as they were sent.
    pub(super) fn as_sent(&self) -> String {
        self.text(&self.sorted())
    }

    /// The text that Relay expects, with the right value of parameters that are wrong.
    pub(super) fn expected(&self, corrected: &[(Reserved, String)]) -> String {
        let mut pairs = self.pairs(false);
        for (which, value) in corrected {
            match pairs.iter_mut().find(|(name, _)| name == which.name()) {
                Some((_, sent)) => sent.clone_from(value),
                None => pairs.push((which.name().to_owned(), value.clone())),
            }
        }
        pairs.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        self.text(&pairs)
    }

    /// The parameters decoded, in the order sent.
    fn pairs(&self, keeps_case: bool) -> Vec<Pair> {
        let decoded = |text: &[u8]| String::from_utf8_lossy(&query::decode(text)).into_owned();
        let name = |name: &[u8]| if keeps_case { decoded(name) } else { decoded(name).to_ascii_lowercase() };
        self.covered.iter().map(|parameter| (name(parameter.name), decoded(parameter.value))).collect()
    }

    fn sorted(&self) -> Vec<Pair> {
        sorted(self.pairs(false))
    }

    /// Attempts with each text under one secret.
    pub(super) fn attempt_all(&self, search: &mut Search, key: &hmac::Key) -> Step {
        self.attempt_accepted(search, key)?;
        self.attempt_methods(search, key)?;
        self.attempt_queries(search, key)?;
        self.attempt_paths(search, key)?;
        self.attempt_layouts(search, key)?;
        self.attempt_bodies(search, key)
    }

    /// The candidates of P-SIGN-5, each once. Beyond its bounds Relay tries the first only.
    fn attempt_accepted(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let has_candidates =
            self.covered.len() <= CANDIDATE_PARAMETERS_MAX && self.path.len() + self.query.len() <= CANDIDATE_BYTES_MAX;
        let mut tried: Vec<Vec<u8>> = Vec::new();
        for values in [Values::Decoded, Values::Raw, Values::PlusAsSpace] {
            let mut reading = Reading::of(&self.covered, values);
            for pairs in [Pairs::AsSent, Pairs::Collapsed] {
                let joined = reading.join(pairs);
                for path in candidate_paths(self.path, self.path_prefix) {
                    let text = [self.method.as_bytes(), b"\n", &path, b"\n", &joined].concat();
                    if tried.contains(&text) {
                        continue;
                    }
                    let accepted = has_candidates || tried.is_empty();
                    let cause = if accepted { Cause::Ok } else { Cause::QueryTooLong };
                    search.attempt(cause, "", key, &text)?;
                    tried.push(text);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn attempt_methods(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let query = join(&self.sorted());
        let mut attempt =
            |cause, method: &str| search.attempt(cause, "", key, [method, self.path, &query].join("\n").as_bytes());
        let lower = self.method.to_ascii_lowercase();
        attempt(Cause::LowerCaseMethod, &lower)?;
        let mut capital = lower;
        capital.get_mut(..1).into_iter().for_each(str::make_ascii_uppercase);
        attempt(Cause::LowerCaseMethod, &capital)?;
        for other in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", ""] {
            if other != self.method {
                attempt(Cause::OtherMethod, other)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Other parameters, in another order or coding.
    fn attempt_queries(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let right = self.sorted();
        let sent = self.pairs(false);
        let mut attempt = |cause, pairs: &[Pair]| {
            if pairs == right {
                ControlFlow::Continue(())
            } else {
                search.attempt(cause, "", key, self.text(pairs).as_bytes())
            }
        };
        attempt(Cause::UnsortedQuery, &sent)?;
        attempt(Cause::UnsortedQuery, &right.iter().rev().cloned().collect::<Vec<_>>())?;
        let (reserved, own): (Vec<Pair>, Vec<Pair>) = right.iter().cloned().partition(|(name, _)| is_reserved(name));
        attempt(Cause::UnsortedQuery, &[&own[..], &reserved].concat())?;
        attempt(Cause::UnsortedQuery, &[&reserved[..], &own].concat())?;
        attempt(Cause::UpperCaseNames, &self.pairs(true))?;
        attempt(Cause::UpperCaseNames, &sorted(self.pairs(true)))?;
        let upper = right.iter().map(|(name, value)| (name.to_uppercase(), value.clone())).collect();
        attempt(Cause::UpperCaseNames, &sorted(upper))?;
        for coding in CODINGS {
            let values: Vec<_> = right.iter().map(|(name, value)| (name.clone(), coding(value))).collect();
            attempt(Cause::PercentEncoding, &values)?;
            let both = right.iter().map(|(name, value)| (coding(name), coding(value))).collect();
            attempt(Cause::PercentEncoding, &sorted(both))?;
        }
        if !own.is_empty() {
            attempt(Cause::UnsignedParameters, &reserved)?;
        }
        for at in 0..right.len() {
            attempt(Cause::UnsignedParameters, &[&right[..at], &right[at + 1..]].concat())?;
        }
        // Raw and unsorted: the query as it is sent, cut before the signature.
        let raw: Vec<Pair> = self.covered.iter().map(|parameter| raw_pair(parameter)).collect();
        attempt(Cause::UnsortedQuery, &raw)
    }

    /// Other paths, and hosts before them.
    fn attempt_paths(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let (path, query) = (self.path, join(&self.sorted()));
        let mut attempt = |cause, signed: &str| {
            if signed == path {
                ControlFlow::Continue(())
            } else {
                search.attempt(cause, "", key, [&self.method, signed, &query].join("\n").as_bytes())
            }
        };
        for prefix in &self.prefixes {
            attempt(Cause::PathPrefix, &format!("{prefix}{path}"))?;
            attempt(Cause::PathPrefix, &format!("{}{path}", prefix.trim_end_matches('/')))?;
        }
        for (at, _) in path.match_indices('/').skip(1).take(PATH_PARTS_MAX) {
            attempt(Cause::PathPrefix, &path[at..])?;
        }
        let mut single = path.to_owned();
        while single.contains("//") {
            single = single.replace("//", "/");
        }
        for slashes in [
            single,
            format!("/{path}"),
            path.replacen("/apps/", "//apps/", 1),
            format!("{path}/"),
            path.trim_end_matches('/').to_owned(),
            path.trim_start_matches('/').to_owned(),
        ] {
            attempt(Cause::PathSlashes, &slashes)?;
        }
        for host in &self.hosts {
            for signed in ["", "http://", "https://", "//"].map(|scheme| format!("{scheme}{host}{path}")) {
                attempt(Cause::HostInPath, &signed)?;
            }
            attempt(Cause::HostInPath, &format!("{host}\n{path}"))?;
        }
        let in_parts = |coding: fn(&str) -> String| path.split('/').map(coding).collect::<Vec<_>>().join("/");
        for coded in percent_encoded(path).into_iter().chain(CODINGS.map(in_parts)) {
            attempt(Cause::PercentEncoding, &coded)?;
        }
        ControlFlow::Continue(())
    }

    /// The same parts, joined otherwise.
    fn attempt_layouts(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let (method, path, query) = (&*self.method, self.path, &*join(&self.sorted()));
        let mut attempt = |cause, text: String| search.attempt(cause, "", key, text.as_bytes());
        for text in [
            format!("{method}\n{path}?{query}"),
            format!("{method}\n{path}\n?{query}"),
            format!("{method} {path}?{query}"),
            format!("{method}{path}?{query}"),
            format!("{method}\n{path}?{}", self.query),
        ] {
            attempt(Cause::QueryInPath, text)?;
        }
        for separator in ["\\n", "\r\n", "", " ", "&", ":", "|", "\n\n", ",", "\r"] {
            attempt(Cause::WrongSeparator, [method, path, query].join(separator))?;
        }
        for parts in [&[path, query][..], &[method, query], &[method, path], &[method, path, ""], &[query], &[path]] {
            attempt(Cause::MissingPart, parts.join("\n"))?;
        }
        attempt_ends(search, key, &self.as_sent())
    }

    /// The body in place of its MD5, and other forms of the MD5 than the one sent.
    fn attempt_bodies(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let seconds = self.values(Reserved::Timestamp).first().and_then(|digits| digits.parse::<u64>().ok());
        if let Some(ms) = seconds.filter(|ms| *ms >= TIMESTAMP_MS_MIN) {
            let in_seconds = self.expected(&[(Reserved::Timestamp, (ms / 1_000).to_string())]);
            search.attempt(Cause::TimestampInMs, "", key, in_seconds.as_bytes())?;
        }
        let Some((body, md5)) = &self.body else { return ControlFlow::Continue(()) };
        let with_md5 = |md5: &str| self.expected(&[(Reserved::BodyMd5, md5.to_owned())]).into_bytes();
        let has_md5 = self.covered.iter().any(|parameter| parameter.name == Reserved::BodyMd5.name().as_bytes());
        let cause = if has_md5 { Cause::OtherBody } else { Cause::MissingBodyMd5 };
        search.attempt(cause, "", key, &with_md5(md5))?;
        search.attempt(Cause::EncodedBodyMd5, "", key, &with_md5(&md5.to_uppercase()))?;
        if body.is_empty() {
            return ControlFlow::Continue(());
        }
        let as_sent = self.as_sent();
        let without = self.sorted().into_iter().filter(|(name, _)| name != Reserved::BodyMd5.name());
        let without = self.text(&without.collect::<Vec<_>>());
        let lines = [self.method.as_bytes(), b"\n", self.path.as_bytes(), b"\n", body].concat();
        for text in [
            body.to_vec(),
            lines,
            [as_sent.as_bytes(), b"\n", body].concat(),
            [as_sent.as_bytes(), body].concat(),
            [without.as_bytes(), b"\n", body].concat(),
            with_md5(&String::from_utf8_lossy(body)),
        ] {
            search.attempt(Cause::BodySigned, "", key, &text)?;
        }
        ControlFlow::Continue(())
    }
}

fn is_reserved(name: &str) -> bool {
    Reserved::ALL.iter().any(|which| which.name() == name)
}

fn raw_pair(parameter: &Parameter<'_>) -> Pair {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(parameter.name), text(parameter.value))
}

fn sorted(mut pairs: Vec<Pair>) -> Vec<Pair> {
    pairs.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
    pairs
}

fn join(pairs: &[Pair]) -> String {
    let joined: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}

/// From here on a timestamp in seconds would be in the year 5138, and one in milliseconds is after 1973.
pub(super) const TIMESTAMP_MS_MIN: u64 = 100_000_000_000;
/// Leading parts of a path without which it is tried.
const PATH_PARTS_MAX: usize = 6;
