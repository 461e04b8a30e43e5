//! The variables of other servers, passed to a real server.

use serde_json::json;

use crate::common::cli;
use crate::common::server::{RunningProcess, TestServer, addresses, data_directory};
use crate::common::sign::App;
use crate::common::socket::Socket;

/// `relay serve` with these variables and no others that it reads.
fn serve(environment: &[(&str, &str)], arguments: &[&str]) -> RunningProcess {
    let mut command = cli::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(cli::binary()).arg("serve").args(arguments);
    command.envs(environment.iter().copied());
    RunningProcess::spawn(command)
}

fn check(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = cli::command(cli::binary());
    let output = command.arg("check-config").args(arguments).envs(environment.iter().copied()).output().unwrap();
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code(), told)
}

/// P-AUTH-1, P-SIGN-1, R-AUTH-7: a server started with the environment of a soketi container, or of Reverb, serves its
/// app with its key pair, and one line of the log names the variables, never their values.
#[test]
fn environments_of_other_servers_start_relay() {
    let soketi = [
        ("SOKETI_DEFAULT_APP_ID", "31"),
        ("SOKETI_DEFAULT_APP_KEY", "old-key-31"),
        ("SOKETI_DEFAULT_APP_SECRET", "old-secret-31"),
        ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "true"),
        ("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", "1"),
        ("SOKETI_HOST", "127.0.0.1"),
        ("SOKETI_PORT", "0"),
        ("SOKETI_METRICS_ENABLED", "1"),
        ("SOKETI_METRICS_SERVER_PORT", "0"),
        ("SOKETI_DB_REDIS_PASSWORD", "hunter2"),
    ];
    let reverb = [
        ("REVERB_APP_ID", "31"),
        ("REVERB_APP_KEY", "old-key-31"),
        ("REVERB_APP_SECRET", "old-secret-31"),
        ("PUSHER_APP_SECRET", "old-secret-31"),
        ("REVERB_SERVER_HOST", "127.0.0.1"),
        ("REVERB_SERVER_PORT", "0"),
        ("REVERB_HOST", "ws.example.com"),
        ("RELAY_METRICS_LISTEN", "127.0.0.1:0"),
    ];
    for (environment, client_events) in [(&soketi[..], true), (&reverb[..], false)] {
        let place = data_directory();
        let data = place.path().to_str().unwrap();
        let mut process = serve(environment, &["--data", data, "--shards", "1"]);
        let address = addresses(&process.listening_line()).0;
        let app = App { id: "31".into(), key: "old-key-31".into(), secret: "old-secret-31".into() };
        let server = TestServer::adopt(address, app.clone());
        let mut socket = Socket::open(&server, &app);
        socket.subscribe("private-a");
        server.publish(&app, "private-a", "e", "x");
        socket.expect_data("e", "private-a", "x");
        let shown = cli::run_json(&["app", "show", "31", "--data", data, "--json"]);
        assert_eq!(shown["settings"]["client_events"], json!(client_events));
        assert_eq!(shown["settings"]["authorized_connections"], json!(client_events));

        let log = process.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("variables of other servers")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        for (variable, value) in environment.iter().filter(|(name, _)| name.ends_with("_SECRET")) {
            assert!(lines[0].contains(variable), "{}", lines[0]);
            assert!(!log.contains(value), "{log}");
        }
        assert!(!log.contains("hunter2"), "{log}");
        assert!(!lines[0].contains("REVERB_HOST"), "where clients find Reverb is not where Relay listens");
    }
}

/// Starts with these variables on a store; returns the resulting app 31, and the log.
fn started(environment: &[(&str, &str)], data: &str) -> (serde_json::Value, String) {
    let addresses = [("SOKETI_HOST", "127.0.0.1"), ("SOKETI_PORT", "0"), ("RELAY_METRICS_LISTEN", "127.0.0.1:0")];
    let mut process = serve(&[environment, &addresses].concat(), &["--data", data, "--shards", "1"]);
    process.listening_line();
    (cli::run_json(&["app", "show", "31", "--data", data, "--json"]), process.log())
}

const APP: [(&str, &str); 3] = [
    ("SOKETI_DEFAULT_APP_ID", "31"),
    ("SOKETI_DEFAULT_APP_KEY", "old-key-31"),
    ("SOKETI_DEFAULT_APP_SECRET", "old-secret-31"),
];

