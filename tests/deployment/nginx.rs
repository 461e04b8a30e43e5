//! nginx, with one mistake at a time.

use super::*;

const NGINX: Proxy = Proxy::Nginx;
const HOP: Option<&str> = Some("nginx");
const UPGRADE: &str = "proxy_set_header Upgrade $http_upgrade;";
const CONNECTION: &str = "proxy_set_header Connection $connection_upgrade;";
const VERSION: &str = "proxy_http_version 1.1;";
const PASS: &str = "proxy_pass http://relay;";
const BODY: &str = "client_max_body_size 24m;";

/// R-DIAG-2: the configuration of docs/proxies.md.
#[test]
fn nginx_as_documented() {
    documented_is_well(NGINX);
}

/// R-SSE-6: events pass it at once.
#[test]
fn nginx_streams() {
    streams_pass(NGINX);
}

/// R-DIAG-2: self-signed, expired, for another name, and no TLS at all.
#[test]
fn nginx_certificates() {
    certificates_are_judged(NGINX);
}

/// R-DIAG-2: nginx's defaults, and each of the three lines that WebSockets need missing alone.
#[test]
fn nginx_upgrade() {
    let defaults = Deployment::changed(NGINX, &[(UPGRADE, ""), (CONNECTION, ""), (VERSION, "")]).examine(&[]);
    defaults.expect("websocket", "problem", HOP, &["drops the header Upgrade", "426", UPGRADE, CONNECTION]);
    defaults.expect("http_version", "problem", HOP, &["HTTP/1.0", VERSION]);
    defaults.expect_only(&["websocket", "http_version"]);
    let report = Deployment::changed(NGINX, &[(UPGRADE, "")]).examine(&[]);
    report.expect("websocket", "problem", HOP, &["drops the header Upgrade", UPGRADE]);
    let report = Deployment::changed(NGINX, &[(CONNECTION, "")]).examine(&[]);
    report.expect("websocket", "problem", HOP, &["drops the header Connection", CONNECTION]);
    let report = Deployment::changed(NGINX, &[(VERSION, "")]).examine(&[]);
    report.expect("websocket", "problem", HOP, &["HTTP/1.0", VERSION]);
}

/// R-DIAG-2: Relay is down, or the port is wrong.
#[test]
fn nginx_down() {
    let nowhere = free_address(0).expect("a free port").to_string();
    let mut deployment = Deployment::changed(NGINX, &[]);
    deployment.running.kill();
    let changed = [("server 127.0.0.1:", &*format!("server {nowhere}; #"))];
    let report = Deployment::changed(NGINX, &changed).examine(&[]);
    report.expect("relay", "problem", HOP, &["nginx/", "502", "does not reach Relay", "server 127.0.0.1:6001;"]);
    report.expect_only(&["relay"]);
    let report = deployment.examine(&[]);
    report.expect("address", "problem", None, &["refused"]);
}

/// R-DIAG-2: a silent WebSocket is closed; the time is measured, and the default alone is a hint.
#[test]
fn nginx_idle() {
    let short = Deployment::changed(NGINX, &[("proxy_read_timeout 75s;", "proxy_read_timeout 1s;")]);
    let report = short.examine(&["--idle", "20"]);
    report.expect_closed_when_idle(HOP, "proxy_read_timeout 75s;");
    let right = Deployment::changed(NGINX, &[]);
    right.examine(&["--idle", "2"]).expect("idle", "ok", None, &["open after 2 s"]);
    right.examine(&[]).expect("idle", "ok", None, &["at least every 50 s", "nginx closes after 60 s"]);
    let slow = ["--trusted-proxies", "127.0.0.1", "--activity-timeout", "120"];
    let slow = Deployment::start(NGINX, &Options { server: Some(&slow), ..Options::default() });
    slow.examine(&[]).expect("idle", "advice", HOP, &["at least every 130 s", "60 s by default"]);
}

