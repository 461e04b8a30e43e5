//! The line to change, by fault and proxy. docs/proxies.md has the same table, generated from this one.

use super::hop::Hop;
use crate::label::labels;

labels! {
    /// What a hop in front of Relay does wrong, as the documents name it.
    pub(super) enum Fault {
        /// It does not reach Relay.
        Down => "Relay is not reached",
        /// It does not pass this path on.
        NotForwarded => "a path is not forwarded",
        /// It answers with a redirect.
        Redirect => "a redirect",
        /// It refuses by a rule of its own.
        Blocked => "refused by a rule",
        /// It drops `Upgrade` or `Connection`.
        Upgrade => "no `Upgrade` or `Connection`",
        /// It speaks HTTP/1.0 to Relay.
        Http10 => "HTTP/1.0 to Relay",
        /// It holds back bytes of a WebSocket.
        Silent => "frames are held back",
        /// It closes silent WebSockets too early.
        Idle => "silent WebSockets are closed",
        /// It limits bodies.
        Body => "bodies are limited",
        /// It changes escapes or slashes of a path.
        Rewritten => "the path is rewritten",
        /// It removes the prefix of a path.
        Stripped => "the prefix is removed",
        /// It does not name the client's address.
        ForwardedFor => "no client address",
        /// It does not say that the client used TLS.
        ForwardedProto => "no `X-Forwarded-Proto`",
        /// It sends another Host.
        HostValue => "another `Host`",
        /// It refuses a Host with a port.
        HostPort => "`Host` with a port is refused",
        /// It drops headers.
        Headers => "headers are dropped",
        /// Its certificate is not accepted.
        Certificate => "the certificate",
    }
}

/// A line of a configuration, and what to know about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Empty where there is no line to write.
    pub(super) code: &'static str,
    /// Empty where the line says it all.
    pub(super) note: &'static str,
}

impl Line {
    /// As one line of a report.
    fn text(self) -> String {
        match (self.code, self.note) {
            (code, "") => code.to_owned(),
            ("", note) => note.to_owned(),
            (code, note) => format!("{code} ({note})"),
        }
    }
}

/// The fix of a fault for the report: the line of the hop, or those of all that are tested if it is not known.
pub(super) fn fix(fault: Fault, hop: Option<Hop>) -> String {
    let of = |hop: Hop| format!("{}: {}", hop.name(), line(fault, hop).text());
    match hop {
        Some(hop) => of(hop),
        None => [Hop::Nginx, Hop::Haproxy, Hop::Caddy].map(of).join("; or "),
    }
}

const fn code(code: &'static str) -> Line {
    Line { code, note: "" }
}

const fn note(note: &'static str) -> Line {
    Line { code: "", note }
}

const fn both(code: &'static str, note: &'static str) -> Line {
    Line { code, note }
}

/// The line of one proxy.
pub(super) fn line(fault: Fault, hop: Hop) -> Line {
    match hop {
        Hop::Nginx => nginx(fault),
        Hop::Haproxy => haproxy(fault),
        Hop::Caddy => caddy(fault),
        Hop::Traefik => traefik(fault),
        Hop::Cloudflare => cloudflare(fault),
    }
}

fn nginx(fault: Fault) -> Line {
    match fault {
        Fault::Down => both("server 127.0.0.1:6001;", "in upstream: the address and port of Relay's `listen`"),
        Fault::NotForwarded => both("location / { proxy_pass http://relay; }", "all paths, not only /app"),
        Fault::Redirect => note("remove `return 301` or `rewrite` for this host, or use the URL that it names"),
        Fault::Blocked => note("remove `deny`, `auth_basic`, `auth_request` or `limit_req` for this location"),
        Fault::Upgrade => {
            code("proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;")
        }
        Fault::Http10 => code("proxy_http_version 1.1;"),
        Fault::Silent => code("proxy_buffering off;"),
        Fault::Idle => code("proxy_read_timeout 75s; proxy_send_timeout 75s;"),
        Fault::Body => code("client_max_body_size 24m;"),
        Fault::Rewritten => {
            both("proxy_pass http://relay;", "no path behind the name, not even a slash, and no `rewrite`")
        }
        Fault::Stripped => both(
            "location /PREFIX/ { proxy_pass http://relay; }",
            "no path behind the name; path_prefix = \"/PREFIX\" in relay.toml",
        ),
        Fault::ForwardedFor => code("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"),
        Fault::ForwardedProto => code("proxy_set_header X-Forwarded-Proto $scheme;"),
        Fault::HostValue => code("proxy_set_header Host $host;"),
        Fault::HostPort => note("compare with `$host`, which has no port, and not with `$http_host`"),
        Fault::Headers => both("proxy_pass_request_headers on;", "and no `proxy_set_header NAME \"\"`"),
        Fault::Certificate => {
            both("ssl_certificate /etc/ssl/fullchain.pem;", "the certificate, then the intermediates")
        }
    }
}

