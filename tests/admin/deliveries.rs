//! Tests of webhook endpoints, and failed deliveries (R-ADMIN-23).

use std::io::Read;
use std::net::TcpListener;
use std::thread;

use relay::app::AppSerial;
use relay::store::Missing;
use relay::store::queue::{Change, Delivery, FailedDelivery, Queue};
use serde_json::{Value, json};

use super::server;
use crate::common::admin::Admin;
use crate::common::cli;
use crate::common::receiver::{Receiver, Reply};

fn create(admin: &Admin, app: &str, url: &str) -> String {
    let made = admin.create(&format!("/apps/{app}/webhooks"), &json!({"url": url, "allow_private": true}));
    made["id"].as_str().expect("an id").to_owned()
}

fn test(admin: &Admin, path: &str) -> Value {
    admin.ask("POST", &format!("{path}/test"), None).expect(200).json()
}

/// R-ADMIN-23: an endpoint is sent one signed event, and what it answers is shown, over HTTP and by the command on another
/// machine, which fails unless that is 2xx.
#[test]
fn endpoints_are_tested() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let receiver = Receiver::with(|number, _| Reply::Status(if number == 1 { 418 } else { 204 }));
    let id = create(&admin, &app.id, &receiver.url());

    let tested = test(&admin, &format!("/apps/{}/webhooks/{id}", app.id));
    let delivered = json!({
        "id": id, "app": app.id, "url": receiver.url(), "delivered": true, "status": 204, "reason": null,
    });
    assert_eq!(tested, delivered);
    let event = receiver.until("the test", |received| received.first().cloned());
    event.check_pusher(app);
    assert_eq!(event.events()[0]["name"], "test");

    let refused = test(&admin, &format!("/webhooks/{id}"));
    assert_eq!((&refused["delivered"], &refused["status"]), (&json!(false), &json!(418)), "{refused}");
    assert!(refused["reason"].as_str().is_some_and(|reason| reason.starts_with("answered 418")), "{refused}");

    let remote = |id: &str| {
        let mut command = cli::command(cli::binary());
        command.env("RELAY_ADMIN_TOKEN", &admin.token).args(["webhook", "test", id]);
        command.arg("--server").arg(format!("http://{}", admin.address)).output().expect("the binary starts")
    };
    let output = remote(&id);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("webhook {id} answered 204\n"));
    let nowhere = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    let gone = create(&admin, &app.id, &format!("http://{nowhere}/"));
    let output = remote(&gone);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains(&format!("{gone} at http://{nowhere}/: ")), "{told}");
    let unreached = test(&admin, &format!("/webhooks/{gone}"));
    assert!(unreached["status"].is_null() && unreached["delivered"] == false, "{unreached}");

    admin.ask("POST", "/webhooks/wh_none/test", None).expect(404);
    admin.ask("POST", &format!("/apps/none/webhooks/{id}/test"), None).expect(404);
    let other = admin.create("/apps", &json!({"name": "other"}));
    let path = format!("/apps/{}/webhooks/{id}/test", other["id"].as_str().expect("an id"));
    admin.ask("POST", &path, None).expect(404);
}

/// R-ADMIN-23, T76: a test reaches nothing that webhooks may not reach: an endpoint whose name has an internal address is
/// not connected to.
#[test]
fn tests_reach_public_addresses_only() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let receiver = Receiver::start();
    for host in ["localhost", "LOCALHOST.", "ip6-localhost"] {
        let url = format!("https://{host}:{}/hook", receiver.address.port());
        let made = admin.create(&format!("/apps/{}/webhooks", app.id), &json!({"url": url}));
        let tested = test(&admin, &format!("/webhooks/{}", made["id"].as_str().expect("an id")));
        assert_eq!((&tested["delivered"], &tested["status"]), (&json!(false), &json!(null)), "{tested}");
    }
    let named = format!("https://localhost:{}/", receiver.address.port());
    let made = admin.create(&format!("/apps/{}/webhooks", app.id), &json!({"url": named}));
    let tested = test(&admin, &format!("/webhooks/{}", made["id"].as_str().expect("an id")));
    assert!(tested["reason"].as_str().is_some_and(|reason| reason.contains("is not a public address")), "{tested}");
    assert_eq!(receiver.connections(), 0);
}