/// R-DIAG-2: a limit of bodies, with the size that passes; nginx's own default is enough.
#[test]
fn nginx_body() {
    let report = Deployment::changed(NGINX, &[(BODY, "client_max_body_size 100k;")]).examine(&[]);
    report.expect("body", "problem", HOP, &["413", "65536 pass", BODY]);
    report.expect_only(&["body"]);
    Deployment::changed(NGINX, &[(BODY, "")]).examine(&[]).expect_well(&["body"]);
}

/// R-DIAG-2, R-BASE-2: a path behind the upstream's name makes nginx decode escapes and merge slashes; with a prefix it
/// also removes that.
#[test]
fn nginx_paths() {
    let report = Deployment::changed(NGINX, &[(PASS, "proxy_pass http://relay/;")]).examine(&[]);
    report.expect("path", "problem", HOP, &["%2D", "rewritten", PASS]);
    report.expect_only(&["path"]);

    let cut = [("location / {", "location /relay/ {"), (PASS, "proxy_pass http://relay/;")];
    let cut = Deployment::changed(NGINX, &cut);
    let report = cut.examine_url(&format!("{}/relay", cut.url()), &[]);
    report.expect("api", "advice", HOP, &["Relay receives /api/v1/apps/", "path_prefix", PASS]);
    report.expect_only(&["api", "path"]);

    let kept = Options {
        changes: &[("location / {", "location /relay/ {")],
        server: Some(&["--trusted-proxies", "127.0.0.1", "--path-prefix", "/relay"]),
        ..Options::default()
    };
    let kept = Deployment::start(NGINX, &kept);
    kept.examine_url(&format!("{}/relay/", kept.url()), &[]).expect_well(&ALL);

    let unset = Deployment::changed(NGINX, &[("location / {", "location /relay/ {")]);
    let report = unset.examine_url(&format!("{}/relay", unset.url()), &[]);
    report.expect("relay", "problem", Some("relay"), &["path_prefix = \"/relay\""]);
}

/// R-DIAG-2: only the path of WebSockets is forwarded, or only that of the API.
#[test]
fn nginx_parts() {
    let report = Deployment::changed(NGINX, &[("location / {", "location /app/ {")]).examine(&[]);
    report.expect("relay", "advice", HOP, &["/up with 404"]);
    report.expect("websocket", "ok", None, &["established"]);
    report.expect("api", "problem", HOP, &["/api/v1/apps/", "404", "all paths"]);
    let report = Deployment::changed(NGINX, &[("location / {", "location /api/ {")]).examine(&[]);
    report.expect("websocket", "problem", HOP, &["404", "all paths"]);
    report.expect("api", "ok", None, &[]);
}

/// R-DIAG-2, R-DIAG-1: headers that get lost on the way, and a proxy that is not trusted.
#[test]
fn nginx_headers() {
    let lost = [
        ("proxy_set_header Host $host;", "proxy_set_header Authorization \"\";"),
        ("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;", "proxy_set_header X-Relay-Key \"\";"),
    ];
    let report = Deployment::changed(NGINX, &lost).examine(&[]);
    report.expect("headers", "problem", HOP, &["drops Authorization, X-Relay-Key"]);
    report.expect("host", "advice", HOP, &["\"relay\"", "proxy_set_header Host $host;"]);
    let line = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    report.expect("client_address", "advice", HOP, &["no hop sends X-Forwarded-For", line]);
    report.expect_only(&["host", "client_address", "headers"]);
    let report = Deployment::start(NGINX, &Options { server: Some(&[]), ..Options::default() }).examine(&[]);
    report.expect("client_address", "advice", Some("relay"), &["trusted_proxies = [\"127.0.0.1\"]"]);
    report.expect_only(&["client_address"]);
}

