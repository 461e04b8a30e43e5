//! Who answered: Relay, or one of the hops in front of it. A hop is recognized by the headers and error pages that its
//! documentation or its defaults show.

use super::http::Answer;
use crate::label::labels;

labels! {
    /// The proxies whose configuration the doctor knows.
    pub(super) enum Hop {
        /// nginx, OpenResty.
        Nginx => "nginx",
        /// HAProxy.
        Haproxy => "haproxy",
        /// Caddy.
        Caddy => "caddy",
        /// Traefik.
        Traefik => "traefik",
        /// Cloudflare.
        Cloudflare => "cloudflare",
    }
}

impl Hop {
    /// Its name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
            Self::Traefik => "Traefik",
            Self::Cloudflare => "Cloudflare",
        }
    }
}

/// A hop that showed itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sighting {
    /// One of those that are known.
    pub(super) hop: Option<Hop>,
    /// Its name for people, with the version where it shows one.
    pub(super) name: String,
}

/// The hops on the way, as far as they show themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    /// Named by `--proxy`: it hides its own name.
    pub(super) given: Option<Hop>,
    seen: Vec<Sighting>,
}

impl Hops {
    /// None seen yet; one may be named by `--proxy`.
    pub(super) fn new(given: Option<Hop>) -> Self {
        Self { given, seen: Vec::new() }
    }

    /// Notes the hops that an answer shows.
    pub(super) fn note(&mut self, answer: &Answer) {
        for sighting in sightings(answer) {
            if !self.seen.contains(&sighting) {
                self.seen.push(sighting);
            }
        }
    }

    /// Those that were noted, for people.
    pub(super) fn names(&self) -> Vec<String> {
        self.seen.iter().map(|sighting| sighting.name.clone()).collect()
    }

    /// The one whose configuration decides: the one that was named, else the nearest to Relay that is known.
    pub(super) fn nearest(&self) -> Option<Hop> {
        let known = |skipped: Option<Hop>| {
            self.seen.iter().rev().filter_map(|sighting| sighting.hop).find(|hop| Some(*hop) != skipped)
        };
        self.given.or_else(|| known(Some(Hop::Cloudflare))).or_else(|| known(None))
    }

    /// Who made this answer, if it is not Relay's: the hop, and a name for the report.
    pub(super) fn author(&self, answer: &Answer) -> (Option<Hop>, String) {
        let found = sightings(answer).into_iter().last();
        let hop = found.as_ref().and_then(|found| found.hop).or_else(|| self.nearest());
        let name = found.map(|found| found.name).or_else(|| hop.map(|hop| hop.name().to_owned()));
        (hop, name.unwrap_or_else(|| "a hop in front of Relay".to_owned()))
    }
}

/// The hops that an answer shows, the nearest to the client first.
fn sightings(answer: &Answer) -> Vec<Sighting> {
    let mut found = Vec::new();
    let mut add = |hop: Option<Hop>, name: &str| {
        let name: String = name.chars().filter(|character| !character.is_control()).take(60).collect();
        found.push(Sighting { hop, name });
    };
    if answer.header("cf-ray").is_some() {
        add(Some(Hop::Cloudflare), "Cloudflare");
    }
    for name in ["x-amz-cf-id", "x-azure-ref", "fly-request-id", "x-vercel-id"] {
        if answer.header(name).is_some() {
            add(None, name.trim_start_matches("x-"));
        }
    }
    if let Some(via) = answer.header("via") {
        let known = [("google", "Google Cloud"), ("vegur", "Heroku"), ("caddy", "Caddy")];
        match known.iter().find(|(word, _)| via.to_ascii_lowercase().contains(word)) {
            Some((word, name)) => add((*word == "caddy").then_some(Hop::Caddy), name),
            None => add(None, &format!("via {via}")),
        }
    }
    if let Some(server) = answer.header("server") {
        let lower = server.to_ascii_lowercase();
        let hop = [
            ("nginx", Hop::Nginx),
            ("openresty", Hop::Nginx),
            ("caddy", Hop::Caddy),
            ("haproxy", Hop::Haproxy),
            ("traefik", Hop::Traefik),
            ("cloudflare", Hop::Cloudflare),
        ];
        let hop = hop.iter().find(|(word, _)| lower.contains(word)).map(|(_, hop)| *hop);
        if hop != Some(Hop::Cloudflare) || answer.header("cf-ray").is_none() {
            add(hop, server);
        }
    } else if let Some(hop) = by_page(answer) {
        add(Some(hop), hop.name());
    }
    found
}