fn haproxy(fault: Fault) -> Line {
    match fault {
        Fault::Down => both("server relay1 127.0.0.1:6001 check", "the address and port of Relay's `listen`"),
        Fault::NotForwarded => both("default_backend relay", "all paths, not only /app"),
        Fault::Redirect => note("remove `redirect` for this host, or use the URL that it names"),
        Fault::Blocked => note("remove `http-request deny` or `http-request auth` for this host"),
        Fault::Upgrade => note("remove `http-request del-header`, `set-header` and `replace-header` of these two"),
        Fault::Http10 => note("it speaks HTTP/1.1 by itself: look at the next hop"),
        Fault::Silent => note("remove `filter compression` and other filters of the backend"),
        Fault::Idle => code("timeout tunnel 1h"),
        Fault::Body => note("remove `http-request deny` with `req.body_size` or `req.hdr(content-length)`"),
        Fault::Rewritten => note("remove `http-request normalize-uri`, `replace-path`, `replace-uri` and `set-path`"),
        Fault::Stripped => {
            note("remove `http-request replace-path` or `set-path`; path_prefix = \"/PREFIX\" in relay.toml")
        }
        Fault::ForwardedFor => code("option forwardfor"),
        Fault::ForwardedProto => code("http-request set-header X-Forwarded-Proto https"),
        Fault::HostValue => note("remove `http-request set-header Host`"),
        Fault::HostPort => both("acl relay req.hdr(host),field(1,:) -i ws.example.com", "compares without the port"),
        Fault::Headers => note("remove `http-request del-header` of these"),
        Fault::Certificate => both("bind :443 ssl crt site.pem", "with certificate, intermediates and key in one file"),
    }
}

fn caddy(fault: Fault) -> Line {
    match fault {
        Fault::Down => both("reverse_proxy 127.0.0.1:6001", "the address and port of Relay's `listen`"),
        Fault::NotForwarded => both("reverse_proxy 127.0.0.1:6001", "without a matcher such as /app/*"),
        Fault::Redirect => note("remove `redir` for this host, or use the URL that it names"),
        Fault::Blocked => note("remove `basicauth`, `forward_auth`, `respond` or `abort` for this host"),
        Fault::Upgrade => note("remove `header_up` of these two: it forwards them by itself"),
        Fault::Http10 => note("remove `versions` of `transport http`"),
        Fault::Silent => code("flush_interval -1"),
        Fault::Idle => note("remove `read_timeout` and `write_timeout` of `transport http`"),
        Fault::Body => code("request_body { max_size 24MB }"),
        Fault::Rewritten => note("remove `rewrite`, `uri` and `handle_path`"),
        Fault::Stripped => {
            both("handle /PREFIX/*", "instead of `handle_path`; path_prefix = \"/PREFIX\" in relay.toml")
        }
        Fault::ForwardedFor => note("remove `header_up -X-Forwarded-For`: it sends that by itself"),
        Fault::ForwardedProto => {
            both("trusted_proxies static private_ranges", "behind another proxy; else it sends that by itself")
        }
        Fault::HostValue => note("remove `header_up Host`"),
        Fault::HostPort => note("remove the port from matchers: `host ws.example.com`"),
        Fault::Headers => note("remove `header_up -NAME` and `request_header -NAME` of these"),
        Fault::Certificate => note("remove `tls internal`; the host's DNS must point here and port 80 or 443 be open"),
    }
}

fn traefik(fault: Fault) -> Line {
    match fault {
        Fault::Down => both("url: http://127.0.0.1:6001", "of loadBalancer.servers: the address of Relay's `listen`"),
        Fault::NotForwarded => both("rule: Host(`ws.example.com`)", "without Path or PathPrefix"),
        Fault::Redirect => {
            note("remove the middleware `redirectScheme` or `redirectRegex`, or use the URL that it names")
        }
        Fault::Blocked => note("remove the middlewares `ipAllowList`, `basicAuth`, `forwardAuth` or `rateLimit`"),
        Fault::Upgrade => note("remove both from `customRequestHeaders`: it forwards them by itself"),
        Fault::Http10 => note("it speaks HTTP/1.1 by itself: look at the next hop"),
        Fault::Silent => note("remove the middlewares `buffering` and `compress`"),
        Fault::Idle => note("raise `transport.respondingTimeouts` of the entry point, or look at the next hop"),
        Fault::Body => both("maxRequestBodyBytes: 25165824", "of the middleware `buffering`, or remove it"),
        Fault::Rewritten => note("remove the middlewares `replacePath` and `replacePathRegex`"),
        Fault::Stripped => note("remove the middleware `stripPrefix`; path_prefix = \"/PREFIX\" in relay.toml"),
        Fault::ForwardedFor | Fault::ForwardedProto => both(
            "forwardedHeaders.trustedIPs",
            "of the entry point, behind another proxy; else it sends them by itself",
        ),
        Fault::HostValue => both("passHostHeader: true", "of the load balancer"),
        Fault::HostPort => both("rule: Host(`ws.example.com`)", "compares without the port"),
        Fault::Headers => note("remove these from `customRequestHeaders`"),
        Fault::Certificate => both("tls.certResolver", "of the router"),
    }
}

