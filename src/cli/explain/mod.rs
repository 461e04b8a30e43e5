//! `relay explain`: why a subscription, a signin or a request was refused (R-EXPLAIN rules).

mod curl;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{CommandError, StoreArguments};
use crate::app::{App, Directory};
use crate::auth::explain::{Answer, Asked, Fields, Question, Reader, State, Subject, explain};
use crate::label::Label;
use crate::limits::EXPLAIN_BODY_BYTES_MAX;
use crate::moment::Moment;
use crate::store::{Missing, unix_ms};
use crate::wire::query::Query;

/// Explain why a subscription, a signin or a request is refused, and what to change.
///
/// For a subscription: --socket-id, --channel, --auth, and --channel-data of a presence channel. For a signin:
/// --socket-id, --user-data, --auth. For a request: --method, --url, its --header and its body; or a line of curl.
/// Works on the store, with the keys of the app.
#[derive(Args, Debug)]
pub(super) struct ExplainArguments {
    /// Id of the app [default: the one that the key or the path names].
    #[arg(long, value_name = "ID")]
    app: Option<String>,
    /// Socket id of the connection, such as 1234.5678.
    #[arg(long, value_name = "ID")]
    socket_id: Option<String>,
    /// Name of the channel.
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// `auth` as your endpoint returned it: KEY:SIGNATURE.
    #[arg(long, value_name = "TEXT")]
    auth: Option<String>,
    /// `channel_data` exactly as it is sent.
    #[arg(long, value_name = "JSON")]
    channel_data: Option<String>,
    /// `user_data` of a signin exactly as it is sent.
    #[arg(long, value_name = "JSON")]
    user_data: Option<String>,
    /// Method of the request.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// URL of the request with its query, or its path.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A header of the request, such as "Host: example.com"; may be repeated.
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,
    /// Body of the request.
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    body: Option<String>,
    /// File with the body of the request; - is standard input.
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// The request as a line of curl; - reads the line from standard input.
    #[arg(long, value_name = "LINE", conflicts_with_all = ["method", "url", "header", "body", "socket_id"])]
    curl: Option<String>,
    #[command(flatten)]
    store: StoreArguments,
}

impl ExplainArguments {
    fn asks(&self) -> bool {
        self.socket_id.is_some() || self.url.is_some() || self.curl.is_some()
    }
}

pub(super) fn run(arguments: ExplainArguments) -> Result<(), CommandError> {
    let store = arguments.store.clone();
    if !arguments.asks() {
        return Err(CommandError::Usage(
            "give --socket-id, --channel and --auth for a subscription, --url for a request, or --curl: see relay explain --help"
                .to_owned(),
        ));
    }
    let path_prefix = store.settings()?.text("path_prefix").unwrap_or_default().trim_end_matches('/').to_owned();
    let (fields, body) = fields_of(arguments)?;
    let asked = fields.into_asked().map_err(|error| CommandError::Usage(error.to_string()))?;
    let Asked { app_id, subject: Subject::Question(mut question) } = asked else {
        return Err(CommandError::Usage("a refusal is explained by the running server".to_owned()));
    };
    if let (Question::Request { body: sent, .. }, Some(bytes)) = (&mut question, body) {
        *sent = Some(bytes);
    }
    let directory = store.open(Missing::Refuse)?.directory()?;
    let app = app_of(&directory, app_id.as_deref(), &question)?;
    let now = Moment { monotonic_ms: 0, unix_ms: unix_ms() };
    let answer = explain(&State { directory: &directory, app, path_prefix: &path_prefix, now }, &question);
    store.answer(&answer.to_json(Reader::Admin), &text(&answer))
}

/// The question, and a body that is not text.
fn fields_of(arguments: ExplainArguments) -> Result<(Fields, Option<Vec<u8>>), CommandError> {
    let ExplainArguments { app, socket_id, channel, auth, channel_data, user_data, method, url, body, .. } = arguments;
    let mut fields = match &arguments.curl {
        Some(line) if line == "-" => curl::parse(&text_of(Path::new("-"))?).map_err(CommandError::Usage)?,
        Some(line) => curl::parse(line).map_err(CommandError::Usage)?,
        None => Fields { socket_id, channel, auth, channel_data, user_data, path: url, body, ..Fields::default() },
    };
    let is_request = fields.path.is_some();
    let default = if fields.body.is_some() || arguments.body_file.is_some() { "POST" } else { "GET" };
    fields.method = method.or(fields.method).or(is_request.then(|| default.to_owned()));
    if !arguments.header.is_empty() {
        let headers: Option<BTreeMap<String, String>> = arguments.header.iter().map(|line| header(line)).collect();
        let usage =
            || CommandError::Usage("--header takes a name and a value, such as \"Host: example.com\"".to_owned());
        fields.headers = Some(headers.ok_or_else(usage)?);
    }
    fields.app_id = app;
    let body = arguments.body_file.as_deref().map(bytes_of).transpose()?;
    Ok((fields, body))
}

