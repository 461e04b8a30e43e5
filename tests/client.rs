//! The JavaScript client, `clients/js`, against a real server: on Node and Deno, with laravel-echo, in Chromium, and as a
//! package. The scripts are in `tests/client`; they use the package as `npm pack` makes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::common::cli;
use crate::common::rig::{drivers, on_fresh_servers_at_once};
use crate::common::server::{Driver, ServerOptions, TestServer, data_directory};
use crate::common::tools::{self, Script, say_skipped};
use crate::tree;
use serde_json::{Value, json};
use tempfile::TempDir;

const DOCUMENT: &str = "docs/clients/javascript.md";

/// The folder of the package.
fn sources() -> PathBuf {
    tree::root().join("clients/js")
}

/// `target/tools/client`: Chromium's driver, Deno and TypeScript.
fn installed() -> &'static Path {
    static INSTALLED: LazyLock<PathBuf> = LazyLock::new(|| tools::installed("client").expect("npm is here"));
    &INSTALLED
}

/// A project as a customer has it: the packed client beside the pinned packages, and the scripts of the tests.
fn project() -> TempDir {
    let project = data_directory();
    let packages = project.path().join("node_modules");
    fs::create_dir_all(packages.join("@relay/client")).unwrap();
    for folder in [tools::node_project(), installed().to_owned()] {
        for entry in fs::read_dir(folder.join("node_modules")).unwrap().flatten() {
            let name = entry.file_name();
            // The names with a scope, and those in both folders, are dependencies, which packages find beside themselves.
            let link = packages.join(&name);
            if !name.to_string_lossy().starts_with(['.', '@']) && !link.exists() {
                symlink(entry.path(), link).unwrap();
            }
        }
    }
    let packed = pack(&["--pack-destination", project.path().to_str().unwrap()]);
    // Older versions of npm report a name with the scope's signs, which the file does not have.
    let filename = packed["filename"].as_str().unwrap().replace('@', "").replace('/', "-");
    let archive = project.path().join(filename);
    let target = packages.join("@relay/client");
    tools::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(target).args(["--strip-components", "1"]));
    for entry in fs::read_dir(tree::root().join("tests/client")).unwrap().flatten() {
        fs::copy(entry.path(), project.path().join(entry.file_name())).unwrap();
    }
    project
}

/// Runs `npm pack`; returns what it says about the package.
fn pack(arguments: &[&str]) -> Value {
    let mut command = Command::new("npm");
    command.args(["pack", "--json"]).args(arguments).current_dir(sources());
    let mut said: Value = serde_json::from_str(&tools::run(&mut command)).unwrap();
    said[0].take()
}

/// A script of `tests/client`, run by Node in such a project.
fn script(project: &TempDir, name: &str) -> Script {
    Script::command("node", &[project.path().join(name).to_str().unwrap()])
}

fn options(driver: Driver) -> ServerOptions {
    ServerOptions::new(driver)
}

/// R-CLIENT-1, R-CLIENT-4, R-CLIENT-6, R-CLIENT-8: the module on Node, with options in both styles; what pages see of
/// each way in which an auth endpoint fails.
#[test]
fn on_node() {
    let project = project();
    on_fresh_servers_at_once(options, |server| script(&project, "runtime.mjs").app(&server, server.app()).run());
}

/// R-CLIENT-8: the same on Deno.
#[test]
fn on_deno() {
    let project = project();
    let Some(script) = deno_script(&project, "runtime.mjs") else { return };
    let server = TestServer::start(drivers()[0]);
    script.app(&server, server.app()).run();
}

/// A script of `tests/client`, run by Deno in such a project.
fn deno_script(project: &TempDir, name: &str) -> Option<Script> {
    let Some(deno) = deno() else {
        say_skipped("npm has no Deno for this machine; the JavaScript client was not run on it");
        return None;
    };
    let path = project.path().join(name);
    let arguments = ["run", "--allow-all", "--no-lock", "--node-modules-dir=manual", path.to_str().unwrap()];
    let home = project.path().to_str().unwrap();
    Some(Script::command(deno.to_str().unwrap(), &arguments).variables(&[("DENO_DIR", home)]))
}

/// Deno's program in the package for this platform.
fn deno() -> Option<PathBuf> {
    let packages = fs::read_dir(installed().join("node_modules/@deno")).ok()?;
    packages.flatten().map(|entry| entry.path().join("deno")).find(|program| program.is_file())
}

