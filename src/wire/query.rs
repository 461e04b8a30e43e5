//! Query strings: the only parser of parameters, used for signatures, endpoints and the handshake.
//!
//! Invariant: a parameter is read exactly as its signature covers it (P-SIGN-4). The query is split only at `&` and
//! each pair at its first `=`, names are compared in lower case, `+` is kept, and the array forms of one name are
//! equivalent (P-SDK-20). Broken escapes have one rule: a `%` without two hex digits after it stays as sent.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The query of a request, as sent.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a>(&'a str);

/// One `name=value` of a query, as sent.
#[derive(Clone, Copy, Debug)]
pub struct Parameter<'a> {
    /// Everything before the first `=`.
    pub name: &'a [u8],
    /// Everything after it; empty if there is no `=`.
    pub value: &'a [u8],
}

/// How escapes and `+` are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Values {
    /// Percent-decoded, `+` kept: the way parameters are read, and the default for signing.
    Decoded,
    /// As sent.
    Raw,
    /// Percent-decoded, `+` read as a space.
    PlusAsSpace,
}

/// Why a parameter cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QueryError<'n> {
    /// The parameter occurs twice where one value is expected.
    #[error("The query parameter {0} must be present once.")]
    Repeated(&'n str),
    /// The parameter's value is not UTF-8.
    #[error("The query parameter {0} must be percent-encoded UTF-8.")]
    NotUtf8(&'n str),
}

impl<'a> Query<'a> {
    /// Takes the part of a request target after the first `?`, if there is one.
    pub fn new(query: Option<&'a str>) -> Self {
        Self(query.unwrap_or_default())
    }

    /// All parameters in the order sent. Empty pairs are skipped.
    #[inline]
    pub fn parameters(self) -> impl Iterator<Item = Parameter<'a>> {
        let mut rest = Some(self.0.as_bytes());
        let pairs = std::iter::from_fn(move || {
            let bytes = rest.take()?;
            let Some(end) = memchr::memchr(b'&', bytes) else { return Some(bytes) };
            let (pair, after) = bytes.split_at(end);
            rest = after.get(1..);
            Some(pair)
        });
        pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            Parameter { name: &pair[..end], value: pair.get(end + 1..).unwrap_or_default() }
        })
    }

    /// The value of a parameter that occurs at most once; an empty value counts.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn value<'n>(self, name: &'n str) -> Result<Option<Cow<'a, str>>, QueryError<'n>> {
        let mut values = self.decoded(name);
        match (values.next(), values.next()) {
            (value, None) => value.transpose(),
            (_, Some(_)) => Err(QueryError::Repeated(name)),
        }
    }

    /// All values of a parameter in order, including those of `name[]=` and `name[0]=`.
    ///
    /// # Errors
    /// [`QueryError::NotUtf8`].
    pub fn values<'n>(self, name: &'n str) -> Result<Vec<Cow<'a, str>>, QueryError<'n>> {
        self.decoded(name).collect()
    }

    /// The items of a list separated by commas, over all values of a parameter. Each value is split before its items are
    /// decoded, so an escaped comma belongs to its item.
    ///
    /// # Errors
    /// [`QueryError::NotUtf8`].
    pub fn items<'n>(self, name: &'n str) -> Result<Vec<Cow<'a, str>>, QueryError<'n>> {
        let named = self.parameters().filter(|parameter| parameter.is_named(name));
        let items = named.flat_map(|parameter| parameter.value.split(|byte| *byte == b','));
        items.map(|item| percent_decode(item).decode_utf8().map_err(|_| QueryError::NotUtf8(name))).collect()
    }

    /// The values of `name[key]=`, each with its key.
    ///
    /// # Errors
    /// [`QueryError::NotUtf8`].
    pub fn keyed<'n>(self, name: &'n str) -> Result<Vec<(String, Cow<'a, str>)>, QueryError<'n>> {
        let not_utf8 = |_| QueryError::NotUtf8(name);
        let mut keyed = Vec::new();
        for parameter in self.parameters() {
            let own = decode(parameter.name);
            let key = own.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"[")?.strip_suffix(b"]"));
            if let Some(key) = key {
                let key = str::from_utf8(key).map_err(|_| QueryError::NotUtf8(name))?.to_owned();
                keyed.push((key, percent_decode(parameter.value).decode_utf8().map_err(not_utf8)?));
            }
        }
        Ok(keyed)
    }

    /// The first value of a parameter, for callers that ignore errors; a value that is not UTF-8 counts as none.
    pub fn first(self, name: &str) -> Option<Cow<'a, str>> {
        self.decoded(name).next()?.ok()
    }

    fn decoded<'n>(self, name: &'n str) -> impl Iterator<Item = Result<Cow<'a, str>, QueryError<'n>>> {
        let named = self.parameters().filter(move |parameter| parameter.is_named(name));
        named.map(move |parameter| percent_decode(parameter.value).decode_utf8().map_err(|_| QueryError::NotUtf8(name)))
    }
}