/// R-ADMIN-23: one endpoint is tested at a time, and one that does not answer holds nothing else up.
#[test]
fn tests_take_turns() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let id = create(&admin, &app.id, &format!("http://{}/", silent.local_addr().expect("its address")));
    let path = format!("/webhooks/{id}");
    thread::scope(|scope| {
        let first = scope.spawn(|| test(&admin, &path));
        let (mut connection, _) = silent.accept().expect("a connection");
        connection.read_exact(&mut [0; 4]).expect("a request");
        let refused = admin.ask("POST", &format!("{path}/test"), None).expect(503);
        assert!(refused.header("retry-after").is_some());
        admin.ask("GET", "/apps", None).expect(200);
        drop(connection);
        assert_eq!(first.join().expect("an answer")["delivered"], false);
    });
}

/// R-ADMIN-23: failed deliveries are listed with the newest first, in pages and by app; the command has the oldest first.
#[test]
fn failed_deliveries_are_listed() {
    let server = server();
    let (admin, app) = (Admin::of(&server, &[]), server.app());
    assert_eq!(admin.get("/failed-deliveries"), json!({"items": [], "next": null}));
    let id = create(&admin, &app.id, "https://example.com/hook");
    let serial = relay_serial(&server.data, &app.id);
    let queue = Queue::open(&server.data, Missing::Refuse).expect("the queue of the server");
    let failures = (1..=5_u64).map(|number| {
        // The last one is of an app that was deleted.
        let app = if number == 5 { serial + 1_000 } else { serial };
        let failed = FailedDelivery {
            app,
            endpoint: id.clone(),
            created_at_ms: 1_000 * number,
            failed_at_ms: 1_000 * number + 500,
            attempts: 5,
            reason: format!("answered 500: number {number}"),
        };
        let delivery = Delivery {
            number,
            app: AppSerial(app),
            endpoint: id.as_str().into(),
            queue: 0,
            created_ms: failed.created_at_ms,
            attempts: 5,
            next_at_ms: 0,
            body_bytes: 0,
        };
        Change::Failed(delivery, failed)
    });
    queue.commit(&failures.collect::<Vec<_>>()).expect("a commit");

    let reasons = |list: &Value| -> Vec<String> {
        let items = list.as_array().expect("a list").iter();
        items
            .map(|item| item["reason"].as_str().expect("text").trim_start_matches("answered 500: ").to_owned())
            .collect()
    };
    let page = admin.get("/failed-deliveries?limit=2");
    assert_eq!(reasons(&page["items"]), ["number 5", "number 4"]);
    assert!(page["items"][0]["app"].is_null());
    let item = &page["items"][1];
    assert_eq!((&item["app"], &item["webhook"], &item["attempts"]), (&json!(app.id), &json!(id), &json!(5)));
    for time in ["created_at", "failed_at"] {
        assert!(item[time].as_str().is_some_and(|time| time.starts_with("1970-01-01T00:00:04")), "{item}");
    }
    let next = page["next"].as_str().expect("a cursor");
    let page = admin.get(&format!("/failed-deliveries?limit=9&cursor={next}"));
    assert_eq!(
        (reasons(&page["items"]), &page["next"]),
        (vec!["number 3".into(), "number 2".into(), "number 1".into()], &json!(null))
    );
    let of_app = admin.get(&format!("/apps/{}/failed-deliveries", app.id));
    assert_eq!(reasons(&of_app["items"]), ["number 4", "number 3", "number 2", "number 1"]);
    admin.ask("GET", "/apps/none/failed-deliveries", None).expect(404);
    admin.ask("GET", "/failed-deliveries?cursor=x", None).expect(400);

    let listed = cli::run_json(&["webhook", "failed", "--json", "--data", server.data.to_str().expect("text")]);
    assert_eq!(reasons(&listed), ["number 1", "number 2", "number 3", "number 4", "number 5"]);
}

fn relay_serial(data: &std::path::Path, app: &str) -> u32 {
    let store = relay::store::Store::open(data, Missing::Refuse).expect("the store of the server");
    store.app(app).expect("the app").serial
}