/// R-CLIENT-5: 400 channels in 4 requests, each channel with a result of its own.
#[test]
fn batches() {
    let project = project();
    on_fresh_servers_at_once(options, |server| script(&project, "batch.mjs").app(&server, server.app()).run());
}

/// R-CLIENT-8, P-CFG-2: laravel-echo over the client.
#[test]
fn with_laravel_echo() {
    let project = project();
    on_fresh_servers_at_once(options, |server| script(&project, "echo.mjs").app(&server, server.app()).run());
}

/// R-CLIENT-1, R-CLIENT-3, R-CLIENT-4: the examples of the document in Chromium, with page, Relay and backend on three
/// origins of one site.
#[test]
fn in_a_page() {
    if !chromium_is_installed() {
        return;
    }
    let project = project();
    let examples = json!({"default": example("default"), "backend": example("backend")}).to_string();
    for &driver in drivers() {
        let server = TestServer::start(driver);
        let script = script(&project, "origins.mjs").arguments(&[&examples, &integrity(&server)]);
        script.app(&server, server.app()).run();
    }
}

/// R-CLIENT-1, R-CLIENT-4, R-CLIENT-5, R-AUTHEP-3, R-AUTHEP-5, threat T40: the document's example with Relay's own
/// endpoint, in Chromium: cookie and CSRF token of the page reach the backend through Relay, and a page of another
/// origin reads nothing.
#[test]
fn through_the_authorizer() {
    if !chromium_is_installed() {
        return;
    }
    let project = project();
    on_fresh_servers_at_once(options, |server| {
        let script = script(&project, "authorizer.mjs").arguments(&[&example("relay")]);
        let mut running = script.app(&server, server.app()).start();
        let port = running.line_after("port ");
        let backend = |path: &str| format!("http://127.0.0.1:{port}{path}");
        let urls = [("authorizer_url", backend("/relay/auth")), ("user_authorizer_url", backend("/relay/user"))];
        let settings = urls.map(|(name, url)| format!("{name}={url}"));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let origins = "allowed_origins=app.site.localhost";
        cli::set_app(&server.data, server.app(), &["authorizer_allow_private=true", origins]);
        cli::set_app(&server.data, server.app(), &settings);
        running.finish();
    });
}

/// R-SSE-6, R-SSE-7, R-SSE-8, R-HIST-7, threat T60: `EventSource` of Chromium loses and doubles nothing when its connection
/// is reset, with one channel and with several, and no name of an event fires its own handlers.
#[test]
fn event_sources_resume() {
    if !chromium_is_installed() {
        return;
    }
    let project = project();
    on_fresh_servers_at_once(options, |server| script(&project, "eventsource.mjs").app(&server, server.app()).run());
}

/// R-CLIENT-7, threat T105: tabs in Chromium share one connection, and no tab gets what it was not authorized for.
#[test]
fn in_several_tabs() {
    if !chromium_is_installed() {
        return;
    }
    let project = project();
    let server = TestServer::start(drivers()[0]);
    let mut script = script(&project, "tabs.mjs").app(&server, server.app()).start();
    // Each is reported when it is over: together they take longer than a script may be silent.
    for scenario in [
        "sharing",
        "leavingAChannel",
        "leaders",
        "crash",
        "users",
        "identities",
        "logout",
        "refusal",
        "dialog",
        "ordinary",
    ] {
        script.expect_line(scenario);
    }
    script.finish();
}

/// R-CLIENT-9 to R-CLIENT-12, R-HIST-7, R-HIST-10: resume with pusher-js 8.6, 8.0 and 7.6 on Node, and with laravel-echo
/// over each: lost connections, also in the middle of a frame, `disconnect()` and `connect()`, silence, unsubscribes,
/// more missed events than are kept, a restart of the server, other hosts.
#[test]
fn resume_on_node() {
    let project = &project();
    // They mostly wait for clients to connect again.
    std::thread::scope(|scope| {
        for version in ["pusher-js", "pusher-js-8.0", "pusher-js-7.6"] {
            scope.spawn(move || {
                on_fresh_servers_at_once(options, |server| resume(server, script(project, "resume.mjs"), version));
            });
        }
    });
}

/// R-CLIENT-8, R-CLIENT-9: the same on Deno.
#[test]
fn resume_on_deno() {
    let project = project();
    let Some(script) = deno_script(&project, "resume.mjs") else { return };
    resume(TestServer::start(drivers()[0]), script, "pusher-js");
}