fn cloudflare(fault: Fault) -> Line {
    match fault {
        Fault::Down => note("the DNS record must name your proxy, on a port that Cloudflare forwards (443, 8443, ...)"),
        Fault::NotForwarded => note("a Worker or a rule answers this path: exclude the host"),
        Fault::Redirect => note("SSL/TLS > Overview: not Flexible, or the origin redirects for ever"),
        Fault::Blocked => note("Security > WAF: a rule that skips challenges and bot checks for this host"),
        Fault::Upgrade => note("Network > WebSockets: on"),
        Fault::Http10 => note("it speaks HTTP/1.1 by itself: look at the next hop"),
        Fault::Silent => note("turn response buffering off, and exclude the host from Workers"),
        Fault::Idle => note("100 s, which cannot be changed: keep `activity_timeout` at 40"),
        Fault::Body => note("the limit of the plan, 100 MB or more: look at the next hop"),
        Fault::Rewritten => note("Rules > Settings > Normalize URLs to origin: off"),
        Fault::Stripped => note("remove the URL rewrite rule; path_prefix = \"/PREFIX\" in relay.toml"),
        Fault::ForwardedFor | Fault::ForwardedProto => note("it sends both by itself: look at the next hop"),
        Fault::HostValue => note("Rules > Origin Rules: no Host header override"),
        Fault::HostPort => note("it compares without the port: look at the next hop"),
        Fault::Headers => note("Rules > Transform Rules: keep these request headers"),
        Fault::Certificate => note("SSL/TLS > Edge Certificates: one that covers the host"),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::label::Label;

    const DOCUMENT: &str = "docs/proxies.md";
    const BEGIN: &str = "<!-- lines: generated -->\n";
    const END: &str = "<!-- end of lines; regenerate with: RELAY_UPDATE=1 cargo test --lib lines_are_documented -->\n";

    /// Goal: the document lists the lines that the doctor prints. Method: the generated table is compared with the
    /// document's, or written there.
    #[test]
    fn lines_are_documented() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        let text = fs::read_to_string(&path).expect(DOCUMENT);
        let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
        let (found, after) = rest.split_once(END).expect("where the table ends");
        let table = table();
        if std::env::var_os("RELAY_UPDATE").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect(DOCUMENT);
        } else {
            assert_eq!(found, table, "RELAY_UPDATE=1 cargo test --lib lines_are_documented");
        }
    }

    fn table() -> String {
        let names: Vec<&str> = Hop::ALL.iter().map(|hop| hop.name()).collect();
        let mut table = format!("\n| finding | {} |\n|{}\n", names.join(" | "), " --- |".repeat(names.len() + 1));
        for fault in Fault::ALL {
            let quoted = |code: &str| if code.contains('`') { format!("``{code}``") } else { format!("`{code}`") };
            let cells = Hop::ALL.iter().map(|hop| match line(*fault, *hop) {
                Line { code, note: "" } => quoted(code),
                Line { code: "", note } => note.to_owned(),
                Line { code, note } => format!("{}: {note}", quoted(code)),
            });
            writeln!(table, "| {} | {} |", fault.label(), cells.collect::<Vec<_>>().join(" | ")).expect("a string");
        }
        table + "\n"
    }

    /// R-DIAG-2: every cell says something, and a fix without a known hop names the three that are tested.
    #[test]
    fn every_fault_has_a_line_for_every_hop() {
        for fault in Fault::ALL {
            for hop in Hop::ALL {
                let text = line(*fault, *hop).text();
                assert!(text.len() > 5 && !text.contains('|') && !text.contains('\n'), "{fault:?} {hop:?}: {text}");
            }
            let text = fix(*fault, None);
            assert!(["nginx: ", "HAProxy: ", "Caddy: "].iter().all(|name| text.contains(name)), "{text}");
        }
    }
}
