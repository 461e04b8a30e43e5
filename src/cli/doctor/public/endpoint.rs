//! The user's own auth endpoint, asked as pusher-js asks it (P-AUTH-7), and its answer tried on an open WebSocket.

use std::fs;
use std::time::Instant;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::api::random_name;
use super::connection::ConnectError;
use super::http::{Answer, Ask, AskError};
use super::signature::{Signed, cause};
use super::target::Target;
use super::upgrade::{Client, FRAME_TIME, how};
use super::websocket::Arrived;
use super::{Examination, Finding, State, describe, kind_of_body};

const COST: &str = "no client joins a private or presence channel";
/// A 200 that is no signature (R-PIT-1).
const RETRY_COST: &str = "SDKs take 200 for success: the subscription fails, and some repeat the request for ever";

/// The endpoint, and how to ask it.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) target: Target,
    /// Path and query.
    path: String,
    pub(super) channel: String,
    /// Headers of a signed-in user; empty if none were given.
    pub(super) headers: Vec<(String, String)>,
}

/// An answer in the form that clients expect.
#[derive(Debug, PartialEq)]
struct Authorization {
    auth: String,
    channel_data: Option<String>,
}

impl Endpoint {
    /// Checks the flags.
    ///
    /// # Errors
    /// The flag, and a phrase that names the expectation.
    pub(super) fn new(url: &str, channel: &str, headers: &[String]) -> Result<Self, (&'static str, String)> {
        let (target, query) = Target::parse_with_query(url).map_err(|error| ("--auth", error))?;
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let path = format!("{}{query}", if target.prefix.is_empty() { "/" } else { &target.prefix });
        if !["private-", "presence-"].iter().any(|prefix| channel.starts_with(prefix)) {
            return Err(("--channel", "must begin with private- or presence-: others need no signature".to_owned()));
        }
        let mut parsed = Vec::new();
        for header in headers {
            let lines = match header.strip_prefix('@') {
                Some(file) => fs::read_to_string(file)
                    .map_err(|error| ("--auth-header", format!("cannot read {file}: {error}")))?,
                None => header.clone(),
            };
            for line in lines.lines().filter(|line| !line.trim().is_empty()) {
                parsed.push(parse_header(line).ok_or_else(|| {
                    ("--auth-header", "must have the form `Name: value`, or @FILE with such lines".to_owned())
                })?);
            }
        }
        Ok(Self { target, path, channel: channel.to_owned(), headers: parsed })
    }

    pub(super) fn origin(&self) -> String {
        self.target.origin()
    }

    pub(super) fn url(&self) -> String {
        format!("{}{}", self.target.origin(), self.path)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

/// `Name: value`, without characters that would end the header.
fn parse_header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let (name, value) = (name.trim(), value.trim());
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&byte);
    let is_whole = !name.is_empty() && name.bytes().all(is_token) && !value.chars().any(char::is_control);
    is_whole.then(|| (name.to_owned(), value.to_owned()))
}

impl Examination {
    /// The endpoint for a stranger, for the user whose headers were given, and for the browser's CORS.
    pub(super) fn check_endpoint(&mut self, endpoint: &Endpoint, client: Option<&mut Client>) {
        let socket_id = client.as_ref().map_or("1.1", |client| client.socket_id.as_str()).to_owned();
        let anonymous = format!("private-relay-doctor-{}", random_name());
        let stranger = match self.ask_endpoint(endpoint, &socket_id, &anonymous, &[]) {
            Ok(answer) => answer,
            Err(error) => return self.report_unreachable(endpoint, &error),
        };
        self.check_cors(endpoint, &stranger);
        let signs_for_strangers = authorization(&stranger, &anonymous).is_ok();
        if signs_for_strangers {
            let found = format!("signs {anonymous} for a request without a login");
            let cost = "everybody may join every channel, and read what is published there (R-PIT-5)";
            let fix = "check the session first, then whether this user may join this channel: docs/recipes";
            self.add(Finding::of(State::Problem, "auth_login", found, cost, fix));
        } else if matches!(stranger.status, 401 | 403) {
            self.ok("auth_login", format!("refuses a request without a login with {}", stranger.status));
        }
        let (answer, channel) = if endpoint.headers.is_empty() {
            if matches!(stranger.status, 401 | 403) && !mentions_csrf(&stranger) {
                self.skip("auth_answer", "needs a user: --auth-header 'Cookie: ...' (or @FILE) and --channel NAME");
                return;
            }
            (stranger, anonymous)
        } else {
            let headers: Vec<(&str, &str)> =
                endpoint.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            match self.ask_endpoint(endpoint, &socket_id, &endpoint.channel, &headers) {
                Ok(answer) => (answer, endpoint.channel.clone()),
                Err(error) => return self.report_unreachable(endpoint, &error),
            }
        };
        match authorization(&answer, &channel) {
            Ok(authorization) => {
                self.ok("auth_answer", format!("200 with a signature for {channel}"));
                self.check_signature(&authorization, &socket_id, &channel, client);
            }
            Err((found, cost, fix)) => {
                self.add(Finding::of(State::Problem, "auth_answer", found, cost, fix));
            }
        }
    }

