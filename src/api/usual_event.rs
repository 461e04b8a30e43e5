//! Reads the body of `POST /events` as SDKs send it, in one pass: an object of strings, with its channels as a string
//! or an array of strings. Anything else is left to [`super::events`], which reads all of JSON and words the refusals.
//!
//! Invariant: everything read here reads the same there (a test compares them), and no literal is returned that is not
//! valid JSON or does not decode to Unicode, since `data` is copied into frames as it is (threats T10, T11).

use std::borrow::Cow;

use smallvec::SmallVec;

use super::literal::decoded_unicode_escape;

/// The members of one event.
#[derive(Debug, Default)]
pub(super) struct UsualEvent<'a> {
    pub(super) name: Option<Literal<'a>>,
    pub(super) data: Option<Literal<'a>>,
    /// From `channel` or `channels`, in the order of the request, not yet checked for duplicates.
    pub(super) channels: SmallVec<[&'a str; 4]>,
    pub(super) socket_id: Option<&'a str>,
    pub(super) info: Option<&'a str>,
}

/// A string that may contain escapes, none of which encodes half a surrogate pair.
#[derive(Debug)]
pub(super) struct Literal<'a> {
    /// With its quotes and escapes.
    pub(super) text: &'a str,
    /// Length of the decoded string, in bytes.
    pub(super) decoded_bytes: usize,
}

impl<'a> Literal<'a> {
    /// Decodes the string.
    pub(super) fn decode(&self) -> Option<Cow<'a, str>> {
        match self.text.get(1..=self.decoded_bytes) {
            Some(plain) if self.text.len() == self.decoded_bytes + 2 => Some(Cow::Borrowed(plain)),
            _ => serde_json::from_str(self.text).ok().map(Cow::Owned),
        }
    }
}

/// Reads a body; `None` for any unusual one, valid or not.
pub(super) fn read_usual_event(body: &str) -> Option<UsualEvent<'_>> {
    let mut reader = Reader { text: body, at: 0 };
    let mut event = UsualEvent::default();
    reader.take(b'{')?;
    loop {
        match reader.take_plain_string()? {
            "name" if event.name.is_none() => {
                reader.take(b':')?;
                event.name = Some(reader.take_literal()?);
            }
            "data" if event.data.is_none() => {
                reader.take(b':')?;
                event.data = Some(reader.take_literal()?);
            }
            "channel" if event.channels.is_empty() => {
                reader.take(b':')?;
                event.channels.push(reader.take_plain_string()?);
            }
            "channels" if event.channels.is_empty() => {
                reader.take(b':')?;
                reader.take_channels(&mut event.channels)?;
            }
            "socket_id" if event.socket_id.is_none() => {
                reader.take(b':')?;
                event.socket_id = Some(reader.take_plain_string()?);
            }
            "info" if event.info.is_none() => {
                reader.take(b':')?;
                event.info = Some(reader.take_plain_string()?);
            }
            _ => return None,
        }
        match reader.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    reader.is_at_end().then_some(event)
}

/// Each channel once, in the order of first mention (P-LIM-4); `None` where the search for duplicates would take too
/// long.
pub(super) fn distinct<'a>(channels: &[&'a str]) -> Option<Vec<Cow<'a, str>>> {
    if channels.len() > DISTINCT_MAX {
        return None;
    }
    let mut distinct: Vec<Cow<'a, str>> = Vec::with_capacity(channels.len());
    for channel in channels {
        if !distinct.iter().any(|known| known == channel) {
            distinct.push(Cow::Borrowed(channel));
        }
    }
    Some(distinct)
}

/// Position in the body. Every method skips white space before the token that it takes.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next byte that is not white space.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            self.at += 1;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
        }
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        (self.next()? == expected).then_some(())
    }

    fn is_at_end(&mut self) -> bool {
        self.next().is_none()
    }

    /// A string without escapes, without its quotes.
    fn take_plain_string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at;
        let end = find_special(self.text.as_bytes(), start)?;
        // The quote itself: `take` would skip white space, which no JSON string holds unescaped.
        if self.text.as_bytes().get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        self.text.get(start..end)
    }

    /// A non-empty array of strings without escapes.
    fn take_channels(&mut self, channels: &mut SmallVec<[&'a str; 4]>) -> Option<()> {
        self.take(b'[')?;
        loop {
            channels.push(self.take_plain_string()?);
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    fn take_literal(&mut self) -> Option<Literal<'a>> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.at;
        // Bytes by which the escapes are longer than their decoded text.
        let mut surplus = 0;
        loop {
            self.at = find_special(bytes, self.at)?;
            match bytes.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    let escape = bytes.get(self.at + 1..)?;
                    let (written, taken) = match escape.first()? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => (1, 1),
                        b'u' => decoded_unicode_escape(escape)?,
                        _ => return None,
                    };
                    surplus += 1 + taken - written;
                    self.at += 1 + taken;
                }
                // A control character.
                _ => return None,
            }
        }
        let decoded_bytes = self.at - start - surplus;
        self.at += 1;
        Some(Literal { text: self.text.get(start - 1..self.at)?, decoded_bytes })
    }
}

