//! Server SDKs constructed as in their documentation: by options and by `PUSHER_URL`.

use super::options;
use crate::common::rig::on_fresh_servers;
use crate::common::server::TestServer;
use crate::common::socket::Socket;
use crate::common::tools::{Script, python};

/// P-CFG-3, P-CFG-7: the SDK for Node by options and by `Pusher.forURL` publishes.
#[test]
fn node_sdk_as_configured() {
    publishes_in_each_way(|| Script::node("configured.mjs"), &["options", "url"]);
}

/// P-CFG-5, P-CFG-7: the SDK for Python by its arguments, by `from_url` and by `from_env` publishes.
#[test]
fn python_sdk_as_configured() {
    let interpreter = python();
    publishes_in_each_way(|| Script::python(&interpreter, "configured.py"), &["options", "url", "environment"]);
}

/// A subscriber gets one event from each SDK that the script constructs, named after the way.
fn publishes_in_each_way(script: impl Fn() -> Script, ways: &[&str]) {
    on_fresh_servers(options, |server: TestServer| {
        let mut socket = Socket::open(&server, server.app());
        socket.subscribe("news");
        let app = server.app();
        let url = format!("http://{}:{}@{}/apps/{}", app.key, app.secret, server.address, app.id);
        script().variables(&[("PUSHER_URL", &url)]).app(&server, app).run();
        for way in ways {
            assert_eq!(socket.expect_event(way)["channel"], "news");
        }
    });
}