/// An app created from soketi's variables has soketi's limits: its defaults where nothing else is set, and the value of
/// each variable, including the webhooks and the disabled state. Variables that are not imported are logged.
#[test]
fn the_limits_of_soketi_come_along() {
    let place = data_directory();
    let data = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let (plain, log) = started(&APP, &data("plain"));
    assert_eq!(plain["enabled"], true);
    for (name, value) in [("max_event_data_bytes", 102_400), ("max_client_events_per_second", 0)] {
        assert_eq!(plain["settings"][name], json!(value), "{name}");
        assert!(log.contains(&format!("{name}={value}")), "{log}");
    }

    let webhooks = r#"[{"url": "https://a.example.com/h", "event_types": ["channel_occupied"], "headers": {"A": "hunter2"}},
        {"url": "http://backend/h", "event_types": ["channel_occupied"]}]"#;
    let named = [
        ("SOKETI_DEFAULT_APP_ENABLED", "false"),
        ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "TRUE"),
        ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "25"),
        ("SOKETI_DEFAULT_APP_WEBHOOKS", webhooks),
        ("SOKETI_EVENT_MAX_BATCH_SIZE", "20"),
        ("SOKETI_EVENT_MAX_CHANNELS_AT_ONCE", "30"),
        ("SOKETI_EVENT_MAX_SIZE_IN_KB", "50"),
        ("SOKETI_PRESENCE_MAX_MEMBERS", "500"),
        ("SOKETI_PRESENCE_MAX_MEMBER_SIZE", "4"),
        ("SOKETI_CHANNEL_CACHE_TTL", "60"),
        ("SOKETI_USER_AUTHENTICATION_TIMEOUT", "10000"),
        ("SOKETI_METRICS_PROMETHEUS_PREFIX", "soketi_"),
    ];
    let named = [&APP[..], &named].concat();
    let (app, log) = started(&named, &data("named"));
    assert_eq!(app["enabled"], false);
    for (name, value) in [
        ("client_events", json!(true)),
        ("max_client_events_per_second", json!(25)),
        ("max_batch_events", json!(20)),
        ("max_channels_per_event", json!(30)),
        ("max_event_data_bytes", json!(51_200)),
        ("max_presence_members", json!(500)),
        ("max_channel_data_bytes", json!(5_120)),
    ] {
        assert_eq!(app["settings"][name], value, "{name}");
    }
    let made = cli::run_json(&["webhook", "list", "--app", "31", "--json", "--data", &data("named")]);
    assert_eq!((&made[0]["url"], made.as_array().unwrap().len()), (&json!("https://a.example.com/h"), 1));
    assert!(!log.contains("no counterpart") && !log.contains("hunter2"), "{log}");
    for part in
        ["SOKETI_DEFAULT_APP_WEBHOOKS.0.headers.A is not taken", "SOKETI_DEFAULT_APP_WEBHOOKS.1.url is not taken"]
    {
        assert!(log.contains(part), "{part}: {log}");
    }

    // Later the store takes precedence, and differences are named.
    let (later, log) = started(&[&APP[..], &[("SOKETI_EVENT_MAX_SIZE_IN_KB", "7")]].concat(), &data("plain"));
    assert_eq!(later["settings"]["max_event_data_bytes"], 102_400);
    assert!(log.contains("relay app set") && log.contains("max_event_data_bytes=7168"), "{log}");
    let (_, log) = started(&APP, &data("plain"));
    assert!(!log.contains("relay app set"), "{log}");
}

/// Variables that describe an app, without one, are named in a warning.
#[test]
fn limits_without_an_app_are_named() {
    let (code, told) = check(&[("SOKETI_EVENT_MAX_SIZE_IN_KB", "50")], &[]);
    assert!(code == Some(0) && told.contains("set nothing: SOKETI_EVENT_MAX_SIZE_IN_KB"), "{told}");
}

/// A switch is read in any case, wherever it is set.
#[test]
fn switches_are_read_in_any_case() {
    for value in ["TRUE", "False", "On", "nO"] {
        let (code, told) = check(&[("RELAY_STRICT_PROTOCOL", value), ("SOKETI_DEBUG", "FALSE")], &[]);
        assert_eq!(code, Some(0), "{value}: {told}");
    }
    let (code, told) = check(&[("RELAY_STRICT_PROTOCOL", "perhaps")], &[]);
    assert!(code == Some(2) && told.contains("true or false"), "{told}");
}

/// R-AUTH-7: `RELAY_*` and `relay.toml` take precedence; Relay refuses to start on variables that disagree, an
/// incomplete app, and well-known secrets where others reach the server, in one line that names them and no value.
#[test]
fn conflicts_refuse_to_start() {
    let place = data_directory();
    let pair = [("PUSHER_APP_KEY", "key-of-pusher"), ("REVERB_APP_KEY", "key-of-reverb")];
    let (code, told) = check(&pair, &[]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("PUSHER_APP_KEY and REVERB_APP_KEY disagree") && told.contains("RELAY_APP_KEY"), "{told}");
    assert!(!told.contains("key-of-"), "{told}");

    let own = [("RELAY_APP_ID", "1"), ("RELAY_APP_KEY", "own-key"), ("RELAY_APP_SECRET", "own-secret")];
    let (code, told) = check(&[&pair[..], &own].concat(), &[]);
    assert!(code == Some(0) && told.contains("own-key") && !told.contains("other servers"), "{told}");
    let file = place.path().join("relay.toml");
    std::fs::write(
        &file,
        "app_id = \"1\"\napp_key = \"own-key\"\napp_secret = \"own-secret\"\nlisten = \"127.0.0.1:7\"\n",
    )
    .unwrap();
    let file = ["--config", file.to_str().unwrap()];
    let (code, told) = check(&[&pair[..], &[("SOKETI_PORT", "6002")]].concat(), &file);
    assert!(code == Some(0) && told.contains("own-key") && told.contains("listen 127.0.0.1:7,"), "{told}");

    let (code, told) = check(&[("PUSHER_APP_KEY", "k"), ("PUSHER_APP_SECRET", "hunter2")], &[]);
    assert!(code == Some(2) && told.contains("PUSHER_APP_KEY is set but app_id is not"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");

    let defaults = [
        ("SOKETI_DEFAULT_APP_ID", "app-id"),
        ("SOKETI_DEFAULT_APP_KEY", "app-key"),
        ("SOKETI_DEFAULT_APP_SECRET", "app-secret"),
    ];
    let (code, told) = check(&defaults, &[]);
    assert!(code == Some(2) && told.contains("SOKETI_DEFAULT_APP_SECRET is a well-known secret"), "{told}");
    let (code, told) = check(&[&defaults[..], &[("SOKETI_HOST", "127.0.0.1")]].concat(), &[]);
    assert!(code == Some(0) && told.contains("note: variables of other servers were taken"), "{told}");
    // Commands on the store ignore the server's variables.
    let mut command = cli::command(cli::binary());
    command.args(["app", "create", "--data"]).arg(place.path().join("data")).envs(pair);
    assert!(command.output().unwrap().status.success());
}