/// The first quote, backslash or control character from `at` on: the byte that ends a run of plain text in a JSON
/// string. Short runs are examined in words, long ones by the vector units.
fn find_special(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    for _ in 0..SHORT_RUN_WORDS {
        let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            let rest = bytes.get(at..)?;
            return rest.iter().position(|byte| is_special(*byte)).map(|offset| at + offset);
        };
        let found = special_bytes(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(at + (found.trailing_zeros() / u8::BITS) as usize);
        }
        at += size_of::<u64>();
    }
    let rest = bytes.get(at..)?;
    let run = memchr::memchr2(b'"', b'\\', rest);
    let plain = rest.get(..run.unwrap_or(rest.len()))?;
    // A fold without an early exit, so that it is vectorized.
    let has_control = plain.iter().fold(false, |any, byte| any | (*byte < b' '));
    let offset = if has_control { plain.iter().position(|byte| *byte < b' ') } else { run };
    offset.map(|offset| at + offset)
}

fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// The high bit of each byte that is special; above the lowest such byte others may be marked too.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let all = |byte: u8| ONES * u64::from(byte);
    let is_control = word.wrapping_sub(all(b' ')) & !word;
    (is_zero(word ^ all(b'"')) | is_zero(word ^ all(b'\\')) | is_control) & HIGH
}

/// Words after which a run counts as long.
const SHORT_RUN_WORDS: usize = 4;
/// Channels up to which duplicates are searched for one by one.
const DISTINCT_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// The usual bodies of SDKs are read here, whatever the order of their members and their white space.
    #[test]
    fn usual_bodies_are_read() {
        for body in [
            r#"{"name":"e","data":"{\"a\":1}","channels":["a","b"]}"#,
            r#"{"name":"e","channels":["a","b"],"data":"{\"a\":1}","socket_id":"1.2","info":"user_count"}"#,
            " { \"data\" : \"{\\\"a\\\":1}\" ,\r\n\t\"channels\" : [ \"a\" , \"b\" ] , \"name\" : \"e\" } \n",
        ] {
            let event = read_usual_event(body).expect(body);
            let name = event.name.and_then(|name| name.decode());
            assert_eq!((name.as_deref(), &event.channels[..]), (Some("e"), &["a", "b"][..]), "{body}");
            let data = event.data.expect(body);
            assert_eq!((data.text, data.decoded_bytes), (r#""{\"a\":1}""#, 7), "{body}");
        }
    }

    /// Bodies that need the full parser are not read here: nested data, null, unknown and repeated members, escapes in
    /// names of channels, text that is not JSON.
    #[test]
    fn unusual_bodies_are_left() {
        for body in [
            r#"{"name":"e","data":{},"channel":"a"}"#,
            r#"{"name":"e","data":null,"channel":"a"}"#,
            r#"{"name":"e","data":"","channel":"a","x":1}"#,
            r#"{"name":"e","data":"","channel":"a","name":"e"}"#,
            r#"{"name":"e","data":"","channel":"a","channels":["b"]}"#,
            r#"{"name":"e","data":"","channel":"\u0061"}"#,
            r#"{"name":"e","data":"\x","channel":"a"}"#,
            r#"{"name":"e","data":"\u00g0","channel":"a"}"#,
            r#"{"name":"e","data":"\u+123","channel":"a"}"#,
            r#"{"name":"e","data":"\ud800","channel":"a"}"#,
            r#"{"name":"e","data":"","channels":[]}"#,
            r#"{"name":"e","data":"","channels":["a",]}"#,
            r#"{"name":"e","data":"","channel":"a",}"#,
            r#"{"name":"e","data":"","channel":"a"}}"#,
            r#"{"name":"e","data":"","channel":"a""#,
            "{\"name\":\"e\",\"data\":\"\",\"channel\":\"a\t\"}",
            "{\"name\":\"e\",\"data\t\n\":\"\",\"channel\":\"a\"}",
            "{\"name\":\"e\",\"data\":\"\",\"channel\":\"a\",\"socket_id\":\"1.2\r\"}",
            r#"["name"]"#,
            "{}",
            "",
            "{\"name\":\"e\",\"data\":\"a\u{1}\",\"channel\":\"a\"}",
            "{\"name\":\"e\",\"data\":\"0123456789012345678901234567890123456789\n\",\"channel\":\"a\"}",
        ] {
            assert!(read_usual_event(body).is_none(), "{body}");
        }
    }

    /// Every special byte is found at every position of runs of every length, and none where there is none, with text
    /// of other alphabets around it.
    #[test]
    fn special_bytes_are_found_everywhere() {
        for length in 0..100 {
            for fill in [b'a', b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                let mut bytes = vec![fill; length];
                assert_eq!(find_special(&bytes, 0), None, "{length} of {fill}");
                for at in 0..length {
                    for special in [b'"', b'\\', 0, 1, 0x1f] {
                        bytes[at] = special;
                        assert_eq!(find_special(&bytes, 0), Some(at), "{length} of {fill}");
                        assert_eq!(find_special(&bytes, at), Some(at));
                    }
                    bytes[at] = fill;
                }
            }
        }
    }
}