impl Parameter<'_> {
    /// True when the decoded name equals `name`, in any case and with or without an index.
    fn is_named(&self, name: &str) -> bool {
        let own = decode(self.name);
        array_base(&own).unwrap_or(&own).eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The name without `[]` or `[123]` at its end, with the brackets percent-encoded or not; `None` for a plain name.
pub fn array_base(name: &[u8]) -> Option<&[u8]> {
    let strip = |name: &'_ [u8], bracket: u8, encoded: [&[u8]; 2]| -> Option<usize> {
        if name.last() == Some(&bracket) {
            return Some(name.len() - 1);
        }
        encoded.iter().any(|form| name.ends_with(form)).then(|| name.len() - 3)
    };
    let open_end = strip(name, b']', [b"%5d", b"%5D"])?;
    let digits = name[..open_end].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let base_end = strip(&name[..open_end - digits], b'[', [b"%5b", b"%5B"])?;
    (base_end > 0).then(|| &name[..base_end])
}

/// Decodes a name, value or path; a `+` stays as it is.
pub fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(raw).into()
}

/// Appends a name, value or path as the mode reads it.
pub fn append_read(out: &mut Vec<u8>, raw: &[u8], values: Values) {
    match values {
        Values::Raw => out.extend_from_slice(raw),
        Values::Decoded => append_decoded(out, raw),
        // Split before decoding: an escaped plus is a literal plus. No escape spans a `+`.
        Values::PlusAsSpace => {
            for (index, part) in raw.split(|byte| *byte == b'+').enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                append_decoded(out, part);
            }
        }
    }
}

/// Text before the first escape is copied in one step.
fn append_decoded(out: &mut Vec<u8>, raw: &[u8]) {
    let plain = memchr::memchr(b'%', raw).unwrap_or(raw.len());
    let (plain, escaped) = raw.split_at(plain);
    out.extend_from_slice(plain);
    out.extend(percent_decode(escaped));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(query: &str, name: &str) -> Vec<String> {
        let values = Query::new(Some(query)).values(name).expect(query);
        values.into_iter().map(Cow::into_owned).collect()
    }

    /// P-SDK-19, P-SDK-20, P-SIGN-4: plain, percent-encoded and array forms give the same values.
    #[test]
    fn all_forms_are_read() {
        for query in ["info=a,b", "auth_key=k&info=a%2Cb", "INFO=a,b&x=1", "x&info=a,b&y=", "&&info=a,b&"] {
            assert_eq!(values(query, "info"), ["a,b"], "{query}");
        }
        for query in ["info[]=a&info[]=b", "info[0]=a&info[1]=b", "info%5B0%5D=a&z=1&info%5b1%5d=b", "info=a&info=b"] {
            assert_eq!(values(query, "info"), ["a", "b"], "{query}");
        }
        assert_eq!(values("name=a+b%20c%26d=e", "name"), ["a+b c&d=e"]);
        assert_eq!(values("name", "name"), [""]);
        for query in ["", "information=a", "info[x]=a", "info]=a", "xinfo=a", "x=info=a", "info;=a"] {
            assert!(values(query, "info").is_empty(), "{query}");
        }
    }

    /// P-SIGN-4: a broken escape stays as sent, in names and values, in each mode that decodes.
    #[test]
    fn broken_escapes_stay_as_sent() {
        for (sent, decoded, with_spaces) in
            [("%", "%", "%"), ("%4", "%4", "%4"), ("a%zz%41", "a%zzA", "a%zzA"), ("%+41%2B", "%+41+", "% 41+")]
        {
            let reads = |values| {
                let mut out = Vec::new();
                append_read(&mut out, sent.as_bytes(), values);
                String::from_utf8(out).expect("ASCII")
            };
            assert_eq!(
                (reads(Values::Decoded), reads(Values::PlusAsSpace)),
                (decoded.to_owned(), with_spaces.to_owned())
            );
            assert_eq!(reads(Values::Raw), sent);
            assert_eq!(*decode(sent.as_bytes()), *decoded.as_bytes());
            assert_eq!(values(&format!("name={sent}"), "name"), [decoded]);
        }
        assert_eq!(values("%zz%6eame=1", "%zzname"), ["1"]);
    }

    /// P-STAT-1: a parameter that occurs twice where one value is expected, and a value that is not UTF-8, are errors
    /// that name the parameter. A caller that ignores errors gets the first value.
    #[test]
    fn mistakes_name_the_parameter() {
        let query = |text: &'static str| Query::new(Some(text));
        assert_eq!(query("name=a&b=1").value("name"), Ok(Some(Cow::Borrowed("a"))));
        assert_eq!(query("b=1").value("name"), Ok(None));
        assert_eq!(Query::new(None).value("name"), Ok(None));
        for text in ["name=a&name=b", "name[]=a&NAME=b", "name=a&%6Eame=b"] {
            assert_eq!(query(text).value("name"), Err(QueryError::Repeated("name")), "{text}");
            assert_eq!(query(text).first("name").as_deref(), Some("a"), "{text}");
        }
        assert_eq!(query("name=%ff").value("name"), Err(QueryError::NotUtf8("name")));
        assert_eq!(query("name=%ff").values("name"), Err(QueryError::NotUtf8("name")));
        assert_eq!(query("name=%ff").first("name"), None);
    }
}
