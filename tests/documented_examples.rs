//! Examples from other products' documents, run as written except for host, port and credentials: programs that work
//! for their users work here. The programs are in `tests/sdk/examples`.

use std::fs;

use crate::common::rig::on_fresh_servers;
use crate::common::server::ServerOptions;
use crate::common::socket::Socket;
use crate::common::tools::{Script, node_project, python, sdk_sources};
use crate::common::{cli, eventually};

/// R-AUTH-1, R-AUTH-2, R-PUB-1, R-BASE-1: the documented `curl` lines with key and secret headers and with a token publish.
#[test]
fn documented_curl_lines_publish() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let token = cli::create_token(&server.data, app, &[]).token;
        let mut socket = Socket::open(&server, app);
        socket.subscribe("ch");
        for name in ["curl_headers.sh", "curl_bearer.sh"] {
            let script = sdk_sources().join("examples").join(name);
            eventually("the token is known and the curl publishes", || {
                let output = cli::command("sh")
                    .arg(&script)
                    .env("RELAY_HOST", server.address.ip().to_string())
                    .env("RELAY_PORT", server.address.port().to_string())
                    .env("RELAY_APP_ID", &app.id)
                    .env("RELAY_KEY", &app.key)
                    .env("RELAY_SECRET", &app.secret)
                    .env("RELAY_TOKEN", &token)
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                (output.stdout == b"{}").then_some(())
            });
            socket.expect_data("event", "ch", "{}");
        }
        socket.expect_quiet();
    });
}

/// R-RECIPE-2, R-RECIPE-5, P-AUTH-7, R-PIT-1: the documented Express endpoint signs for its user alone.
///
/// The example is TypeScript. It becomes JavaScript by dropping its only two kinds of annotation: `!` after
/// `process.env.NAME`, and `: string` after a variable's name. The example leaves `requireAuth` and the port to its
/// reader; both are added at the end.
#[test]
fn documented_express_endpoint() {
    let example = fs::read_to_string(sdk_sources().join("examples/express_auth.ts")).unwrap();
    let script: Vec<String> = example
        .lines()
        .map(
            |line| {
                if line.contains("process.env.") { line.replace("!,", ",") } else { line.replace(": string =", " =") }
            },
        )
        .collect();
    let reader = "
function requireAuth(request, response, next) {
  response.locals.userId = request.get('X-User');
  if (response.locals.userId) next();
  else response.sendStatus(401);
}
const listener = app.listen(0, '127.0.0.1', () => console.log(`port ${listener.address().port}`));
";
    let name = format!("express_auth.{}.mjs", std::process::id());
    let path = node_project().join(&name);
    fs::write(&path, script.join("\n") + reader).unwrap();
    on_fresh_servers(ServerOptions::new, |server| {
        let mut endpoint = Script::node(&name).app(&server, server.app()).start();
        let port = endpoint.line_after("port ");
        let url = format!("http://127.0.0.1:{port}/pusher/auth");
        Script::node("user_client.mjs").arguments(&[&url]).app(&server, server.app()).run();
    });
    let _ = fs::remove_file(path);
}

/// R-RECIPE-4, R-RECIPE-5, P-AUTH-7, R-PIT-1: the documented Flask endpoint signs for its user alone.
#[test]
fn documented_flask_endpoint() {
    let examples = sdk_sources().join("examples");
    on_fresh_servers(ServerOptions::new, |server| {
        let endpoint = Script::python(&python(), "flask_login.py").arguments(&[examples.to_str().unwrap()]);
        let mut endpoint = endpoint.app(&server, server.app()).start();
        let port = endpoint.line_after("port ");
        let url = format!("http://127.0.0.1:{port}/pusher/auth");
        Script::node("user_client.mjs").arguments(&[&url]).app(&server, server.app()).run();
    });
}
