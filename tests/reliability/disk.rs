//! A disk that fails under a running server (R11): every kind of commit failure.

use std::fs;

use relay::store::{Missing, Store};
use serde_json::json;

use super::power_loss::{recorded, start_once};
use crate::common::http::HttpConnection;
use crate::common::server::{TestServer, data_directory};
use crate::common::socket::Socket;
use crate::common::{cli, eventually};

/// R11: a sync that fails, a write without space, and a meta page that cannot be written: the change is refused with
/// 503 and not made, delivery continues, and the next change after the disk works again is made. After `kill -9` the
/// store has exactly the acknowledged changes. The failures come from the server's C library, where it reaches the
/// disk.
#[test]
fn a_failing_disk_refuses_changes_and_nothing_else() {
    let place = data_directory();
    let data = place.path().join("data");
    let app = cli::create_app(&data, &[]);
    start_once(&data);
    let server = recorded(&data, &place.path().join("record"), &[]);
    let adopted = TestServer::adopt(server.address, app.clone());
    let mut socket = Socket::open(&adopted, &app);
    socket.subscribe("a");
    let mut connection = HttpConnection::open(server.address);
    let headers = [("X-Relay-Key", app.key.as_str()), ("X-Relay-Secret", app.secret.as_str())];
    let mut add = |url: &str| {
        connection.send("POST", &app.path("/webhooks"), &headers, json!({ "url": url }).to_string().as_bytes());
        connection.read().status
    };
    let mut made = Vec::new();
    for (number, failure) in ["S", "N", "M", "S"].iter().enumerate() {
        fs::write(place.path().join("fail"), failure).unwrap();
        let refused = format!("https://example.com/refused/{number}");
        assert_eq!(add(&refused), 503, "{failure}");
        adopted.publish(&app, "a", "e", failure);
        socket.expect_data("e", "a", failure);
        fs::remove_file(place.path().join("fail")).unwrap();
        let url = format!("https://example.com/{number}");
        eventually("the disk is well again", || (add(&url) == 201).then_some(()));
        made.push(url);
    }
    server.end();
    let store = Store::open(&data, Missing::Refuse).unwrap();
    let urls: Vec<String> =
        store.webhooks(Some(&app.id)).unwrap().into_iter().map(|(_, webhook)| webhook.url).collect();
    assert_eq!(urls, made);
}
