//! `relay --server URL ...`: the same commands on a remote server (R-ADMIN-19).

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::server;
use crate::common::admin::Admin;
use crate::common::cli;
use crate::common::server::data_directory;

/// Where a command works.
enum Place<'a> {
    Local(&'a Path),
    Remote(&'a Admin),
}

fn run(place: &Place<'_>, arguments: &[&str]) -> Output {
    let mut command = cli::command(cli::binary());
    match place {
        Place::Local(data) => command.args(arguments).arg("--data").arg(data),
        Place::Remote(admin) => {
            command.env("RELAY_ADMIN_TOKEN", &admin.token).args(arguments);
            command.arg("--server").arg(format!("http://{}", admin.address))
        }
    };
    command.output().expect("the binary starts")
}

/// Standard output, standard error and the exit code, without what no two runs share: random values and times.
fn shown(output: &Output, random: &[String]) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| {
        let mut text = String::from_utf8(bytes.to_vec()).expect("text");
        for (number, value) in random.iter().enumerate() {
            text = text.replace(value.as_str(), &format!("<{number}>"));
        }
        // Creators and times differ by nature: `cli uid 0` and `admin_token adm_...`.
        let differs = |word: &str| {
            (word.contains('T') && word.contains(':'))
                || matches!(word, "uid" | "cli" | "0" | "admin_token")
                || word.starts_with("adm_")
        };
        let line = |line: &str| -> String {
            let words = line.split_whitespace().filter(|word| !differs(word));
            if line.contains("\"created_by\"") { String::new() } else { words.collect::<Vec<_>>().join(" ") }
        };
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    };
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Adds the random values that a place has now, and those that a command has just shown.
fn note_random(place: &Place<'_>, output: &Output, random: &mut Vec<String>) {
    let mut found = Vec::new();
    for app in run_json(place, &["app", "list"]).as_array().expect("a list") {
        found.extend(app["keys"].as_array().expect("keys").iter().filter_map(|key| key.as_str().map(str::to_owned)));
    }
    for list in [["token", "list"], ["webhook", "list"]] {
        let items = run_json(place, &list);
        found.extend(items.as_array().expect("a list").iter().map(|item| item["id"].as_str().expect("id").to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().map(|word| word.trim_matches(['"', ',']).to_owned());
    found.extend(words.filter(|word| word.len() >= 40));
    found.retain(|value| value != "key-8" && !random.contains(value));
    random.extend(found);
}

/// R-ADMIN-19: a script of commands has the same output, errors and exit codes on a data directory and on a remote
/// server, as text and as JSON; only random values, times and the name of the actor differ.
#[test]
fn both_places_answer_alike() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    admin.ask("DELETE", &format!("/apps/{}", server.app().id), None).expect(200);
    let data = data_directory();
    let places = [Place::Local(data.path()), Place::Remote(&admin)];
    let script: &[&[&str]] = &[
        &["app", "create", "--id", "7", "--name", "Shop", "client_events=true"],
        &["app", "create", "--id", "7"],
        &["app", "create", "--id", "a b"],
        &["app", "create", "client_events=maybe"],
        &["app", "create", "--secret", "two words"],
        &["app", "create", "--id", "8", "--key", "key-8", "--secret", "secret-8"],
        &["app", "list"],
        &["app", "show", "7"],
        &["app", "show", "9"],
        &["app", "show", "8", "--secrets"],
        &["app", "set", "7", "max_connections=5", "name=Store", "allowed_origins=a.example, *.b.example"],
        &["app", "set", "7", "channels_max=5"],
        &["app", "set", "7", "max_connections=many"],
        &["app", "set", "7", "client_event=true"],
        &["app", "set", "7", "client_events"],
        &["app", "rotate", "7"],
        &["app", "rotate", "7", "--remove-old"],
        &["app", "remove-key", "7", "none"],
        &["app", "disable", "7"],
        &["app", "enable", "7"],
        &[
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
        ],
        &["token", "create", "--app", "7", "--scopes", "events:publsh"],
        &["token", "create", "--app", "9"],
        &["token", "list"],
        &["token", "list", "--app", "7"],
        &["token", "revoke", "tok_none"],
        &["token", "rotate", "tok_none"],
        &["webhook", "add", "--app", "7", "--url", "https://example.com/hook", "--events", "member_added,cache.miss"],
        &["webhook", "add", "--app", "7", "--url", "ftp://example.com"],
        &["webhook", "add", "--app", "7", "--url", "http://10.1.2.3/", "--allow-private", "--batch"],
        &["webhook", "list"],
        &["webhook", "list", "--app", "7"],
        &["webhook", "remove", "wh_none"],
        &["webhook", "test", "wh_none"],
        &["webhook", "failed"],
        &["webhook", "failed", "--app", "7"],
        &["webhook", "failed", "--app", "9"],
        &["admin", "token", "create", "--name", "ci", "--read-only"],
        &["admin", "token", "revoke", "adm_none"],
        &["app", "delete", "8"],
        &["app", "delete", "8"],
        &["app", "list"],
    ];
    // Random values in the order of their creation, which both places share.
    let mut random = [Vec::new(), Vec::new()];
    for arguments in script {
        for form in [&[][..], &["--json"]] {
            if !form.is_empty() && ["create", "add", "rotate", "delete"].iter().any(|word| arguments.contains(word)) {
                continue; // It was done by the first form.
            }
            let outputs = places.each_ref().map(|place| run(place, &[arguments, form].concat()));
            for ((place, output), random) in places.iter().zip(&outputs).zip(&mut random) {
                note_random(place, output, random);
            }
            let [local, remote] = [0, 1].map(|at| shown(&outputs[at], &random[at]));
            assert_eq!(local, remote, "{arguments:?} {form:?}");
        }
    }
    let audit = |place: &Place<'_>| -> Vec<Value> {
        let entries = run_json(place, &["admin", "audit", "--app", "7"]);
        entries.as_array().expect("a list").iter().map(|entry| entry["action"].clone()).collect()
    };
    assert_eq!(audit(&places[0]), audit(&places[1]));
}

fn run_json(place: &Place<'_>, arguments: &[&str]) -> Value {
    let output = run(place, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// R-ADMIN-15, R-ADMIN-19: lists longer than a page are complete.
#[test]
fn long_lists_are_complete() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let data = server.data.to_str().expect("text");
    let apps: Vec<Value> = (0..1_200)
        .map(|number| json!({"id": format!("{number}"), "key": format!("k{number}"), "secret": "not-known-1"}))
        .collect();
    let file = server.data.join("apps.json");
    std::fs::write(&file, json!(apps).to_string()).expect("a file");
    let from = ["migrate", "--from", "soketi", file.to_str().expect("text"), "--accept-loss", "--data", data];
    assert!(cli::run(&from).status.success());
    let remote = run_json(&Place::Remote(&admin), &["app", "list"]);
    assert_eq!(remote.as_array().expect("a list").len(), 1_201);
    assert_eq!(remote, run_json(&Place::Local(&server.data), &["app", "list"]));
}

/// R-ADMIN-19, T49: no byte of a token goes to an http address of another machine, to a server that redirects, or
/// through a proxy of the environment; the three sources of a token; what cannot work on a remote server says so.
#[test]
fn tokens_go_to_the_named_server_alone() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let url = format!("http://{}", admin.address);
    let relay = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output =
            cli::command(cli::binary()).args(arguments).envs(variables.iter().copied()).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let token = [("RELAY_ADMIN_TOKEN", admin.token.as_str())];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("nonblocking");
    let trap = format!("http://{}", listener.local_addr().expect("bound"));
    for url in ["http://10.0.0.1", "http://192.0.2.1:6002", "http://relay.example", "relay.example", "https://u:p@h"] {
        let (code, text) = relay(&["app", "list", "--server", url], &token);
        assert!(code == Some(2) && text.contains("--server") && !text.contains("u:p"), "{url}: {text}");
    }
    let proxies = [("HTTP_PROXY", trap.as_str()), ("ALL_PROXY", &trap), ("http_proxy", &trap)];
    let (code, text) = relay(&["app", "list", "--server", &url], &[&token[..], &proxies].concat());
    assert!(code == Some(0) && listener.accept().is_err(), "through no proxy: {text}");

    let (code, text) = relay(&["app", "list", "--server", &url], &[]);
    assert!(code == Some(2) && text.contains("RELAY_ADMIN_TOKEN") && text.contains("--admin-token-file"), "{text}");
    let file = server.data.join("token");
    std::fs::write(&file, format!("{}\n", admin.token)).expect("a file");
    let file = file.to_str().expect("text");
    assert_eq!(relay(&["--server", &url, "--admin-token-file", file, "app", "list"], &[]).0, Some(0));
    let (code, text) = relay(&["app", "list", "--server", &url, "--admin-token", &admin.token], &[]);
    assert!(code == Some(0) && text.contains("warning") && text.contains("--admin-token-file"), "{text}");
    let (code, text) = relay(&["app", "list", "--server", &url], &[("RELAY_ADMIN_TOKEN", "hunter2")]);
    assert!(code == Some(2) && text.contains("rly_adm_") && !text.contains("hunter2"), "{text}");
    let wrong = format!("rly_adm_{}", "w".repeat(40));
    let (code, text) = relay(&["app", "list", "--server", &url], &[("RELAY_ADMIN_TOKEN", &wrong)]);
    assert!(code == Some(1) && text.contains("admin token"), "{text}");
    let (code, text) = relay(&["app", "list", "--server", &format!("http://{}", server.address)], &token);
    assert!(code == Some(1) && !text.contains(&admin.token), "the public port: {text}");
    for arguments in
        [&["admin", "passwd", "--user", "x"][..], &["migrate", "--from", "soketi", "x"], &["serve"], &["version"]]
    {
        let (code, text) = relay(&[arguments, &["--server", &url]].concat(), &token);
        assert!(code == Some(2) && text.contains("--server"), "{arguments:?}: {text}");
    }
    let (code, text) = relay(&["app", "list", "--admin-token", &admin.token], &[]);
    assert!(code == Some(2) && text.contains("--server"), "{text}");
}
