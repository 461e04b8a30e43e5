//! The command line as operators and scripts use it: output streams, exit codes, and refusals.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

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

/// Goal: a setting can still be set by its former name, with a warning.
#[test]
fn former_names_of_settings_count() {
    let data = directory();
    let id = json(&["app", "create"], data.path())["id"].as_str().expect("id").to_owned();
    let output = run(&["app", "set", &id, "channels_max=5", "--json"], data.path());
    assert!(stderr(&output).contains("channels_max is now called max_channels"), "{}", stderr(&output));
    assert_eq!(json(&["app", "show", &id], data.path())["settings"]["max_channels"], 5);
}

/// R-ADMIN-1, P-SDK-22: the life of an app, in JSON; secrets are shown at creation and on request, never in a list.
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

/// R-TOKEN-1, R-TOKEN-2, R-TOKEN-5: a token is shown once, lists include its id and never the token or its hash, and
/// the entry of a revoked one includes the time of revocation.
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

/// R30: an error for a bad value names the expectation or the nearest name, exits with 2, and changes nothing.
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

/// R30: the error for a missing data directory names `--data`, also for the default directory.
#[test]
fn a_missing_directory_is_told() {
    let place = directory();
    let absent = place.path().join("absent");
    let absent = absent.to_str().expect("text");
    for arguments in [&["app", "list"][..], &["app", "show", "1"], &["token", "list"], &["token", "revoke", "x"]] {
        let output = run_with(&[arguments, &["--data", absent, "--json"]].concat(), &[], place.path());
        assert_refused(&output, 1, &[absent, "--data"]);
        let output = run_with(arguments, &[("RELAY_DATA", absent)], place.path());
        assert_refused(&output, 1, &[absent, "--data"]);
    }
}

/// T23, R-ADMIN-1: the first app creates the directory, for its owner alone, so that an app can exist before the
/// server.
#[test]
fn the_first_app_makes_the_directory() {
    use std::os::unix::fs::PermissionsExt;
    let place = directory();
    let data = place.path().join("new").join("data");
    let arguments = ["app", "create", "--data", data.to_str().expect("text")];
    let output = run_with(&arguments, &[], place.path());
    assert!(output.status.success(), "{}", stderr(&output));
    let mode = std::fs::metadata(&data).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
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

/// R30: every bad flag, variable and file setting gives one line that names its source and the accepted values, exit
/// code 2.
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

/// Unknown flags and commands exit with 2 and name the nearest; help and version are not errors.
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

/// An unknown `RELAY_*` variable is a warning with the nearest name; variables that Kubernetes and Docker set are
/// ignored.
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

/// A well-known secret is refused where others can reach the server, with the fix; `--dev` listens on this machine
/// only.
#[test]
fn well_known_secrets_stay_on_loopback() {
    let place = directory();
    let app = [("RELAY_APP_ID", "1"), ("RELAY_APP_KEY", "app-key"), ("RELAY_APP_SECRET", "app-secret")];
    let arguments = ["serve", "--data", "data", "--listen", "0.0.0.0:0", "--metrics-listen", "127.0.0.1:0"];
    let output = run_with(&arguments, &app, place.path());
    assert_refused(&output, 2, &["RELAY_APP_SECRET", "well-known", "127.0.0.1"]);
    assert!(!place.path().join("data").exists(), "nothing is stored");
    json(&["app", "create", "--id", "1", "--secret", "app-secret"], place.path());
    let output = run_with(&[&arguments[..2], &["."], &arguments[3..]].concat(), &[], place.path());
    assert_refused(&output, 2, &["well-known", "relay app rotate 1"]);
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let output = run_with(&["serve", "--dev", "--listen", address], &[], place.path());
        assert_refused(&output, 2, &["--listen", "--dev", "127.0.0.1"]);
    }
}

/// Threat T23: a server refuses a data file that others can read, at once and with the command that fixes it.
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

/// A server on free ports; killed when dropped.
struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    /// The line that it prints once it listens.
    line: String,
    /// Address of the public port.
    address: String,
}

