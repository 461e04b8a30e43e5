//! The examples of `docs/admin.md`, run as written but for the address, the token and the name of the binary.

use serde_json::{Deserializer, Value};

use super::server;
use crate::common::admin::Admin;
use crate::common::{cli, eventually};

/// A block of shell commands, and the block of JSON after it.
struct Example<'d> {
    commands: &'d str,
    answer: Option<&'d str>,
}

fn examples(document: &str) -> Vec<Example<'_>> {
    let mut examples: Vec<Example<'_>> = Vec::new();
    let mut rest = document;
    while let Some((_, block)) = rest.split_once("\n```") {
        let (body, after) = block.split_once("\n```").expect("a block ends");
        let (language, text) = body.split_once('\n').expect("a block has lines");
        match language {
            "sh" => examples.push(Example { commands: text, answer: None }),
            "json" => examples.last_mut().expect("an example before its answer").answer = Some(text),
            _ => {}
        }
        rest = after;
    }
    examples
}

/// Every member that the document shows is there, with a value of the same type.
fn assert_shape(shown: &Value, found: &Value, at: &str) {
    match (shown, found) {
        (Value::Object(shown), Value::Object(found)) => {
            for (name, value) in shown {
                assert_shape(value, found.get(name).unwrap_or_else(|| panic!("{at}.{name} in {found:?}")), name);
            }
        }
        (Value::Array(shown), Value::Array(found)) => {
            assert!(shown.is_empty() || !found.is_empty(), "{at} is empty");
            shown.iter().zip(found).for_each(|(shown, found)| assert_shape(shown, found, at));
        }
        (Value::Bool(shown), Value::Bool(found)) => assert_eq!(shown, found, "{at}"),
        _ => assert_eq!(std::mem::discriminant(shown), std::mem::discriminant(found), "{at}: {shown} and {found}"),
    }
}

/// R-ADMIN-1, R-ADMIN-13: every example of the page works in its order, and its answer has what the page shows.
#[test]
fn the_examples_of_the_page_work() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/admin.md")).expect("the page");
    let mut run = 0;
    for Example { commands, answer } in examples(&page) {
        let lines = commands.lines().filter(|line| !line.starts_with("export RELAY_ADMIN_TOKEN="));
        let commands = lines.collect::<Vec<_>>().join("\n").replace("127.0.0.1:6002", &admin.address.to_string());
        let script = format!("set -e\nrelay() {{ '{}' \"$@\"; }}\n{commands}\n", cli::binary());
        let run_once = || {
            let mut command = cli::command("sh");
            command.args(["-c", &script]).env("RELAY_ADMIN_TOKEN", &admin.token).env("RELAY_DATA", &server.data);
            let output = command.output().expect("a shell");
            let text = |bytes| String::from_utf8(bytes).expect("text");
            let (stdout, stderr) = (text(output.stdout), text(output.stderr));
            assert!(output.status.success(), "{commands}\n{stdout}\n{stderr}");
            stdout
        };
        // Shards know of a change at most 2 s after it (R-ADMIN-18).
        let is_for_shards = commands.contains("/replay");
        let stdout = eventually(&commands, || {
            let stdout = run_once();
            let is_refused = stdout.contains(r#""error":"#);
            assert!(!is_refused || is_for_shards, "{commands}\n{stdout}");
            (!is_refused).then_some(stdout)
        });
        if let Some(answer) = answer {
            let last = Deserializer::from_str(&stdout).into_iter::<Value>().last();
            let found = last.expect("an answer").unwrap_or_else(|error| panic!("{error}: {stdout}"));
            assert_shape(&serde_json::from_str(answer).expect("the page has JSON"), &found, "answer");
        }
        run += 1;
    }
    assert!(run >= 10, "{run} examples");
}
