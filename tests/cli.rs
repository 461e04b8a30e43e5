//! The command line as operators and scripts use it: what is printed where, exit codes, and what is refused.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sha2::{Digest, Sha256};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Runs the binary with these variables only, in a directory of its own.
fn run_with(arguments: &[&str], environment: &[(&str, &str)], directory: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.current_dir(directory).stdin(Stdio::null()).output().expect("runs")
}

/// Runs a command on the store in `data`.
fn run(arguments: &[&str], data: &Path) -> Output {
    let data_text = data.to_str().expect("text");
    run_with(&[arguments, &["--data", data_text]].concat(), &[], data)
}

fn json(arguments: &[&str], data: &Path) -> Value {
    let output = run(&[arguments, &["--json"]].concat(), data);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("standard output is JSON and nothing else")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// Asserts a refusal: this exit code, nothing on standard output, one line on standard error that has every part.
fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(output.stdout.is_empty(), "{}", stdout(output));
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

/// R-ADMIN-1, P-SDK-22: the life of an app, in JSON; secrets are shown at creation and when asked for, never in a list.
#[test]
fn the_life_of_an_app() {
    let data = directory();
    let data = data.path();
    let app = json(&["app", "create", "--name", "Shop", "client_events=true"], data);
    let text = |value: &Value, name: &str| value[name].as_str().expect(name).to_owned();
    let (id, key, secret) = (text(&app, "id"), text(&app, "key"), text(&app, "secret"));
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    assert!(key.len() == 20 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{key}");
    assert!(secret.len() >= 20, "{secret}");
    assert_eq!(app["settings"]["client_events"], true);

    for arguments in
        [&["app", "list"][..], &["app", "show", &id], &["app", "list", "--json"], &["app", "show", &id, "--json"]]
    {
        let shown = stdout(&run(arguments, data));
        assert!(shown.contains(&key) && !shown.contains(&secret), "{arguments:?}: {shown}");
    }
    assert_eq!(json(&["app", "show", &id, "--secrets"], data)["keys"][0]["secret"], secret.as_str());

    let app = json(&["app", "set", &id, "max_connections=5", "name=Store"], data);
    assert_eq!((&app["settings"]["max_connections"], &app["name"]), (&5.into(), &"Store".into()));

    let pair = json(&["app", "rotate", &id], data);
    assert_ne!(pair["key"], key.as_str());
    assert_eq!(json(&["app", "list"], data)[0]["keys"], serde_json::json!([key, pair["key"]]));
    assert_eq!(json(&["app", "rotate", &id, "--remove-old"], data)["removed"], serde_json::json!([key]));
    assert_refused(&run(&["app", "remove-key", &id, pair["key"].as_str().expect("key")], data), 1, &["only key"]);

    assert_eq!(json(&["app", "disable", &id], data)["enabled"], false);
    assert_eq!(json(&["app", "enable", &id], data)["enabled"], true);
    assert_eq!(json(&["app", "delete", &id], data)["deleted"], true);
    assert_eq!(json(&["app", "list"], data), serde_json::json!([]));
    assert_refused(&run(&["app", "show", &id], data), 1, &["no app with id", "relay app list"]);
}

/// R-TOKEN-1, R-TOKEN-2, R-TOKEN-5: a token is shown once, lists have its id and never the token or its hash, and a
/// revoked one says since when.
#[test]
fn the_life_of_a_token() {
    let data = directory();
    let data = data.path();
    json(&["app", "create", "--id", "7"], data);
    let arguments = [
        "token",
        "create",
        "--app",
        "7",
        "--name",
        "ci",
        "--scopes",
        "events:publish, events:batch",
        "--expires-in",
        "30d",
    ];
    let created = json(&arguments, data);
    let token = created["token"].as_str().expect("token");
    let tail = token.strip_prefix("rly_").expect("prefix");
    assert!(tail.len() == 40 && tail.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{token}");
    assert_eq!(created["app"], "7");
    assert!(created["expires_at"].as_str().expect("time").ends_with('Z'));

    let listed = json(&["token", "list"], data);
    assert_eq!(listed[0]["id"], created["id"]);
    assert_eq!(listed[0]["scopes"], serde_json::json!(["events:publish", "events:batch"]));
    let hash = hex::encode(Sha256::digest(token.as_bytes()));
    for arguments in [&["token", "list"][..], &["token", "list", "--json"], &["token", "list", "--app", "7"]] {
        let shown = stdout(&run(arguments, data));
        assert!(shown.contains(created["id"].as_str().expect("id")), "{shown}");
        assert!(!shown.contains(token) && !shown.contains(tail) && !shown.contains(&hash), "{shown}");
    }
    let id = created["id"].as_str().expect("id");
    assert!(json(&["token", "revoke", id], data)["revoked_at"].is_string());
    assert!(stdout(&run(&["token", "list"], data)).contains("revoked"));
}

/// R30: bad values of commands name the expectation or the nearest name, exit with 2, and change nothing.
#[test]
fn bad_values_are_refused() {
    let data = directory();
    let data = data.path();
    json(&["app", "create", "--id", "7"], data);
    let before = (json(&["app", "list"], data), json(&["token", "list"], data));
    let cases: [(&[&str], &[&str]); 10] = [
        (&["app", "set", "7", "client_event=true"], &["client_event", "did you mean \"client_events\"?"]),
        (&["app", "set", "7", "max_connections=many"], &["max_connections", "0 to 4294967295", "\"many\""]),
        (&["app", "set", "7", "name=x", "client_events=maybe"], &["true or false"]),
        (&["app", "set", "7", "client_events"], &["KEY=VALUE"]),
        (&["app", "create", "--id", "a b"], &["app id", "1 to 64"]),
        (&["app", "create", "--key", "a:b"], &["app key"]),
        (&["app", "create", "--secret", "two words"], &["app secret", "without spaces"]),
        (&["token", "create", "--app", "7", "--scopes", "events:publsh"], &["did you mean \"events:publish\"?"]),
        (&["token", "create", "--app", "7", "--expires-at", "tomorrow"], &["--expires-at", "2027-01-31T00:00:00Z"]),
        (&["token", "create", "--app", "7", "--expires-at", "2020-01-01T00:00:00Z"], &["past"]),
    ];
    for (arguments, parts) in cases {
        assert_refused(&run(arguments, data), 2, parts);
    }
    assert!(!stderr(&run(&["app", "create", "--secret", "two words"], data)).contains("two words"));
    assert_eq!(before, (json(&["app", "list"], data), json(&["token", "list"], data)));
}

/// R30: a data directory that is not there names `--data`; so does the default one.
#[test]
fn a_missing_directory_is_told() {
    let place = directory();
    let absent = place.path().join("absent");
    let absent = absent.to_str().expect("text");
    for arguments in [&["app", "list"][..], &["app", "create"], &["token", "list"], &["token", "revoke", "x"]] {
        let output = run_with(&[arguments, &["--data", absent, "--json"]].concat(), &[], place.path());
        assert_refused(&output, 1, &[absent, "--data"]);
        let output = run_with(arguments, &[("RELAY_DATA", absent)], place.path());
        assert_refused(&output, 1, &[absent, "--data"]);
    }
}

/// Flags beat the environment, which beats relay.toml, which beats defaults; the same name everywhere.
#[test]
fn flags_beat_environment_beat_file() {
    let place = directory();
    let file = "listen = \"127.0.0.3:1\"\nshards = 3\nmetrics_listen = \"127.0.0.3:2\"\ndata = \"from-file\"\n";
    std::fs::write(place.path().join("relay.toml"), file).expect("file");
    let environment = [("RELAY_LISTEN", "127.0.0.2:1"), ("RELAY_SHARDS", "2")];
    let output = run_with(&["check-config", "--listen", "127.0.0.1:1"], &environment, place.path());
    let told = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    for part in ["listen 127.0.0.1:1,", "2 shards", "health 127.0.0.3:2", "data from-file", "relay.toml"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let other = place.path().join("other.toml");
    std::fs::write(&other, "shards = 7").expect("file");
    let output = run_with(&["check-config", "--config", "other.toml"], &[], place.path());
    assert!(stdout(&output).contains("7 shards"));
    let output = run_with(&["check-config"], &[("RELAY_CONFIG", "other.toml")], place.path());
    assert!(stdout(&output).contains("7 shards"));
}

/// R30: every bad flag, variable and file setting is one line that names its source and what it takes, exit code 2.
#[test]
fn bad_configuration_is_refused() {
    let place = directory();
    let flags: [(&[&str], &[&str]); 15] = [
        (&["--listen", "nowhere"], &["--listen", "127.0.0.1:6001", "\"nowhere\""]),
        (&["--listen", "127.0.0.1"], &["--listen"]),
        (&["--metrics-listen", ":9601"], &["--metrics-listen"]),
        (&["--shards", "0"], &["--shards", "1 to 256"]),
        (&["--shards", "257"], &["--shards", "1 to 256"]),
        (&["--io", "kqueue"], &["--io", "auto, uring or epoll"]),
        (&["--trusted-proxies", "10.0.0.0/33"], &["--trusted-proxies", "10.0.0.0/8"]),
        (&["--path-prefix", "relay/"], &["--path-prefix", "/relay"]),
        (&["--activity-timeout", "0"], &["--activity-timeout", "1 to 3600"]),
        (&["--strict-protocol", "maybe"], &["--strict-protocol", "true or false"]),
        (&["--channel-names", "lax"], &["--channel-names", "strict"]),
        (&["--drain-ms", "1h"], &["--drain-ms", "milliseconds"]),
        (&["--max-connections", "0"], &["--max-connections"]),
        (&["--log", "relay=loud"], &["--log"]),
        (&["--config", "none.toml"], &["none.toml", "--config"]),
    ];
    for (arguments, parts) in flags {
        for command in ["check-config", "serve", "start"] {
            assert_refused(&run_with(&[&[command], arguments].concat(), &[], place.path()), 2, parts);
        }
    }
    let output = run_with(&["check-config"], &[("RELAY_SHARDS", "no")], place.path());
    assert_refused(&output, 2, &["RELAY_SHARDS takes", "1 to 256"]);
    for (file, parts) in [
        ("shards = 2\nlisen = \"x\"\n", ["relay.toml:2:", "did you mean \"listen\"?"]),
        ("shards = 2\n\nio = \"iouring\"\n", ["relay.toml:3: io takes", "auto, uring or epoll"]),
        ("shards = \n", ["relay.toml:1:", "not TOML"]),
        ("[serve]\nshards = 2\n", ["relay.toml:1:", "\"serve\""]),
    ] {
        std::fs::write(place.path().join("relay.toml"), file).expect("file");
        assert_refused(&run_with(&["check-config"], &[], place.path()), 2, &parts);
    }
    assert!(std::fs::read_dir(place.path()).expect("listing").count() == 1, "nothing but relay.toml was made");
}

/// Unknown flags and commands exit with 2 and name the nearest; help and version are no mistakes.
#[test]
fn unknown_arguments_are_refused() {
    let place = directory();
    for (arguments, part) in
        [(&["serve", "--lisen", "x"][..], "--listen"), (&["srve"], "serve"), (&["app", "lst"], "list")]
    {
        let output = run_with(arguments, &[], place.path());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(part) && output.stdout.is_empty(), "{}", stderr(&output));
    }
    for arguments in [&["version"][..], &["--version"]] {
        assert_eq!(stdout(&run_with(arguments, &[], place.path())), "relay 0.1.0\n");
    }
    let help = run_with(&["serve", "--help"], &[], place.path());
    assert!(help.status.success());
    for flag in ["--dev", "--listen", "--data", "--shards", "--io", "--metrics-listen", "--trusted-proxies", "--config"]
    {
        assert!(stdout(&help).contains(flag), "{flag}");
    }
}

/// An unknown `RELAY_*` variable is a warning with the nearest name; what Kubernetes and Docker make is passed over.
#[test]
fn unknown_variables_warn() {
    let place = directory();
    let environment = [("RELAY_SHARD", "2"), ("RELAY_PORT", "tcp://10.0.0.1:6001"), ("RELAY_SERVICE_HOST", "10.0.0.1")];
    let output = run_with(&["check-config"], &environment, place.path());
    assert!(output.status.success());
    let told = stderr(&output);
    assert!(told.lines().count() == 1 && told.contains("RELAY_SHARDS"), "{told}");
}

/// The app of the environment needs all three variables; a message never repeats the secret (R-AUTH-7).
#[test]
fn an_app_needs_all_three_variables() {
    let place = directory();
    let all = [("RELAY_APP_ID", "1"), ("RELAY_APP_KEY", "k"), ("RELAY_APP_SECRET", "hunter2hunter2")];
    for missing in all {
        let some: Vec<_> = all.into_iter().filter(|pair| *pair != missing).collect();
        let output = run_with(&["serve", "--data", "data"], &some, place.path());
        assert_refused(&output, 2, &["RELAY_APP_ID", "RELAY_APP_KEY", "RELAY_APP_SECRET", "all three"]);
        assert!(!stderr(&output).contains("hunter2"));
    }
    let bad = [("RELAY_APP_ID", "1"), ("RELAY_APP_KEY", "k"), ("RELAY_APP_SECRET", "hunter2 hunter2")];
    let output = run_with(&["serve", "--data", "data"], &bad, place.path());
    assert_refused(&output, 2, &["RELAY_APP_SECRET"]);
    assert!(!stderr(&output).contains("hunter2"));
    assert!(run_with(&["check-config"], &all, place.path()).status.success());
}

/// A well-known secret is refused where others can reach the server, with the way out; `--dev` stays on this machine.
#[test]
fn well_known_secrets_stay_on_loopback() {
    let place = directory();
    let app = [("RELAY_APP_ID", "1"), ("RELAY_APP_KEY", "app-key"), ("RELAY_APP_SECRET", "app-secret")];
    let arguments = ["serve", "--data", "data", "--listen", "0.0.0.0:0", "--metrics-listen", "127.0.0.1:0"];
    let output = run_with(&arguments, &app, place.path());
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    let last = told.lines().last().expect("a line");
    assert!(last.contains("well-known") && last.contains("relay app rotate 1"), "{told}");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let output = run_with(&["serve", "--dev", "--listen", address], &[], place.path());
        assert_refused(&output, 2, &["--listen", "--dev", "127.0.0.1"]);
    }
}

/// Threat T23: a server refuses a data file that others can read, at once and with the command that mends it.
#[test]
fn an_exposed_store_is_not_served() {
    use std::os::unix::fs::PermissionsExt;
    let data = directory();
    json(&["app", "create"], data.path());
    let file = data.path().join("data.mdb");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("mode");
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"], data.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("chmod 600"), "{}", stderr(&output));
}
