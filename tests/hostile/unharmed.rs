//! Properties that every attack must leave unchanged.

use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::socket::Socket;

/// Runs an attack on a separate server, once per driver. Before, between and after, a subscriber of the same app
/// gets its events; at the end memory has grown by no more than `grown_bytes_max`.
pub(crate) fn unharmed_by(grown_bytes_max: u64, attack: impl Fn(&TestServer)) {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let mut bystander = Socket::open(&server, app);
        bystander.subscribe("private-bystander");
        server.publish(app, "private-bystander", "e", "before");
        bystander.expect_data("e", "private-bystander", "before");
        drop((0..16).map(|_| Socket::open(&server, app)).collect::<Vec<_>>());
        let before = server.resident_bytes();
        attack(&server);
        server.publish(app, "private-bystander", "e", "after");
        bystander.expect_data("e", "private-bystander", "after");
        bystander.expect_quiet();
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown <= grown_bytes_max, "memory grew by {grown} bytes");
        let log = server.log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(!log.contains(&app.secret), "threat T27: the log holds a secret");
    });
}

/// The target of a socket of the server's app.
pub(crate) fn socket_target(server: &TestServer) -> String {
    format!("/app/{}?protocol=7", server.app().key)
}