/// Runs `resume.mjs` with a package of pusher-js, and restarts the server when it is ready for that.
fn resume(server: TestServer, script: Script, package: &str) {
    let mut running = script.arguments(&[package]).app(&server, server.app()).start();
    running.expect_line("restart");
    let address = server.address.to_string();
    let _server = server.restart(&["--listen", &address]);
    running.finish();
}

/// R-CLIENT-3, R-CLIENT-9 to R-CLIENT-12: `/relay-resume.js` in Chromium before and after each version of pusher-js,
/// under a strict Content-Security-Policy, with encrypted channels, laravel-echo and Relay's own client; the examples of
/// the document.
#[test]
fn resume_in_pages() {
    if !chromium_is_installed() {
        return;
    }
    let project = project();
    let server = TestServer::start(drivers()[0]);
    let names = ["resume-page", "resume-module", "resume-events"];
    let examples: BTreeMap<&str, String> = names.map(|name| (name, example_of("docs/history.md", name))).into();
    let script = script(&project, "resume_pages.mjs").arguments(&[&json!(examples).to_string()]);
    let mut script = script.app(&server, server.app()).start();
    for scenario in ["orders", "encrypted", "objects", "echo", "copies", "withClient", "sharing", "documented"] {
        script.expect_line(scenario);
    }
    script.finish();
}

/// R-CLIENT-9, R-CLIENT-10: connections of stock pusher-js in Chromium are reset while events are published, and by their
/// own counters no event is lost or comes twice. `RELAY_RESETS=1000` resets more of them, `RELAY_SEED` at other bytes.
#[test]
fn resume_after_many_resets() {
    if !chromium_is_installed() {
        return;
    }
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (resets, seed) = (variable("RELAY_RESETS", "50"), variable("RELAY_SEED", "1"));
    let objects = if resets.len() > 2 { "24" } else { "8" };
    let project = project();
    // More events than are published while a connection is away, so that there is no gap.
    let server = TestServer::start_with(options(drivers()[0]).app("resumed", &["history_events=1000"]));
    let script = script(&project, "resume_reconnects.mjs").arguments(&[&resets, objects, &seed]);
    let mut running = script.app(&server, server.named_app("resumed")).start();
    loop {
        let line = running.next_line();
        println!("{line}");
        if line.starts_with("done: ") {
            break;
        }
    }
    running.finish();
}

/// R-CLIENT-13, R-CLIENT-14, R-CLIENT-15, R-CLIENT-16, R-CLIENT-17, R-SSE-11, R-SSE-12: the module on Node behind a proxy
/// that refuses, swallows or breaks WebSockets, and holds streams: it reads by streams and polls, loses and doubles nothing
/// over resets and moves between transports, and says what HTTP cannot do. With a working WebSocket it sends no other
/// request.
#[test]
fn fallback_on_node() {
    let project = project();
    fallback(script(&project, "fallback.mjs"), "");
}

/// R-CLIENT-8, R-CLIENT-13 to R-CLIENT-15: the same on Deno, and with the oldest supported pusher-js.
#[test]
fn fallback_elsewhere() {
    let project = project();
    if let Some(script) = deno_script(&project, "fallback.mjs") {
        fallback(script, "working,moves,refusals");
    }
    let oldest = project.path().join("node_modules/pusher-js");
    fs::remove_file(&oldest).unwrap();
    symlink(installed().join("node_modules/pusher-js-8.0"), &oldest).unwrap();
    fallback(script(&project, "fallback.mjs"), "working,moves,gaps");
}

/// R-CLIENT-7, R-CLIENT-13, R-CLIENT-14, R-CLIENT-15, R-CLIENT-16, R-CLIENT-17: the classic script in Chromium, on a page of
/// another origin under a strict Content-Security-Policy, also beside `/relay-resume.js` and with shared tabs.
#[test]
fn fallback_in_pages() {
    if !chromium_is_installed() {
        return;
    }
    let project = project();
    fallback(script(&project, "fallback_pages.mjs"), "");
}

/// Runs scenarios of a script, or all of them, against a server that keeps all events of a scenario.
fn fallback(script: Script, scenarios: &str) {
    let server = TestServer::start_with(options(drivers()[0]).app("kept", &["history_events=1000"]));
    let mut running = script.arguments(&[scenarios]).app(&server, server.named_app("kept")).start();
    // Each case is reported when it is over: together they take longer than a script may be silent.
    loop {
        let line = running.next_line();
        println!("{line}");
        if line == "done" {
            break;
        }
    }
    running.finish();
}