/// Name and value of a header line.
fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().to_owned(), value.trim().to_owned()))
}

/// The bytes of a file or of standard input.
fn bytes_of(path: &Path) -> Result<Vec<u8>, CommandError> {
    let read = |input: &mut dyn Read| {
        let mut bytes = Vec::new();
        input.take(EXPLAIN_BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = if path == Path::new("-") {
        read(&mut std::io::stdin().lock())
    } else {
        std::fs::File::open(path).and_then(|mut file| read(&mut file))
    };
    let bytes = bytes.map_err(|error| CommandError::Usage(format!("cannot read {}: {error}", path.display())))?;
    if bytes.len() > EXPLAIN_BODY_BYTES_MAX {
        let text = format!(
            "{} has more than {EXPLAIN_BODY_BYTES_MAX} bytes, the longest body that is explained",
            path.display()
        );
        return Err(CommandError::Usage(text));
    }
    Ok(bytes)
}

fn text_of(path: &Path) -> Result<String, CommandError> {
    String::from_utf8(bytes_of(path)?).map_err(|_| CommandError::Usage("the line of curl is not UTF-8".to_owned()))
}

/// The app that is meant: the one given, or else the one that the path or the key names, or else the only one.
fn app_of<'a>(directory: &'a Directory, id: Option<&str>, question: &Question) -> Result<&'a App, CommandError> {
    if let Some(id) = id {
        let unknown = || CommandError::Store(crate::store::StoreError::UnknownApp(id.to_owned()));
        return directory.app_by_id(id).map(|app| &**app).ok_or_else(unknown);
    }
    let named = match question {
        Question::Channel { auth, .. } | Question::User { auth, .. } => {
            auth.rsplit_once(':').and_then(|(key, _)| app_of_key(directory, key))
        }
        Question::Request { target, headers, .. } => {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let id = path.split_once("/apps/").and_then(|(_, rest)| rest.split('/').next());
            let key = Query::new(Some(query)).first("auth_key").map(std::borrow::Cow::into_owned);
            let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("X-Relay-Key"));
            let key = key.or(header.map(|(_, value)| value.clone()));
            id.and_then(|id| directory.app_by_id(id)).or_else(|| app_of_key(directory, key.as_deref()?))
        }
    };
    let mut apps = directory.apps();
    match (named, apps.next(), apps.next()) {
        (Some(app), ..) | (None, Some(app), None) => Ok(app),
        (None, ..) => Err(CommandError::Usage(
            "no app has this key or id: name the app with --app ID (`relay app list` shows all)".to_owned(),
        )),
    }
}

/// The app with this key, or with this secret in the place of the key.
fn app_of_key<'a>(directory: &'a Directory, key: &str) -> Option<&'a Arc<App>> {
    let bare = key.trim_matches(|c: char| !c.is_alphanumeric());
    let has_secret = |app: &&Arc<App>| app.keys.iter().any(|pair| pair.secret.matches(bare.as_bytes()));
    directory.app_by_key(bare).or_else(|| directory.apps().find(has_secret))
}

/// The answer for people.
fn text(answer: &Answer) -> String {
    let mut text = format!(
        "verdict  {}\ncause    {}\nhint     {}\n",
        answer.verdict.label(),
        answer.cause.label(),
        printable(&answer.hint(Reader::Admin))
    );
    if let Some(app) = &answer.other_app {
        writeln!(text, "app      {} (the other one)", printable(app)).expect("a string takes text");
    }
    for (heading, lines) in
        [("Relay expects this to be signed:", &answer.expected), ("This was signed:", &answer.signed)]
    {
        let Some(lines) = lines else { continue };
        writeln!(text, "\n{heading}").expect("a string takes text");
        for line in lines.split('\n') {
            writeln!(text, "    {}", printable(line)).expect("a string takes text");
        }
    }
    text
}

/// A terminal executes control characters, and some characters change the direction of the text after them.
fn printable(line: &str) -> String {
    let mut safe = String::with_capacity(line.len());
    for character in line.chars() {
        let is_format =
            matches!(character, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || is_format {
            safe.extend(character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    safe
}
