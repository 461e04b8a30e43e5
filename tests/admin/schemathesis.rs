//! The OpenAPI documents against the running server: schemathesis generates requests from a document, valid and
//! invalid ones, and checks that each answer is one that the document has.

use std::process::Command;

use super::server;
use crate::common::admin::Admin;
use crate::common::cli;
use crate::common::server::data_directory;
use crate::common::tools::installed;

/// Runs schemathesis against a document for half a minute, with these values for parameters of paths.
///
/// Four of its checks do not apply. A valid body may be refused for its meaning (`positive_data_acceptance`), such as a
/// name whose characters need too many bytes; an object may be deleted by another request of the run
/// (`ensure_resource_availability`); and credentials are tested in `access`, since many wrong ones are 429
/// (`ignored_auth`, `missing_required_header`).
#[track_caller]
fn check(url: &str, headers: &[String], parameters: &str) {
    const EXCLUDED: &str = "positive_data_acceptance,ensure_resource_availability,ignored_auth,missing_required_header";
    let program = installed("schemathesis").expect("Python 3 is here").join("env/bin/schemathesis");
    let directory = data_directory();
    let config = directory.path().join("schemathesis.toml");
    // A body or head beyond its bound is refused by that.
    let text = format!("{parameters}\n[checks]\nnegative_data_rejection.expected-statuses = [\"4xx\"]\n");
    std::fs::write(&config, text).expect("a file");
    let mut command: Command = cli::command("setpriv");
    // It keeps what it finds in the working directory.
    command.current_dir(directory.path());
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(["--no-color", "--config-file"]).arg(config);
    command.args(["run", url, "--checks", "all", "--exclude-checks", EXCLUDED]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-time", "30", "--max-examples", "20", "--seed", "1"]);
    command.args([
        "--continue-on-failure",
        "--warnings",
        "off",
        "--request-timeout",
        "20",
        "--generation-database",
        "none",
    ]);
    for header in headers {
        command.args(["--header", header]);
    }
    let output = command.output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
}

/// R-ADMIN-20, R-ERR-1: every answer of the admin API is one that its document has: status, type, body, headers; requests
/// that the document excludes are refused; no request causes a 5xx.
#[test]
fn the_admin_api_does_what_its_document_says() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let url = format!("http://{}/openapi.json", admin.address);
    // The app of most requests is there, and neither it nor the token in use is removed before the end.
    let parameters = format!(
        "[parameters]\n\"path.app\" = \"{}\"\n\
         [[operations]]\ninclude-name = \"DELETE /apps/{{app}}\"\nparameters = {{ \"path.app\" = \"none\" }}\n\
         [[operations]]\ninclude-name = \"DELETE /admin-tokens/{{token}}\"\nparameters = {{ \"path.token\" = \"none\" }}\n",
        server.app().id
    );
    check(&url, &[format!("Authorization: Bearer {}", admin.token)], &parameters);
    admin.get(&format!("/apps/{}", server.app().id));
    let created = admin.get("/apps?limit=1000");
    assert!(created["items"].as_array().expect("a list").len() > 1, "requests of the run passed: {created}");
    server.assert_alive();
}

/// R-ADMIN-20, R-BASE-1, R-ERR-1: the same for the app API, with key and secret.
#[test]
fn the_app_api_does_what_its_document_says() {
    let server = server();
    let app = server.app();
    let url = format!("http://{}/openapi.json", server.address);
    // A stream has no end, and most polls end with their time (`streams` tests both).
    let parameters = format!(
        "[parameters]\n\"path.app\" = \"{}\"\n\
         [[operations]]\ninclude-name = \"GET /apps/{{app}}/sse\"\nenabled = false\n\
         [[operations]]\ninclude-name = \"GET /apps/{{app}}/poll\"\nparameters = {{ \"query.timeout\" = 1 }}\n",
        app.id
    );
    check(&url, &[format!("X-Relay-Key: {}", app.key), format!("X-Relay-Secret: {}", app.secret)], &parameters);
    server.assert_alive();
}
