//! `relay explain`: why a subscription, a signin or a request was refused (R-EXPLAIN rules).

mod curl;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde_json::Value;

use super::place::{Place, text as field};
use super::remote::RemoteArguments;
use super::{CommandError, StoreArguments};
use crate::admin::Operation;
use crate::admin::call::Call;
use crate::auth::explain::Fields;
use crate::limits::EXPLAIN_BODY_BYTES_MAX;

/// Explain why a subscription, a signin or a request is refused, and what to change.
///
/// For a subscription: --socket-id, --channel, --auth, and --channel-data of a presence channel. For a signin:
/// --socket-id, --user-data, --auth. For a request: --method, --url, its --header and its body; or a line of curl.
/// Works on the store, with the keys of the app; with --server on a running server, which also explains the refusals of
/// its log by --refusal.
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
    /// A refusal of the last 10 minutes by the `refusal_id` of its line in the log; needs --server.
    #[arg(long, value_name = "ID", conflicts_with_all = ["method", "url", "header", "body", "body_file", "socket_id", "curl"])]
    refusal: Option<String>,
    #[command(flatten)]
    store: StoreArguments,
}

impl ExplainArguments {
    fn asks(&self) -> bool {
        self.socket_id.is_some() || self.url.is_some() || self.curl.is_some() || self.refusal.is_some()
    }
}

pub(super) fn run(arguments: ExplainArguments, remote: &RemoteArguments) -> Result<(), CommandError> {
    let store = arguments.store.clone();
    if arguments.refusal.is_some() && remote.server.is_none() {
        let url = store.served_url()?.unwrap_or_else(|| "URL".to_owned());
        return Err(CommandError::Usage(format!(
            "--refusal needs the running server, which keeps the refusals of its log: add --server {url}"
        )));
    }
    if !arguments.asks() {
        return Err(CommandError::Usage(
            "give --socket-id, --channel and --auth for a subscription, --url for a request, or --curl; or \
             --refusal for one of the log: see relay explain --help"
                .to_owned(),
        ));
    }
    let place = Place::new(store, remote)?;
    let (fields, body) = fields_of(arguments)?;
    let mut fields = fields.given();
    if let Some(body) = body {
        fields.insert("body_base64".to_owned(), BASE64.encode(body).into());
    }
    let answer = place.call_with(Call::new(Operation::Explain), fields)?;
    place.answer(&answer, &text(&answer))
}

/// The question, and a body that is not text.
fn fields_of(arguments: ExplainArguments) -> Result<(Fields, Option<Vec<u8>>), CommandError> {
    let ExplainArguments { app, socket_id, channel, auth, channel_data, user_data, method, url, body, .. } = arguments;
    let mut fields = match &arguments.curl {
        Some(line) if line == "-" => curl::parse(&text_of(Path::new("-"))?).map_err(CommandError::Usage)?,
        Some(line) => curl::parse(line).map_err(CommandError::Usage)?,
        None => Fields {
            socket_id,
            channel,
            auth,
            channel_data,
            user_data,
            path: url,
            body,
            refusal_id: arguments.refusal.clone(),
            ..Fields::default()
        },
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

/// The answer for people.
fn text(answer: &Value) -> String {
    let mut shown = String::new();
    for name in ["verdict", "cause", "hint"] {
        let value = field(answer, name);
        if !value.is_empty() {
            writeln!(shown, "{name:<8} {}", printable(value)).expect("a string takes text");
        }
    }
    if !field(answer, "other_app").is_empty() {
        writeln!(shown, "app      {} (the other one)", printable(field(answer, "other_app")))
            .expect("a string takes text");
    }
    for (heading, name) in
        [("Relay expects this to be signed:", "expected_string_to_sign"), ("This was signed:", "signed_string")]
    {
        let Some(lines) = answer[name].as_str() else { continue };
        writeln!(shown, "\n{heading}").expect("a string takes text");
        for line in lines.split('\n') {
            writeln!(shown, "    {}", printable(line)).expect("a string takes text");
        }
    }
    shown
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