/// R-DIAG-2: an app with `tls_only` behind a proxy that does not say that the client used TLS.
#[test]
fn nginx_forwarded_proto() {
    let Some(certificate) = Certificate::new(certificates::Kind::Signed) else { return };
    let line = "proxy_set_header X-Forwarded-Proto $scheme;";
    let mut options = Options {
        changes: &[(line, "")],
        certificate: Some(&certificate),
        listen: Some(certificate.address),
        app: &["tls_only=true"],
        ..Options::default()
    };
    let ca = certificate.ca.to_str().unwrap();
    let url = format!("https://{}", certificate.address);
    let report = Deployment::start(NGINX, &options).examine_url(&url, &["--ca", ca]);
    report.expect("websocket", "problem", HOP, &["4000", line]);
    report.expect("forwarded_proto", "advice", HOP, &["arrives as nothing", line]);
    options.changes = &[];
    options.server = Some(&[]);
    let report = Deployment::start(NGINX, &options).examine_url(&url, &["--ca", ca]);
    report.expect("forwarded_proto", "advice", Some("relay"), &["not in trusted_proxies"]);
}

/// R-DIAG-2: a redirect to https, a rule that refuses, and http on a port for https.
#[test]
fn nginx_refuses() {
    let redirect = "return 301 https://ws.example.com$request_uri;";
    let report = Deployment::changed(NGINX, &[(PASS, redirect)]).examine(&[]);
    report.expect("relay", "problem", HOP, &["redirects /up to https://ws.example.com/up (301)", "use the URL"]);
    let report = Deployment::changed(NGINX, &[(PASS, "proxy_pass http://relay; deny all;")]).examine(&[]);
    report.expect("websocket", "problem", HOP, &["refuses the upgrade with 403", "deny"]);
    report.expect("api", "problem", HOP, &["403"]);
    let Some(certificate) = Certificate::new(certificates::Kind::Signed) else { return };
    let listen = Some(certificate.address);
    let secure = Deployment::start(NGINX, &Options { certificate: Some(&certificate), listen, ..Options::default() });
    secure.examine(&[]).expect("relay", "problem", HOP, &["400", "takes https"]);
}

/// R-DIAG-2: on the default ports `Host` is tried with its port too, and http beside https.
#[test]
fn nginx_default_ports() {
    let (Some(plain), Some(certificate)) = (free_address(80), Certificate::new(certificates::Kind::Signed)) else {
        return tools::say_skipped("port 80 cannot be bound here: default ports of proxies are not tested");
    };
    let by_host = [("server_name ws.example.com;", "server_name ws.example.com;\nif ($http_host ~ :) { return 404; }")];
    let options = Options { changes: &by_host, listen: Some(plain), ..Options::default() };
    let report = Deployment::start(NGINX, &options).examine_url(&format!("http://{}", plain.ip()), &[]);
    report.expect("host_port", "problem", HOP, &[":80` is refused", "answers 404", "$host"]);
    report.expect_only(&["host_port"]);

    // The certificate is for this address, on any port.
    let [secure, plain] = [443, 80].map(|port| SocketAddr::new(certificate.address.ip(), port));
    let https = Options { certificate: Some(&certificate), listen: Some(secure), ..Options::default() };
    let https = Deployment::start(NGINX, &https);
    let (url, ca) = (format!("https://{}", secure.ip()), certificate.ca.to_str().unwrap());
    let examine = || https.examine_url(&url, &["--ca", ca]);
    examine().expect("plain", "ok", None, &["serves nothing"]);
    examine().expect("host_port", "ok", None, &[":443` is accepted"]);
    let open = Deployment::start(NGINX, &Options { listen: Some(plain), ..Options::default() });
    examine().expect("plain", "advice", None, &["serves Relay without TLS", "tls_only=true"]);
    drop(open);
    let redirect = [(PASS, "return 301 https://$host$request_uri;")];
    let _redirecting =
        Deployment::start(NGINX, &Options { changes: &redirect, listen: Some(plain), ..Options::default() });
    examine().expect_well(&["plain", "host_port", "tls"]);
}
