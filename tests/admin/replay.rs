//! Kept events published again by an operator (R-REPLAY rules).

use serde_json::{Value, json};

use crate::common::admin::Admin;
use crate::common::rig::on_fresh_servers_at_once;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::{App, Signing};
use crate::common::socket::Socket;
use crate::common::{eventually, http};

/// Runs a scenario with 1 and with 3 shards on both drivers, each server with two apps.
fn with_shards(scenario: impl Fn(&TestServer) + Sync) {
    for shards in [1, 3] {
        let options = |driver| ServerOptions::new(driver).app("other", &[]).shards(shards).admin();
        on_fresh_servers_at_once(options, |server| scenario(&server));
    }
}

/// Publishes an event; returns its id.
#[track_caller]
fn publish(server: &TestServer, app: &App, channel: &str, data: &str) -> String {
    server.publish(app, channel, "e", data);
    let last = history(server, app, channel).pop().expect("it is kept");
    last["id"].as_str().expect("an id").to_owned()
}

fn history(server: &TestServer, app: &App, channel: &str) -> Vec<Value> {
    let path = app.path(&format!("/channels/{channel}/history"));
    let answer = http::get(server.address, &Signing::new(app, "GET", &path, b"").target()).expect(200).json();
    answer["events"].as_array().expect("a list").clone()
}

/// R-REPLAY-1, R-REPLAY-2, R-REPLAY-3, T62: an operator publishes events of one app to another one, whose subscribers
/// get them in the order of the ids; to weaker channels on request only.
#[test]
fn events_are_published_to_another_app() {
    with_shards(|server| {
        let (admin, app, other) = (Admin::of(server, &[]), server.app(), server.named_app("other"));
        let ids: Vec<String> = (0..20).map(|n| publish(server, app, &format!("private-{n}"), &n.to_string())).collect();
        let mut socket = Socket::open(server, other);
        for channel in ["private-3", "private-all", "public"] {
            socket.subscribe(channel);
        }
        let path = format!("/apps/{}/replay", app.id);
        let ask = |body: &Value| admin.ask("POST", &path, Some(body));
        let to = |ids: &[String], channel: Option<&str>| {
            json!({
                "event_ids": ids, "target_app_id": other.id, "target_channel": channel,
            })
        };
        let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
        let answer = ask(&to(&newest_first, Some("private-all"))).expect(200).json();
        assert_eq!(answer, json!({"replayed": 20, "missing": []}));
        for n in (0..20).rev() {
            socket.expect_data("e", "private-all", &n.to_string());
        }
        assert_eq!(ask(&to(&ids, None)).expect(200).json()["replayed"], 20);
        socket.expect_data("e", "private-3", "3");
        let mut public = to(&ids[..1], Some("public"));
        let refusal = ask(&public).expect(403).json();
        assert!(refusal["message"].as_str().expect("text").contains("event_ids[0]"), "{refusal}");
        public["declassify"] = json!(true);
        ask(&public).expect(200);
        socket.expect_data("e", "public", "0");
        let sealed = publish(server, app, "private-encrypted-a", "sealed");
        ask(&to(&[sealed], Some("public"))).expect(400);
        socket.expect_quiet();
        // Within the app: other ids are missing there.
        let foreign = history(server, other, "private-all").pop().expect("kept")["id"].clone();
        let body = json!({"event_ids": [ids[0], foreign]});
        assert_eq!(ask(&body).expect(200).json(), json!({"replayed": 1, "missing": [foreign]}));
        assert_eq!(history(server, app, "private-0").len(), 2);
    });
}

/// R-REPLAY-1, R-ADMIN-4, R-ADMIN-13, T51: each call that names apps is in the audit log, before it takes effect; a
/// read-only credential is 403, and errors name the field.
#[test]
fn calls_are_audited_and_checked() {
    with_shards(|server| {
        let (admin, app, other) = (Admin::of(server, &[]), server.app(), server.named_app("other"));
        let id = publish(server, app, "private-a", "x");
        let path = format!("/apps/{}/replay", app.id);
        let ask = |body: &Value| admin.ask("POST", &path, Some(body));
        let with = |name: &str, value: Value| {
            let mut body = json!({"event_ids": [id]});
            body[name] = value;
            body
        };
        for (body, status, part) in [
            (json!({}), 400, "\\\"event_ids\\\" is missing"),
            (with("event_ids", json!([])), 400, "event_ids is empty"),
            (with("event_ids", json!(["x"])), 400, "event_ids[0] takes the id of an event"),
            (with("target", json!("x")), 400, "There is no field \\\"target\\\""),
            (with("target_app_id", json!("none")), 404, "none"),
            (with("declassify", json!(1)), 400, "declassify takes true or false"),
        ] {
            let answer = ask(&body).expect(status);
            assert!(answer.text().contains(part), "{body}: {}", answer.text());
        }
        admin.ask("POST", "/apps/none/replay", Some(&json!({"event_ids": [id]}))).expect(404);
        let body = json!({
            "event_ids": [id, id], "target_app_id": other.id, "target_channel": "a", "declassify": true,
        });
        Admin::of(server, &["--read-only"]).ask("POST", &path, Some(&body)).expect(403);
        let entries = || {
            let audit = admin.get(&format!("/audit?app={}&limit=100", app.id));
            let entries = audit["items"].as_array().expect("a list").clone();
            entries.into_iter().filter(|entry| entry["action"] == "events.replay").collect::<Vec<Value>>()
        };
        assert!(entries().is_empty());
        assert_eq!(ask(&body).expect(200).json()["replayed"], 2);
        let [entry] = &entries()[..] else { panic!("one entry: {:?}", entries()) };
        assert_eq!((&entry["actor"]["kind"], &entry["actor"]["id"]), (&json!("admin_token"), &json!(admin.id)));
        let changes = json!([
            {"field": "event_ids", "to": "2"},
            {"field": "target_app_id", "to": other.id},
            {"field": "target_channel", "to": "a"},
            {"field": "declassify", "to": "true"},
        ]);
        assert_eq!(entry["changes"], changes);
        // The name of the channel is checked by the shard.
        ask(&with("target_channel", json!("a b"))).expect(400);
        admin.ask("POST", &format!("/apps/{}/disable", other.id), None).expect(200);
        eventually("the shards know that the app is disabled", || (ask(&body).status == 403).then_some(()));
        assert_eq!(history(server, app, "private-a").len(), 1);
    });
}