/// A hop without a `Server` header, by its own error pages.
fn by_page(answer: &Answer) -> Option<Hop> {
    let text = answer.text();
    let heading = format!("<html><body><h1>{} ", answer.status);
    if text.starts_with(&heading) && answer.header("cache-control") == Some("no-cache") {
        return Some(Hop::Haproxy);
    }
    let plain = answer.header("x-content-type-options").is_some() && answer.status == 404;
    if (plain && text == "404 page not found\n") || (answer.status >= 502 && TRAEFIK_PAGES.contains(&text.as_str())) {
        return Some(Hop::Traefik);
    }
    None
}

/// Bodies of Traefik's errors about the server behind it.
const TRAEFIK_PAGES: [&str; 3] = ["Bad Gateway", "Gateway Timeout", "no available server\n"];

/// Relay's own words in an answer; `None` if somebody else made it. Under `/api/v1` every error is JSON (R-ERR-1);
/// elsewhere its texts are known.
pub(super) fn relay_says(answer: &Answer) -> Option<String> {
    if let Some(json) = answer.json() {
        let is_error = json["error"].is_string() && json["message"].is_string();
        return is_error.then(|| json["message"].as_str().unwrap_or_default().to_owned());
    }
    let text = answer.text();
    RELAY_TEXTS.iter().any(|known| text.starts_with(known)).then_some(text)
}

/// The texts of Relay outside of `/api/v1` that the doctor may cause.
const RELAY_TEXTS: [&str; 10] = [
    "OK\n",
    "Draining",
    "This path is for WebSockets",
    "Only WebSockets are served",
    "a WebSocket must be opened",
    "Connection must be Upgrade",
    "Upgrade must be websocket",
    "Sec-WebSocket-",
    "No such app, or it is disabled",
    "Nothing is served at this path",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Answer { status, headers, body: body.as_bytes().to_vec() }
    }

    fn hop(answer: &Answer) -> Option<Hop> {
        Hops::default().author(answer).0
    }

    /// R-DIAG-2: each known hop is recognized by its headers or its error page.
    #[test]
    fn hops_are_recognized() {
        let haproxy = "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n";
        let cases = [
            (answer(502, &[("Server", "nginx/1.22.1")], "<html>"), Some(Hop::Nginx)),
            (answer(502, &[("Server", "openresty")], ""), Some(Hop::Nginx)),
            (answer(503, &[("cache-control", "no-cache")], haproxy), Some(Hop::Haproxy)),
            (answer(502, &[("Server", "Caddy")], ""), Some(Hop::Caddy)),
            (answer(200, &[("Via", "1.1 Caddy")], ""), Some(Hop::Caddy)),
            (answer(404, &[("X-Content-Type-Options", "nosniff")], "404 page not found\n"), Some(Hop::Traefik)),
            (answer(502, &[], "Bad Gateway"), Some(Hop::Traefik)),
            (answer(521, &[("Server", "cloudflare"), ("CF-RAY", "1-FRA")], ""), Some(Hop::Cloudflare)),
            (answer(502, &[("Server", "awselb/2.0")], ""), None),
            (answer(200, &[], "OK\n"), None),
        ];
        for (answer, expected) in cases {
            assert_eq!(hop(&answer), expected, "{answer:?}");
        }
    }

    /// R-DIAG-2: behind Cloudflare the origin's own proxy is the one to configure, and `--proxy` overrides both.
    #[test]
    fn the_nearest_hop_decides() {
        let mut hops = Hops::default();
        hops.note(&answer(200, &[("Server", "cloudflare"), ("cf-ray", "1")], ""));
        assert_eq!((hops.nearest(), hops.names()), (Some(Hop::Cloudflare), vec!["Cloudflare".to_owned()]));
        hops.note(&answer(502, &[("Server", "nginx")], ""));
        assert_eq!(hops.nearest(), Some(Hop::Nginx));
        hops.given = Some(Hop::Haproxy);
        assert_eq!(hops.nearest(), Some(Hop::Haproxy));
    }

    /// R-DIAG-2, R-ERR-1: Relay's answers are distinguished from a hop's.
    #[test]
    fn relay_is_recognized() {
        let json = r#"{"error":"unauthorized","message":"The query parameter auth_key is missing."}"#;
        assert!(relay_says(&answer(401, &[], json)).is_some_and(|text| text.contains("auth_key")));
        assert_eq!(relay_says(&answer(426, &[], "This path is for WebSockets")).as_deref(), Some(RELAY_TEXTS[2]));
        for other in ["", "{}", "<html>OK", r#"{"error":"x"}"#, "Bad Gateway"] {
            assert_eq!(relay_says(&answer(404, &[], other)), None, "{other}");
        }
    }
}
