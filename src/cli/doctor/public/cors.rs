//! Whether a browser lets a page of another origin use the auth endpoint (R-PIT-4).

use super::endpoint::Endpoint;
use super::http::{Answer, Ask};
use super::{Examination, Finding, State, describe};

const COST: &str = "the browser refuses the answer, and the subscription fails without a trace at the server";
/// What pages send besides the form, as far as it is not known.
const USUAL_HEADERS: &str = "x-csrf-token";

impl Examination {
    /// The preflight of a page at `--origin`, and the headers of the answer itself.
    pub(super) fn check_cors(&mut self, endpoint: &Endpoint, answer: &Answer) {
        let check = "auth_cors";
        let Some(origin) = self.origin.clone().filter(|origin| *origin != endpoint.origin()) else {
            return self.ok(check, "not needed: page and endpoint have one origin (--origin names another page)");
        };
        let custom = custom_headers(endpoint);
        let headers = [
            ("Origin", origin.as_str()),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", custom.as_str()),
        ];
        let ask = Ask { method: "OPTIONS", path: endpoint.path(), headers: &headers, body: b"" };
        let preflight = match self.connector.ask(&endpoint.target, &ask) {
            Ok(preflight) => preflight,
            Err(error) => {
                let found = format!("the preflight is not answered: {}", describe(&error));
                return self.add(Finding::of(State::Problem, check, found, COST, fix(&origin, &custom)));
            }
        };
        let mut lacking = Vec::new();
        if !(200..300).contains(&preflight.status) {
            lacking.push(format!("OPTIONS is answered {}", preflight.status));
        }
        lacking.extend(lacks(&preflight, &origin).map(|lack| format!("preflight: {lack}")));
        lacking.extend(lacks_headers(&preflight, &custom).map(|lack| format!("preflight: {lack}")));
        lacking.extend(lacks(answer, &origin).map(|lack| format!("POST: {lack}")));
        if !lacking.is_empty() {
            let found = format!("a page of {origin} may not: {}", lacking.join("; "));
            return self.add(Finding::of(State::Problem, check, found, COST, fix(&origin, &custom)));
        }
        if preflight.header("access-control-allow-credentials") == Some("true") {
            return self.ok(check, format!("pages of {origin} may send the form, {custom} and cookies"));
        }
        let found = format!("pages of {origin} may send the form and {custom}, but no cookies");
        let cost = "an endpoint that knows its user by a cookie refuses every request of that page";
        let fix = "Access-Control-Allow-Credentials: true, with the exact origin instead of *; or send a token";
        self.add(Finding::of(State::Advice, check, found, cost, fix));
    }
}

/// The headers that need a preflight, as browsers list them.
fn custom_headers(endpoint: &Endpoint) -> String {
    let simple = ["accept", "accept-language", "content-language", "content-type", "cookie", "origin", "referer"];
    let mut names: Vec<String> = endpoint.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.retain(|name| !simple.contains(&name.as_str()));
    names.sort();
    if names.is_empty() { USUAL_HEADERS.to_owned() } else { names.join(",") }
}

/// What the answer lacks for the origin.
fn lacks(answer: &Answer, origin: &str) -> Option<String> {
    let name = "Access-Control-Allow-Origin";
    let values: Vec<&str> = answer
        .headers
        .iter()
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect();
    let credentials = answer.header("access-control-allow-credentials") == Some("true");
    match values[..] {
        [] => Some(format!("no {name}")),
        ["*"] if credentials => Some(format!("{name} is * although credentials are allowed")),
        ["*"] => None,
        [value] if value == origin => None,
        [value] => Some(format!("{name} is {value}")),
        _ => Some(format!("{name} is there {} times", values.len())),
    }
}

fn lacks_headers(answer: &Answer, custom: &str) -> Option<String> {
    let allowed = answer.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
    let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
    let missing: Vec<&str> = custom
        .split(',')
        // The wildcard does not cover Authorization.
        .filter(|name| !allowed.contains(name) && (!allowed.contains(&"*") || *name == "authorization"))
        .collect();
    (!missing.is_empty()).then(|| format!("Access-Control-Allow-Headers lacks {}", missing.join(", ")))
}

fn fix(origin: &str, custom: &str) -> String {
    format!(
        "answer OPTIONS with 204 and Access-Control-Allow-Origin: {origin}, Access-Control-Allow-Methods: POST, \
         Access-Control-Allow-Headers: {custom}, and the POST with the same origin (Laravel: config/cors.php, paths \
         broadcasting/auth)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Answer { status: 204, headers, body: Vec::new() }
    }

    /// R-DIAG-3, R-PIT-4: the rules of browsers for the origin, the wildcard and repeated headers.
    #[test]
    fn origins_are_judged_as_browsers_do() {
        let origin = "https://app.test";
        let allow = "Access-Control-Allow-Origin";
        assert_eq!(lacks(&answer(&[(allow, origin)]), origin), None);
        assert_eq!(lacks(&answer(&[(allow, "*")]), origin), None);
        for (headers, part) in [
            (&[][..], "no Access"),
            (&[(allow, "https://other.test")], "is https://other.test"),
            (&[(allow, "https://app.test/")], "is https://app.test/"),
            (&[(allow, origin), (allow, origin)], "2 times"),
            (&[(allow, "*"), ("access-control-allow-credentials", "true")], "although"),
        ] {
            let lack = lacks(&answer(headers), origin).expect(part);
            assert!(lack.contains(part), "{lack}");
        }
        let allow = "access-control-allow-headers";
        assert_eq!(
            lacks_headers(&answer(&[(allow, "X-CSRF-Token, Authorization")]), "authorization,x-csrf-token"),
            None
        );
        assert_eq!(lacks_headers(&answer(&[(allow, "*")]), "x-csrf-token"), None);
        let lack = lacks_headers(&answer(&[(allow, "*")]), "authorization,x-a").expect("the wildcard has an exception");
        assert!(lack.contains("authorization") && !lack.contains("x-a"), "{lack}");
    }
}
