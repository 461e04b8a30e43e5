//! The `relay` command line as a test calls it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::sign::App;

/// The binary under test: `RELAY_TEST_BINARY` where set, else the one cargo built beside the tests.
pub fn binary() -> String {
    std::env::var("RELAY_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_relay").to_owned())
}

/// A command that inherits no variable that `relay` reads. A server that it starts has no admin API unless a flag names
/// its address: tests listen on ports of their own.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["RELAY_", "SOKETI_", "PUSHER_", "REVERB_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.env("RELAY_ADMIN_LISTEN", "off");
    command
}

/// Runs `relay` to its end.
pub fn run(arguments: &[&str]) -> Output {
    command(binary()).args(arguments).output().expect("the binary starts")
}

/// Runs `relay`, which must succeed and print only JSON on standard output.
#[track_caller]
pub fn run_json(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(output.status.success(), "relay {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&output.stdout)))
}

/// `relay app create`, then `relay app set` for each setting.
#[track_caller]
pub fn create_app(data: &Path, settings: &[&str]) -> App {
    let directory = data.to_str().expect("a UTF-8 path");
    let made = run_json(&["app", "create", "--data", directory, "--json"]);
    let member = |name: &str| {
        let found = made.get(name).or_else(|| made.pointer(&format!("/keys/0/{name}")));
        found.and_then(Value::as_str).unwrap_or_else(|| panic!("`{name}` in {made}")).to_owned()
    };
    let app = App { id: member("id"), key: member("key"), secret: member("secret") };
    if !settings.is_empty() {
        set_app(data, &app, settings);
    }
    app
}

/// `relay app set ID key=value...`.
#[track_caller]
pub fn set_app(data: &Path, app: &App, settings: &[&str]) {
    let directory = data.to_str().expect("a UTF-8 path");
    for setting in settings {
        run_json(&["app", "set", &app.id, setting, "--data", directory, "--json"]);
    }
}

/// A token, which the command line shows once.
#[derive(Clone, Debug)]
pub struct CreatedToken {
    /// Its public id.
    pub id: String,
    /// The token itself, `rly_...`.
    pub token: String,
}

/// `relay token create --app ID`, with further arguments such as `--scopes`.
#[track_caller]
pub fn create_token(data: &Path, app: &App, more: &[&str]) -> CreatedToken {
    let directory = data.to_str().expect("a UTF-8 path");
    let mut arguments = vec!["token", "create", "--app", &app.id, "--data", directory, "--json"];
    arguments.extend_from_slice(more);
    let made = run_json(&arguments);
    let member = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("`{name}` in {made}")).to_owned();
    CreatedToken { id: member("id"), token: member("token") }
}

/// `relay webhook add --app ID` with further arguments such as `--url`; returns the printed JSON.
#[track_caller]
pub fn add_webhook(data: &Path, app: &App, more: &[&str]) -> Value {
    let directory = data.to_str().expect("a UTF-8 path");
    let mut arguments = vec!["webhook", "add", "--app", &app.id, "--data", directory, "--json"];
    arguments.extend_from_slice(more);
    run_json(&arguments)
}
