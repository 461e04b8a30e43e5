//! Parameters of a query string, as the endpoints read them.
//!
//! What must hold: a parameter is read as its signature covers it (P-SIGN-4): split at `&` alone, names in lower case,
//! `+` kept as it is, and the array forms of one name taken together (P-SDK-20).

use std::borrow::Cow;

use super::refusal::Refusal;

/// The query of a request, still as sent.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// What follows the first `?` of a request, if anything does.
    pub fn new(query: Option<&'a str>) -> Self {
        Self(query.unwrap_or_default())
    }

    /// The value of a parameter that stands at most once; an empty value is one.
    ///
    /// # Errors
    /// 400 when it stands twice, and as [`Query::values`].
    pub fn value(self, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let mut values = self.values(name)?.into_iter();
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Refusal::bad_request(format!("The query parameter {name} must stand once."))),
        }
    }

    /// All values of a parameter in order, those of `name[]=` and `name[0]=` included.
    ///
    /// # Errors
    /// 400 when a value is broken percent-encoding or not UTF-8.
    pub fn values(self, name: &str) -> Result<Vec<Cow<'a, str>>, Refusal> {
        self.pairs()
            .filter(|(found, _)| is_named(found, name))
            .map(|(_, value)| {
                percent_decode(value).ok_or_else(|| {
                    Refusal::bad_request(format!("The query parameter {name} must be percent-encoded UTF-8."))
                })
            })
            .collect()
    }

    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

/// True for a name as sent that reads as `name`, in any case and with or without an index.
fn is_named(sent: &str, name: &str) -> bool {
    let Some(decoded) = percent_decode(sent) else { return false };
    let indexed = decoded.strip_suffix(']').and_then(|rest| rest.rsplit_once('['));
    let base = match indexed {
        Some((base, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => &decoded,
    };
    base.eq_ignore_ascii_case(name)
}

/// `None` when an escape is broken or the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let mut byte = [0_u8];
        const_hex::decode_to_slice(digits, &mut byte).ok()?;
        bytes.extend_from_slice(&byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
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
        for query in ["info=a,b", "auth_key=k&info=a%2Cb", "INFO=a,b&x=1", "x&info=a,b&y="] {
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

    /// P-STAT-1: a parameter that stands twice where one is meant, and broken encoding, are 400 and name the parameter.
    #[test]
    fn slips_are_told() {
        let query = |text: &'static str| Query::new(Some(text));
        assert_eq!(query("name=a&b=1").value("name"), Ok(Some(Cow::Borrowed("a"))));
        assert_eq!(query("b=1").value("name"), Ok(None));
        assert_eq!(Query::new(None).value("name"), Ok(None));
        for text in ["name=a&name=b", "name[]=a&name=b", "name=%", "name=%4", "name=%zz", "name=%ff"] {
            let refusal = query(text).value("name").expect_err(text);
            assert!(refusal.status == 400 && refusal.message.contains("parameter name"), "{}", refusal.message);
        }
    }
}