impl Server {
    fn start(arguments: &[&str], environment: &[(&str, &str)], directory: &Path) -> Self {
        let errors = std::fs::File::create(directory.join("errors")).expect("file");
        let ports = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--shards", "2", "--io", "epoll"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        command.arg("serve").args(arguments).args(ports).args(["--admin-listen", "off"]);
        command.env_clear().envs(environment.iter().copied());
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().expect("starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let address = line.split(' ').nth(4).unwrap_or_default().to_owned();
        Self { child, output, line, address }
    }

    fn terminate(mut self) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("ends"), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `serve --dev` prints its address in one line, then prints three lines that publish as printed, in `sh` and in
/// `bash`; the token of an earlier start is deleted; the log contains no secret (R-AUTH-7).
#[test]
fn what_dev_prints_works_as_pasted() {
    let place = directory();
    let mut tokens = Vec::new();
    for start in 0..2 {
        let mut server = Server::start(&["--dev"], &[], place.path());
        let begin = format!("relay 0.1.0 listening on {} (epoll, 2 shards, health on 127.0.0.1:", server.address);
        assert!(server.line.starts_with(&begin) && !server.address.ends_with(":0"), "{}", server.line);
        let mut pasted = Vec::new();
        while pasted.len() < 3 {
            let mut line = String::new();
            assert!(server.output.read_line(&mut line).expect("text") > 0, "the output ended after {pasted:?}");
            if line.starts_with("curl ") || line.contains("; curl ") {
                pasted.push(line);
            }
        }
        for (shell, line) in ["sh", "bash"].into_iter().flat_map(|shell| pasted.iter().map(move |line| (shell, line))) {
            let output = Command::new(shell).arg("-c").arg(line).output().expect("a shell");
            assert_eq!(stdout(&output), "{}", "{shell}: {line}: {}", stderr(&output));
        }
        let at = pasted[1].find("rly_").expect("a token");
        tokens.push(pasted[1][at..at + 44].to_owned());
        let second = run_with(&["serve", "--dev", "--listen", "127.0.0.1:0"], &[], place.path());
        assert_eq!(second.status.code(), Some(1));
        assert!(stderr(&second).contains(&format!("pid {}", server.child.id())), "{}", stderr(&second));
        if start == 1 {
            let old = pasted[1].replace(&tokens[1], &tokens[0]);
            let output = Command::new("sh").arg("-c").arg(old).output().expect("a shell");
            assert!(!stdout(&output).starts_with("{}"), "the token of the first start is still good");
        }
        let (status, _) = server.terminate();
        assert!(status.success(), "{status}");
        let log = std::fs::read_to_string(place.path().join("errors")).expect("log");
        assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
        assert!(!log.contains("app-secret") && !log.contains(&tokens[start]), "{log}");
    }
    let data = place.path().join(".relay");
    let used = json(&["token", "list"], &data);
    assert_eq!(used.as_array().expect("list").len(), 1);
    assert!(used[0]["last_used_at"].is_string(), "{used}");
}

/// The server applies commands within 2 seconds: a revoked token, a disabled app, a new app (threat T5).
#[test]
fn a_running_server_obeys_commands() {
    let place = directory();
    let data = place.path().join("data");
    let variables = [("RELAY_APP_ID", "1"), ("RELAY_APP_KEY", "k"), ("RELAY_APP_SECRET", "s3cret-s3cret")];
    let server = Server::start(&["--data", "data", "--drain-ms", "0"], &variables, place.path());
    assert_eq!(json(&["app", "list"], &data).as_array().expect("list").len(), 1, "no app beside the configured one");
    let publish = |app: &str, headers: &[&str]| {
        let url = format!("http://{}/apps/{app}/events", server.address);
        let mut curl = Command::new("curl");
        curl.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url,
            "-d",
            r#"{"name":"e","channel":"c","data":"d"}"#,
        ]);
        curl.args(headers.iter().flat_map(|header| ["-H", header]));
        stdout(&curl.output().expect("curl runs"))
    };
    let pair = ["X-Relay-Key: k", "X-Relay-Secret: s3cret-s3cret"];
    let becomes = |app: &str, headers: &[&str], status: &str| {
        let begin = Instant::now();
        while publish(app, headers) != status {
            assert!(begin.elapsed() < Duration::from_secs(2), "not {status} but {}", publish(app, headers));
        }
    };
    assert_eq!(publish("1", &pair), "200");
    let created = json(&["token", "create", "--app", "1"], &data);
    let bearer = format!("Authorization: Bearer {}", created["token"].as_str().expect("token"));
    becomes("1", &[&bearer], "200");
    json(&["token", "revoke", created["id"].as_str().expect("id")], &data);
    becomes("1", &[&bearer], "401");
    json(&["app", "create", "--id", "2", "--key", "k2", "--secret", "s2"], &data);
    becomes("2", &["X-Relay-Key: k2", "X-Relay-Secret: s2"], "200");
    json(&["app", "disable", "1"], &data);
    becomes("1", &pair, "403");
    json(&["app", "enable", "1"], &data);
    becomes("1", &pair, "200");
    let (status, rest) = server.terminate();
    assert!(status.success() && rest.is_empty(), "{status}: standard output had more than its one line: {rest}");
}