    /// The request of pusher-js: a form, and the page's origin.
    fn ask_endpoint(
        &self,
        endpoint: &Endpoint,
        socket_id: &str,
        channel: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, AskError> {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let body = format!("socket_id={}&channel_name={}", encode(socket_id), encode(channel));
        let origin = self.origin.clone().unwrap_or_else(|| endpoint.origin());
        let mut all = vec![("Content-Type", "application/x-www-form-urlencoded"), ("Origin", origin.as_str())];
        all.extend_from_slice(headers);
        let ask = Ask { method: "POST", path: endpoint.path(), headers: &all, body: body.as_bytes() };
        self.connector.ask(&endpoint.target, &ask)
    }

    fn report_unreachable(&mut self, endpoint: &Endpoint, error: &AskError) {
        let check = "auth_endpoint";
        match error {
            AskError::Connect(ConnectError::Tls(error)) => self.report_tls(check, &endpoint.target, error),
            error @ (AskError::Connect(_) | AskError::Closed(_) | AskError::TimedOut | AskError::NotHttp(_)) => {
                let found = format!("no answer from {}: {}", endpoint.url(), describe(error));
                let fix = "start the application, or correct --auth and `authEndpoint` of the clients";
                self.add(Finding::of(State::Problem, check, found, COST, fix));
            }
        }
    }

    /// Relay's own verdict, and where the secret is known the mistake behind a refusal.
    fn check_signature(
        &mut self,
        authorization: &Authorization,
        socket_id: &str,
        channel: &str,
        client: Option<&mut Client>,
    ) {
        let check = "auth_signature";
        let signed = Signed {
            socket_id,
            channel,
            channel_data: authorization.channel_data.as_deref(),
            auth: &authorization.auth,
        };
        let Some(Client { socket, .. }) = client else {
            return match (self.access.pairs.is_empty(), cause(&self.access.pairs, &signed)) {
                (true, _) => self.skip(check, "needs an open WebSocket or the app's secret"),
                (false, None) => self.ok(check, "is right for the app's secret; no WebSocket was open to try it"),
                (false, Some((found, fix))) => self.add(Finding::of(State::Problem, check, found, COST, fix)),
            };
        };
        let mut data = json!({"channel": channel, "auth": authorization.auth});
        if let Some(channel_data) = &authorization.channel_data {
            data["channel_data"] = channel_data.as_str().into();
        }
        socket.send(&json!({"event": "pusher:subscribe", "data": data}));
        let deadline = Instant::now() + FRAME_TIME;
        match socket.next_message(deadline) {
            Arrived::Json(frame) if frame["event"] == "pusher_internal:subscription_succeeded" => {
                self.ok(check, format!("Relay accepts it: subscribed to {channel}"));
            }
            Arrived::Json(frame) if frame["event"] == "pusher:error" => {
                let said = frame["data"]["message"].as_str().unwrap_or_default();
                let known = (!self.access.pairs.is_empty()).then(|| cause(&self.access.pairs, &signed)).flatten();
                let (found, fix) = known.unwrap_or_else(|| {
                    let found = format!("Relay refuses it: {}", shorten(said));
                    let fix = if said.starts_with("Invalid key") {
                        "use the key and secret of this app: compare with `relay app show ID`"
                    } else {
                        "sign exactly socket_id:channel_name (presence: and :channel_data) with the secret of the key; \
                         with --app ID the doctor names the mistake"
                    };
                    (found, fix.to_owned())
                });
                self.add(Finding::of(State::Problem, check, found, COST, fix));
            }
            arrived @ (Arrived::Json(_)
            | Arrived::Control
            | Arrived::Close(..)
            | Arrived::Ended(_)
            | Arrived::Nothing) => {
                let found = format!("the subscription is not answered: {}", how(&arrived));
                self.add(Finding::of(State::Problem, check, found, COST, "run it again, and look at Relay's log"));
            }
        }
    }
}

/// The answer as clients need it, or what is wrong with it: found, cost and fix.
fn authorization(answer: &Answer, channel: &str) -> Result<Authorization, (String, &'static str, String)> {
    if answer.status != 200 {
        let (found, fix) = refusal(answer);
        return Err((found, COST, fix.to_owned()));
    }
    let wrong = |found: &str, fix: &str| Err((found.to_owned(), RETRY_COST, fix.to_owned()));
    if answer.body.is_empty() {
        return wrong(
            "200 with an empty body (R-PIT-1)",
            "answer a signature or 403; Laravel: BROADCAST_CONNECTION=pusher, since `log` and `null` answer so",
        );
    }
    let Some(json) = answer.json() else {
        return wrong(
            &format!(
                "200 with {} instead of JSON (R-PIT-1)",
                kind_of_body(answer).replace(" of another application", "")
            ),
            "this is a login page or the application's index: correct the path, and let the route answer 401 or 403 \
             without a session",
        );
    };
    let Some(auth) = json.get("auth") else {
        let inside = json.as_object().and_then(|object| object.iter().find(|(_, value)| value.get("auth").is_some()));
        return match inside {
            Some((name, _)) => wrong(
                &format!("the signature is inside of `{name}`"),
                "answer {\"auth\": \"KEY:SIGNATURE\"} at the top level, without a wrapper",
            ),
            None => wrong("200 with JSON that has no `auth` (R-PIT-1)", "answer {\"auth\": \"KEY:SIGNATURE\"}, or 403"),
        };
    };
    let Some(auth) = auth.as_str().filter(|auth| auth.contains(':')) else {
        return wrong("`auth` is not text of the form KEY:SIGNATURE", "answer {\"auth\": \"KEY:SIGNATURE\"}");
    };
    let channel_data = match json.get("channel_data") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => {
            return wrong(
                "`channel_data` is an object and not text (R-PIT-2)",
                "answer the very string that was signed: encode it once and use that twice",
            );
        }
    };
    if channel.starts_with("presence-") && channel_data.is_none() {
        return wrong(
            "no `channel_data` for a presence channel (R-PIT-2)",
            "sign socket_id:channel_name:channel_data and answer that channel_data",
        );
    }
    Ok(Authorization { auth: auth.to_owned(), channel_data })
}