/// `tests/run` installs it; under a plain `cargo test` the skipped test is reported.
fn chromium_is_installed() -> bool {
    let is_installed = Command::new("chromium").arg("--version").output().is_ok();
    if !is_installed {
        say_skipped(
            "chromium is not installed; the JavaScript client was not run in a browser (apt-get install chromium)",
        );
    }
    is_installed
}

/// An example of the document of the client.
fn example(name: &str) -> String {
    example_of(DOCUMENT, name)
}

/// The block of a document after the line `<!-- example: NAME -->`.
fn example_of(document: &str, name: &str) -> String {
    let text = tree::source(document).text;
    let (_, rest) = text.split_once(&format!("<!-- example: {name} -->\n")).unwrap_or_else(|| panic!("example {name}"));
    let (_, block) = rest.split_once('\n').unwrap();
    block.split("\n```").next().unwrap().to_owned()
}

/// The integrity value that the document's command prints for this server's script. Threat T56: it is that of the file.
fn integrity(server: &TestServer) -> String {
    let command = example("integrity").replace("https://relay.example.com", &format!("http://{}", server.address));
    let printed = tools::run(Command::new("bash").args(["-euo", "pipefail", "-c", &command]));
    let value = printed.trim().to_owned();
    let of_file = "openssl dgst -sha384 -binary relay.js | openssl base64 -A";
    let expected = tools::run(Command::new("bash").args(["-c", of_file]).current_dir(sources()));
    assert_eq!(value, format!("sha384-{expected}"));
    value
}

/// R-CLIENT-8: an application in TypeScript compiles, and its mistakes do not, under both ways to find modules.
#[test]
fn types() {
    let project = project();
    for modules in [["--module", "nodenext"].as_slice(), &["--module", "esnext", "--moduleResolution", "bundler"]] {
        let mut command = Command::new("node");
        command.arg("node_modules/typescript/bin/tsc").args(["--noEmit", "--strict", "--skipLibCheck"]);
        command.args(["--target", "es2022", "--lib", "es2022,dom"]).args(modules).arg("example.ts");
        tools::run(command.current_dir(project.path()));
    }
}

/// Threat T56: the package has our files and no others, no dependency that npm would install, no script that npm would
/// run, and cannot be published.
#[test]
fn package_contents() {
    let packed = pack(&["--dry-run"]);
    let mut paths: Vec<&str> =
        packed["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    let expected = [
        "README.md",
        "define.d.ts",
        "index.d.ts",
        "index.js",
        "package.json",
        "relay-resume.js",
        "relay.js",
        "resume.d.ts",
        "src/authorize.js",
        "src/define.js",
        "src/event_id.js",
        "src/event_stream.js",
        "src/fallback.js",
        "src/hosts.js",
        "src/hub.js",
        "src/last_ids.js",
        "src/link.js",
        "src/membership.js",
        "src/options.js",
        "src/over_http.js",
        "src/page.js",
        "src/place.js",
        "src/request.js",
        "src/resume.js",
        "src/resuming_socket.js",
        "src/shared_channel.js",
        "src/stream_socket.js",
        "src/tabs.js",
    ];
    assert_eq!(paths, expected);
    let manifest: Value = serde_json::from_str(&fs::read_to_string(sources().join("package.json")).unwrap()).unwrap();
    assert_eq!(manifest["private"], true);
    assert_eq!(manifest["peerDependencies"], json!({"pusher-js": "^8.0.0"}));
    for absent in ["dependencies", "optionalDependencies", "bundleDependencies", "scripts", "publishConfig"] {
        assert_eq!(manifest[absent], Value::Null, "{absent}");
    }
}

/// Threat T56: no text tells anybody to install the package by a name that somebody else may own.
#[test]
fn nothing_installs_the_package_by_name() {
    let mut texts = tree::sources("docs", &[".md"]);
    texts.extend(tree::sources("clients", &[".md", ".js", ".mjs", ".ts"]));
    texts.push(tree::source("README.md"));
    let installs = ["npm install", "npm i", "npm add", "yarn add", "pnpm add", "bun add", "deno add", "npx"];
    for text in texts {
        for line in text.text.lines() {
            let by_name = installs.iter().any(|install| line.contains(&format!("{install} @relay/")));
            assert!(!by_name && !line.contains("npm:@relay/"), "{}: {line}", text.path);
        }
    }
}

/// The served scripts are those that `build.mjs` makes from the modules.
#[test]
fn scripts_are_current() {
    tools::run(Command::new("node").args(["build.mjs", "--check"]).current_dir(sources()));
}