/// With no app anywhere the first start creates one and shows it once; the second start shows nothing.
#[test]
fn the_first_start_makes_an_app() {
    let place = directory();
    let told = |place: &Path| {
        let server = Server::start(&["--data", "data", "--drain-ms", "0"], &[], place);
        assert!(server.terminate().0.success());
        std::fs::read_to_string(place.join("errors")).expect("log")
    };
    let first = told(place.path());
    let value = |name: &str| {
        let line = first.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.strip_prefix('=').unwrap_or_default().to_owned()
    };
    let (id, key, secret) = (value("RELAY_APP_ID"), value("RELAY_APP_KEY"), value("RELAY_APP_SECRET"));
    assert!(id.len() == 9 && key.len() == 20 && secret.len() >= 20, "{first}");
    let shown = json(&["app", "show", &id, "--secrets"], &place.path().join("data"));
    assert_eq!((&shown["keys"][0]["key"], &shown["keys"][0]["secret"]), (&key.into(), &secret.as_str().into()));
    assert!(!told(place.path()).contains(&secret));
}

/// R-ADMIN-2, R-ADMIN-3: an admin token is shown once; lists include its id and role and never the token or its hash.
#[test]
fn the_life_of_an_admin_token() {
    let data = directory();
    let data = data.path();
    let created = json(&["admin", "token", "create", "--name", "ops", "--expires", "30d"], data);
    let (id, token) = (created["id"].as_str().expect("id"), created["token"].as_str().expect("token"));
    let random = token.strip_prefix("rly_adm_").expect("the prefix");
    assert!(random.len() == 40 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{token}");
    assert_eq!((&created["role"], &created["name"]), (&"admin".into(), &"ops".into()));
    assert!(created["expires_at"].is_string() && created["last_used_at"].is_null());
    assert!(created["created_by"].as_str().is_some_and(|by| by.starts_with("cli uid ")), "{created}");
    let plain = run(&["admin", "token", "create", "--read-only"], data);
    assert!(stdout(&plain).contains("rly_adm_") && stderr(&plain).contains("only time"), "{}", stderr(&plain));
    let list = json(&["admin", "token", "list"], data);
    assert_eq!((&list[0]["role"], &list[1]["role"]), (&"admin".into(), &"viewer".into()));
    let hash = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for arguments in [&["admin", "token", "list"][..], &["admin", "token", "list", "--json"], &["admin", "audit"]] {
        let shown = stdout(&run(arguments, data));
        assert!(shown.contains(id) && !shown.contains(token) && !shown.contains(&hash), "{shown}");
    }
    assert!(json(&["admin", "token", "revoke", id], data)["revoked_at"].is_string());
    assert!(stdout(&run(&["admin", "token", "list"], data)).contains("revoked"));
    assert_refused(&run(&["admin", "token", "revoke", "adm_x"], data), 1, &["adm_x", "relay admin token list"]);
    for (when, part) in [("soon", "30d"), ("2020-01-01T00:00:00Z", "past"), ("0s", "past"), ("30", "30d")] {
        assert_refused(&run(&["admin", "token", "create", "--expires", when], data), 2, &[part]);
    }
    assert_refused(&run(&["admin", "token", "create", "--name", "a\nb"], data), 2, &["control characters"]);
    assert_eq!(json(&["admin", "token", "list"], data).as_array().map(Vec::len), Some(2));
}

/// Runs `relay admin passwd` with this standard input.
fn passwd(arguments: &[&str], input: &str, data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.args(["admin", "passwd"]).args(arguments).arg("--data").arg(data).env_clear();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().expect("standard input").write_all(input.as_bytes());
    child.wait_with_output().expect("ends")
}

/// R-ADMIN-7, threat T49: a password comes from standard input, one line of it, never from an argument, and is shown
/// nowhere; its role is kept unless it is named.
#[test]
fn passwords_come_from_standard_input() {
    let data = directory();
    let data = data.path();
    let password = "correct horse battery";
    let made = passwd(&["--user", "alice", "--role", "viewer"], &format!("{password}\nmore\n"), data);
    assert!(made.status.success() && stdout(&made) == "user alice (viewer) is created\n", "{}", stderr(&made));
    let changed = passwd(&["--user", "alice", "--json"], password, data);
    assert!(changed.status.success() && stdout(&changed).contains("\"viewer\""), "{}", stderr(&changed));
    let default = passwd(&["--user", "bob"], &format!("{password}\r\n"), data);
    assert_eq!(stdout(&default), "user bob (admin) is created\n");
    let store = relay::store::Store::open(data, relay::store::Missing::Refuse).expect("opens");
    for user in ["alice", "bob"] {
        assert!(store.check_password(user, password).expect("checks").is_some(), "{user}");
    }
    for arguments in [&["admin", "users", "--json"][..], &["admin", "audit"], &["admin", "audit", "--json"]] {
        let shown = stdout(&run(arguments, data));
        assert!(shown.contains("alice") && !shown.contains(password) && !shown.contains("argon2"), "{shown}");
    }
    assert_refused(&passwd(&["--user", "carol"], "short\n", data), 2, &["12 characters"]);
    assert_refused(&passwd(&["--user", "a b"], password, data), 2, &["name of a user"]);
    assert_refused(&passwd(&["--user", "carol"], "", data), 2, &["12 characters"]);
    assert_refused(&passwd(&["--user", "carol", "--password", password], "", data), 2, &["--password"]);
    assert_refused(&passwd(&["--user", "carol", "--role", "root"], "", data), 2, &["admin, viewer"]);
    assert_eq!(json(&["admin", "passwd", "--user", "bob", "--remove"], data)["removed"], true);
    assert_refused(&run(&["admin", "passwd", "--user", "bob", "--remove"], data), 1, &["bob", "relay admin users"]);
}

/// Threat T49: on a terminal the password is asked for twice and not echoed. Method: `script` gives the command a
/// terminal and records what it shows.
#[test]
fn a_terminal_shows_no_password() {
    let data = directory();
    let password = "correct horse battery";
    let typed = |first: &str, again: &str| {
        let command =
            format!("{} admin passwd --user alice --data {}", env!("CARGO_BIN_EXE_relay"), data.path().display());
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--echo", "never", "--command", &command, "/dev/null"]);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script of util-linux");
        let (mut input, mut output) = (child.stdin.take().expect("input"), child.stdout.take().expect("output"));
        let mut shown = Vec::new();
        for (prompt, line) in [("New password of alice: ", first), ("The same again: ", again)] {
            let mut byte = [0];
            while !shown.ends_with(prompt.as_bytes()) {
                output
                    .read_exact(&mut byte)
                    .unwrap_or_else(|error| panic!("{error} before {prompt:?}: {}", String::from_utf8_lossy(&shown)));
                shown.push(byte[0]);
            }
            writeln!(input, "{line}").expect("typed");
        }
        // A terminal that ends may be reported as an error after the last byte.
        let _ = output.read_to_end(&mut shown);
        (child.wait().expect("ends").success(), String::from_utf8_lossy(&shown).into_owned())
    };
    let (done, shown) = typed(password, password);
    assert!(done && shown.contains("user alice (admin) is created") && !shown.contains("horse"), "{shown}");
    let (done, shown) = typed("another password", "another passwort");
    assert!(!done && shown.contains("differ") && !shown.contains("another"), "{shown}");
    let store = relay::store::Store::open(data.path(), relay::store::Missing::Refuse).expect("opens");
    assert!(store.check_password("alice", password).expect("checks").is_some());
}