/// A status other than 200: found and fix.
fn refusal(answer: &Answer) -> (String, &'static str) {
    let status = answer.status;
    match status {
        419 => (format!("{status}: the CSRF check of the application refuses it"), CSRF_FIX),
        400 | 401 | 403 | 422 if mentions_csrf(answer) => {
            (format!("{status}: the CSRF check of the application refuses it"), CSRF_FIX)
        }
        301 | 302 | 303 | 307 | 308 => redirect(answer),
        401 | 403 => (
            format!("{status} for this user and channel"),
            "check the headers of --auth-header, and whether this user may join --channel; Laravel: \
             routes/channels.php, without the prefix private- or presence-",
        ),
        404 => (
            "404: no such route".to_owned(),
            "correct the path; Laravel: `php artisan install:broadcasting`, or Broadcast::routes(), serves \
             /broadcasting/auth",
        ),
        405 => ("405: the route does not accept POST".to_owned(), "register the route for POST"),
        400 | 415 | 422 => (
            format!("{status}: the route does not accept a form"),
            "read socket_id and channel_name from an application/x-www-form-urlencoded body (Express: \
             express.urlencoded)",
        ),
        429 => ("429: the application limits requests".to_owned(), "exempt this route: a page asks once per channel"),
        500.. => (format!("{status}: the application fails"), "see the application's log"),
        _ => (format!("{status} and no signature"), "answer 200 with {\"auth\": ...}, or 403"),
    }
}

const CSRF_FIX: &str = "send the token: channelAuthorization.headersProvider with X-CSRF-TOKEN (Laravel, Rails) or \
                        X-CSRFToken (Django); or exempt the route (Laravel: validateCsrfTokens(except: \
                        ['broadcasting/auth']), Django: @csrf_exempt)";

fn redirect(answer: &Answer) -> (String, &'static str) {
    let location = answer.header("location").unwrap_or_default();
    let found = format!("{} redirects to {}", answer.status, shorten(location));
    let lower = location.to_ascii_lowercase();
    let is_login = ["login", "signin", "sign_in", "sign-in", "sso", "oauth"].iter().any(|word| lower.contains(word));
    let fix = if is_login {
        "the browser follows it and gets the login page with 200: let the route answer 401 without a session \
         (Laravel: redirectGuestsTo, or send `Accept: application/json`)"
    } else {
        "use the URL that it redirects to: a browser repeats a POST as GET"
    };
    (found, fix)
}

/// Whether a refusal is about a missing CSRF token.
fn mentions_csrf(answer: &Answer) -> bool {
    let text = answer.text().to_ascii_lowercase();
    ["csrf", "authenticity token", "authenticitytoken", "xsrf", "page expired"].iter().any(|word| text.contains(word))
}

/// Text of a peer for a report.
fn shorten(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(200).collect()
}

#[cfg(test)]
mod tests;
