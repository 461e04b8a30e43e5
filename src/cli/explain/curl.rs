//! A request from a line of curl, as browsers and documents have it. Only simple lines: an option that is not known here
//! is refused rather than ignored, since it may change what is sent.

use std::collections::BTreeMap;

use super::header;
use crate::auth::explain::Fields;

/// Reads the line; the error is one sentence.
pub(super) fn parse(line: &str) -> Result<Fields, String> {
    if line.contains("$'") {
        return Err(
            "--curl does not accept $'...': write the argument in plain quotes, or use --url and --body".to_owned()
        );
    }
    // A line that continues on the next one.
    let line = line.replace("\\\r\n", " ").replace("\\\n", " ");
    let words = shlex::split(&line).ok_or("the line of curl has a quote that is not closed")?;
    let mut words = words.into_iter().peekable();
    words.next_if(|word| word == "curl" || word.ends_with("/curl"));
    let mut request = Request::default();
    while let Some(word) = words.next() {
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option.to_owned(), Some(value.to_owned())),
            _ if is_short_with_value(&word) => (word[..2].to_owned(), Some(word[2..].to_owned())),
            _ => (word, None),
        };
        if !option.starts_with('-') {
            request.set_url(option)?;
            continue;
        }
        if IGNORED.contains(&&*option)
            || (option.starts_with('-') && option[1..].chars().all(|c| "sSivkLfNg".contains(c)))
        {
            continue;
        }
        if IGNORED_WITH_VALUE.contains(&&*option) {
            inline.or_else(|| words.next());
            continue;
        }
        if !WITH_VALUE.contains(&&*option) {
            return Err(format!("--curl does not know the option {option}: use --method, --url, --header and --body"));
        }
        let value =
            inline.or_else(|| words.next()).ok_or_else(|| format!("the option {option} of curl needs a value"))?;
        request.set(&option, value)?;
    }
    request.into_fields()
}

#[derive(Default)]
struct Request {
    method: Option<String>,
    url: Option<String>,
    headers: BTreeMap<String, String>,
    data: Vec<String>,
}

impl Request {
    fn set_url(&mut self, url: String) -> Result<(), String> {
        match self.url.replace(url) {
            None => Ok(()),
            Some(_) => Err("the line of curl has two URLs".to_owned()),
        }
    }

    fn set(&mut self, option: &str, value: String) -> Result<(), String> {
        match option {
            "-X" | "--request" => self.method = Some(value),
            "--url" => self.set_url(value)?,
            "-H" | "--header" => {
                let (name, value) =
                    header(&value).ok_or_else(|| format!("{value:?} is no header: expected Name: value"))?;
                self.headers.insert(name, value);
            }
            _ if value.starts_with('@') && option != "--data-raw" => {
                return Err("--curl reads no files: give the body of the request with --body-file FILE".to_owned());
            }
            _ => self.data.push(value),
        }
        Ok(())
    }

    fn into_fields(self) -> Result<Fields, String> {
        let url = self.url.ok_or("the line of curl has no URL")?;
        // As curl does.
        let path = if url.contains("://") || url.starts_with('/') { url } else { format!("http://{url}") };
        let body = self.data.join("&");
        let method = self.method.or_else(|| Some(if self.data.is_empty() { "GET" } else { "POST" }.to_owned()));
        Ok(Fields { method, path: Some(path), headers: Some(self.headers), body: Some(body), ..Fields::default() })
    }
}

/// `-XPOST`, `-d{}`.
fn is_short_with_value(word: &str) -> bool {
    word.len() > 2 && word.is_char_boundary(2) && ["-X", "-H", "-d"].contains(&&word[..2])
}

const WITH_VALUE: [&str; 10] =
    ["-X", "--request", "--url", "-H", "--header", "-d", "--data", "--data-raw", "--data-binary", "--data-ascii"];
/// Options that change nothing of what is signed.
const IGNORED: [&str; 9] = [
    "--silent",
    "--show-error",
    "--include",
    "--verbose",
    "--insecure",
    "--location",
    "--fail",
    "--compressed",
    "--http1.1",
];
const IGNORED_WITH_VALUE: [&str; 8] =
    ["-o", "--output", "-m", "--max-time", "--connect-timeout", "-w", "--write-out", "--cacert"];

#[cfg(test)]
mod tests {
    use super::*;

    /// R-EXPLAIN-5: the lines that documents and browsers write.
    #[test]
    fn simple_lines_are_read() {
        let line = r#"curl -sS -X POST 'http://127.0.0.1:6001/apps/3/events?auth_key=k&x=a%20b' \
            -H "Content-Type: application/json" --data-raw '{"name":"it'\''s"}' --max-time 5 -o /dev/null"#;
        let fields = parse(line).expect("simple");
        assert_eq!(fields.method.as_deref(), Some("POST"));
        assert_eq!(fields.path.as_deref(), Some("http://127.0.0.1:6001/apps/3/events?auth_key=k&x=a%20b"));
        assert_eq!(fields.body.as_deref(), Some(r#"{"name":"it's"}"#));
        assert_eq!(fields.headers.expect("one")["Content-Type"], "application/json");

        let get = parse("curl relay.test/apps/3/channels").expect("simple");
        assert_eq!((get.method.as_deref(), get.body.as_deref()), (Some("GET"), Some("")));
        assert_eq!(get.path.as_deref(), Some("http://relay.test/apps/3/channels"));
        let joined = parse("/usr/bin/curl --url=http://a/ -da=1 -d b=2 -XPUT").expect("simple");
        assert_eq!((joined.method.as_deref(), joined.body.as_deref()), (Some("PUT"), Some("a=1&b=2")));
    }

    /// R-EXPLAIN-5: anything else is refused with the way out.
    #[test]
    fn other_lines_are_refused() {
        for (line, expected) in [
            ("curl", "no URL"),
            ("curl 'http://a/", "not closed"),
            ("curl http://a/ http://b/", "two URLs"),
            ("curl -u a:b http://a/", "does not know the option -u"),
            ("curl --get http://a/", "does not know the option --get"),
            ("curl http://a/ -d @body.json", "--body-file"),
            ("curl http://a/ --data-raw $'a'", "$'...'"),
            ("curl http://a/ -H", "needs a value"),
            ("curl http://a/ -H nothing", "is no header"),
            ("curl -é http://a/", "does not know"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