/// R-ADMIN-4: the audit log on the command line: the newest first, with who, what and which fields, bounded by --limit,
/// and filtered by app.
#[test]
fn the_audit_log_is_shown() {
    let data = directory();
    let data = data.path();
    json(&["app", "create", "--id", "7", "--key", "k7"], data);
    json(&["app", "create", "--id", "8"], data);
    json(&["app", "set", "7", "max_connections=5", "client_events=true"], data);
    json(&["app", "disable", "7"], data);
    let log = json(&["admin", "audit"], data);
    let actions: Vec<&str> =
        log.as_array().expect("a list").iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(actions, ["app.change", "app.change", "app.create", "app.create"]);
    assert_eq!(log[0]["changes"], serde_json::json!([{"field": "enabled", "from": "true", "to": "false"}]));
    assert_eq!(log[1]["changes"][1], serde_json::json!({"field": "max_connections", "from": "0", "to": "5"}));
    assert_eq!((&log[1]["actor"]["kind"], &log[1]["app"]), (&"cli".into(), &"7".into()));
    assert!(log[1]["id"].is_string() && log[1]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{log}");
    let text = stdout(&run(&["admin", "audit", "--limit", "1"], data));
    assert!(text.lines().count() == 2 && text.contains("enabled: true -> false"), "{text}");
    let of_app = json(&["admin", "audit", "--app", "8"], data);
    assert_eq!((of_app.as_array().map(Vec::len), &of_app[0]["action"]), (Some(1), &"app.create".into()));
}

/// R-ADMIN-6, threat T43: the command lists what a key created and changes nothing until a choice is made.
#[test]
fn removing_a_key_asks_about_what_it_created() {
    let data = directory();
    let data = data.path();
    json(&["app", "create", "--id", "7", "--key", "leaked"], data);
    json(&["app", "rotate", "7"], data);
    let store = relay::store::Store::open(data, relay::store::Missing::Refuse).expect("opens");
    let actor = relay::app::actor::Actor::new(relay::app::actor::ActorKind::AppKey, "leaked", None);
    let new =
        relay::store::NewToken { app: "7".into(), name: "stolen".into(), scopes: Vec::new(), expires_at_ms: None };
    let id = store.create_token(&actor, new).expect("token").record.id;
    drop(store);
    let shown = stdout(&run(&["token", "list"], data));
    assert!(shown.contains("app_key leaked"), "{shown}");
    for arguments in [&["app", "remove-key", "7", "leaked"][..], &["app", "rotate", "7", "--remove-old"]] {
        let output = run(arguments, data);
        let told = stderr(&output);
        assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{told}");
        for part in [&id, "stolen", "app_key leaked", "--revoke-created", "--keep-created", "nothing was changed"] {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
    }
    assert_eq!(json(&["app", "show", "7"], data)["keys"].as_array().map(Vec::len), Some(2));
    let both = run(&["app", "remove-key", "7", "leaked", "--revoke-created", "--keep-created"], data);
    assert_refused(&both, 2, &["cannot be used with"]);
    assert_refused(&run(&["app", "rotate", "7", "--keep-created"], data), 2, &["--remove-old"]);
    let removed = json(&["app", "remove-key", "7", "leaked", "--revoke-created"], data);
    assert_eq!((&removed["removed"][0], &removed["revoked"]), (&"leaked".into(), &true.into()));
    assert_eq!((&removed["created"][0]["id"], &removed["created"][0]["kind"]), (&id.into(), &"token".into()));
    assert!(json(&["token", "list"], data)[0]["revoked_at"].is_string());
}

/// R-TOKEN-8: `token rotate` prints the new token once and revokes the old one.
#[test]
fn tokens_are_rotated_on_the_command_line() {
    let data = directory();
    let data = data.path();
    json(&["app", "create", "--id", "7"], data);
    let old = json(&["token", "create", "--app", "7", "--name", "ci", "--scopes", "events:publish"], data);
    let new = json(&["token", "rotate", old["id"].as_str().expect("id")], data);
    assert_ne!((&new["id"], &new["token"]), (&old["id"], &old["token"]));
    assert_eq!((&new["name"], &new["scopes"], &new["app"]), (&old["name"], &old["scopes"], &"7".into()));
    let list = json(&["token", "list"], data);
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    let revoked = |id: &Value| {
        let token = list.as_array().expect("a list").iter().find(|token| token["id"] == *id).expect("listed");
        token["revoked_at"].is_string()
    };
    assert!(revoked(&old["id"]) && !revoked(&new["id"]));
    assert_refused(&run(&["token", "rotate", old["id"].as_str().expect("id")], data), 2, &["revoked or expired"]);
}
