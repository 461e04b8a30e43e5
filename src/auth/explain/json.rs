//! JSON as the encoders of usual languages write it, to recognize data that was encoded again after it was signed
//! (R-EXPLAIN-2).
//!
//! Invariant: depth and length of the text are checked before it is read (threat T10), and each form counts against the
//! search's bound before it is written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::search::Search;
use crate::limits::{EXPLAIN_JSON_BYTES_MAX, EXPLAIN_JSON_DEPTH_MAX};
use crate::wire::json::{Text, check_text_depth, decode_string, without_mark};

/// A value with its members in order and its numbers as they were written.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Tree {
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    String(String),
    /// A number, `true`, `false` or `null`.
    Plain(String),
}

/// The order of an object's members.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    AsSent,
    Sorted,
    /// At the top: `user_info` before `user_id`.
    Reversed,
}

/// How an encoder writes JSON.
#[derive(Clone, Copy, Debug)]
struct Style {
    name: &'static str,
    /// Between two items.
    comma: &'static str,
    /// Between name and value.
    colon: &'static str,
    /// One level of indentation; empty on one line.
    indent: &'static str,
    /// Characters of ASCII that are escaped as `\u`.
    escaped: &'static str,
    /// Characters beyond ASCII are escaped.
    ascii: bool,
    /// Hex digits in upper case.
    upper: bool,
    /// `/` is written `\/`.
    slash: bool,
}

const COMPACT: Style = Style {
    name: "compact, as JSON.stringify writes it",
    comma: ",",
    colon: ":",
    indent: "",
    escaped: "",
    ascii: false,
    upper: false,
    slash: false,
};

/// The usual encoders, the most frequent first.
const STYLES: &[Style] = &[
    COMPACT,
    Style { name: "as Python's json.dumps writes it", comma: ", ", colon: ": ", ascii: true, ..COMPACT },
    Style { name: "as PHP's json_encode writes it", ascii: true, slash: true, ..COMPACT },
    Style { name: "compact with Unicode escapes", ascii: true, ..COMPACT },
    Style { name: "as PHP's json_encode writes it with JSON_UNESCAPED_UNICODE", slash: true, ..COMPACT },
    Style { name: "as Python's json.dumps writes it with ensure_ascii=False", comma: ", ", colon: ": ", ..COMPACT },
    Style { name: "as Go's encoding/json and Rails write it", escaped: "<>&\u{2028}\u{2029}", ..COMPACT },
    Style {
        name: "as .NET's System.Text.Json writes it",
        escaped: "<>&'+\"`\u{7f}",
        ascii: true,
        upper: true,
        ..COMPACT
    },
    Style { name: "as Java's Gson writes it", escaped: "<>&='\u{2028}\u{2029}", ..COMPACT },
    Style { name: "indented by two spaces", comma: ",", colon: ": ", indent: "  ", ..COMPACT },
    Style { name: "indented by four spaces", comma: ",", colon: ": ", indent: "    ", ..COMPACT },
    Style {
        name: "as PHP's json_encode writes it with JSON_PRETTY_PRINT",
        colon: ": ",
        indent: "    ",
        ascii: true,
        slash: true,
        ..COMPACT
    },
    Style { name: "indented by tabs", comma: ",", colon: ": ", indent: "\t", ..COMPACT },
];

/// Another value of the same data, if there is one.
type Change = fn(&Tree) -> Option<Tree>;

/// Other values that the same data has in some languages.
const CHANGES: &[(&str, Change)] =
    &[("with the id as another type", other_id), ("with {} as [] or the reverse", other_empty)];

/// A form of a text.
#[derive(Debug)]
pub(super) struct Form {
    /// The encoder that writes it so.
    pub(super) about: &'static str,
    pub(super) text: Vec<u8>,
}

/// The forms of a text, each once, without the text itself.
pub(super) struct Forms<'t> {
    text: &'t str,
    trees: Vec<(&'static str, Tree)>,
    written: Vec<Vec<u8>>,
    /// Index into all combinations of change, order and style.
    next: usize,
}

impl<'t> Forms<'t> {
    /// None for text that is no JSON.
    pub(super) fn of(search: &mut Search, text: &'t str) -> Self {
        let tree = if text.len() > EXPLAIN_JSON_BYTES_MAX {
            search.is_cut = true;
            None
        } else {
            Tree::parse(text)
        };
        let changed = |tree: &Tree| {
            let trees = CHANGES.iter().filter_map(|(about, change)| Some((*about, change(tree)?)));
            std::iter::once(("", tree.clone())).chain(trees).collect()
        };
        Self { text, trees: tree.as_ref().map(changed).unwrap_or_default(), written: Vec::new(), next: 0 }
    }

    /// The next form that differs from the text and from all before.
    pub(super) fn next(&mut self, search: &mut Search) -> Option<Form> {
        loop {
            let (rest, style) = (self.next / STYLES.len(), &STYLES[self.next % STYLES.len()]);
            let (change, order) = (rest / ORDERS.len(), ORDERS[rest % ORDERS.len()]);
            let (about, tree) = self.trees.get(change)?;
            self.next += 1;
            if !search.may_write(self.text.len()) {
                return None;
            }
            let mut text = Vec::with_capacity(self.text.len());
            tree.write(style, order, 0, &mut text);
            if text == self.text.as_bytes() || self.written.contains(&text) {
                continue;
            }
            self.written.push(text.clone());
            let about = match (order, *about) {
                (Order::AsSent, "") => style.name,
                (Order::AsSent, about) => about,
                (Order::Sorted, _) => "with its members sorted by name",
                (Order::Reversed, _) => "with its members in another order",
            };
            return Some(Form { about, text });
        }
    }
}

const ORDERS: [Order; 3] = [Order::AsSent, Order::Sorted, Order::Reversed];

/// A member at the top of an object, as the text that is signed for an id: without quotes.
pub(super) fn member(text: &str, name: &str) -> Option<String> {
    if text.len() > EXPLAIN_JSON_BYTES_MAX {
        return None;
    }
    let Tree::Object(members) = Tree::parse(text)? else { return None };
    let (_, value) = members.into_iter().find(|(known, _)| known == name)?;
    match value {
        Tree::String(text) | Tree::Plain(text) => Some(text),
        Tree::Object(_) | Tree::Array(_) => None,
    }
}

/// The text as a JSON string.
pub(super) fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(text, &COMPACT, &mut out);
    out
}

/// The text that a JSON string contains.
pub(super) fn unquoted(text: &str) -> Option<String> {
    decode_string(text).map(std::borrow::Cow::into_owned)
}

impl Tree {
    fn parse(text: &str) -> Option<Self> {
        check_text_depth(text, EXPLAIN_JSON_DEPTH_MAX).ok()?;
        Self::read(serde_json::from_str(without_mark(text)).ok()?)
    }

    /// Recurses as deep as the text nests, which was checked.
    fn read(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        Some(match text.as_bytes().first()? {
            b'{' => {
                let Members(members) = serde_json::from_str(text).ok()?;
                let read = members.into_iter().map(|(name, value)| Some((name, Self::read(value)?)));
                Self::Object(read.collect::<Option<_>>()?)
            }
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Self::Array(items.into_iter().map(Self::read).collect::<Option<_>>()?)
            }
            b'"' => Self::String(decode_string(text)?.into_owned()),
            _ => Self::Plain(text.to_owned()),
        })
    }

    fn write(&self, style: &Style, order: Order, depth: usize, out: &mut Vec<u8>) {
        match self {
            Self::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Self::String(text) => write_string(text, style, out),
            Self::Array(items) => {
                write_items(b'[', b']', items.iter(), style, depth, out, |item, out| {
                    item.write(style, order, depth + 1, out);
                });
            }
            Self::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                match order {
                    Order::AsSent => {}
                    Order::Sorted => members.sort_by(|(a, _), (b, _)| a.cmp(b)),
                    Order::Reversed if depth == 0 => members.reverse(),
                    Order::Reversed => {}
                }
                write_items(b'{', b'}', members.into_iter(), style, depth, out, |(name, value), out| {
                    write_string(name, style, out);
                    out.extend_from_slice(style.colon.as_bytes());
                    value.write(style, order, depth + 1, out);
                });
            }
        }
    }
}

fn write_items<T>(
    open: u8,
    close: u8,
    items: impl ExactSizeIterator<Item = T>,
    style: &Style,
    depth: usize,
    out: &mut Vec<u8>,
    write: impl Fn(T, &mut Vec<u8>),
) {
    let is_empty = items.len() == 0;
    let break_line = |out: &mut Vec<u8>, depth: usize| {
        if !style.indent.is_empty() && !is_empty {
            out.push(b'\n');
            (0..depth).for_each(|_| out.extend_from_slice(style.indent.as_bytes()));
        }
    };
    out.push(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.extend_from_slice(style.comma.as_bytes());
        }
        break_line(out, depth + 1);
        write(item, out);
    }
    break_line(out, depth);
    out.push(close);
}

fn write_string(text: &str, style: &Style, out: &mut Vec<u8>) {
    let mut utf8 = [0; 4];
    out.push(b'"');
    for character in text.chars() {
        match character {
            _ if style.escaped.contains(character) || (style.ascii && !character.is_ascii()) => {
                write_escape(character, style, out);
            }
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '/' if style.slash => out.extend_from_slice(b"\\/"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\0'..='\u{1f}' => write_escape(character, style, out),
            other => out.extend_from_slice(other.encode_utf8(&mut utf8).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Two escapes for a character beyond the first plane.
fn write_escape(character: char, style: &Style, out: &mut Vec<u8>) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        let escape = if style.upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
        out.extend_from_slice(escape.as_bytes());
    }
}

/// An id that is a number becomes a string, and the reverse.
fn other_id(tree: &Tree) -> Option<Tree> {
    let Tree::Object(members) = tree else { return None };
    let mut members = members.clone();
    let (_, id) = members.iter_mut().find(|(name, _)| matches!(name.as_str(), "user_id" | "id"))?;
    *id = match &*id {
        Tree::Plain(number) => Tree::String(number.clone()),
        Tree::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            Tree::Plain(text.clone())
        }
        Tree::String(_) | Tree::Array(_) | Tree::Object(_) => return None,
    };
    Some(Tree::Object(members))
}

/// Empty objects become empty arrays, as in PHP, or the reverse if there is no empty object.
fn other_empty(tree: &Tree) -> Option<Tree> {
    fn replace(tree: &mut Tree, from: &Tree, to: &Tree) {
        if tree == from {
            tree.clone_from(to);
            return;
        }
        match tree {
            Tree::Object(members) => members.iter_mut().for_each(|(_, value)| replace(value, from, to)),
            Tree::Array(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
            Tree::String(_) | Tree::Plain(_) => {}
        }
    }
    let (object, array) = (Tree::Object(Vec::new()), Tree::Array(Vec::new()));
    [(&object, &array), (&array, &object)].into_iter().find_map(|(from, to)| {
        let mut changed = tree.clone();
        replace(&mut changed, from, to);
        (changed != *tree).then_some(changed)
    })
}

/// The members of an object in the order sent.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            members.push((name.0.into_owned(), value));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::super::given::GivenSignature;
    use super::*;
    use crate::limits::EXPLAIN_FORM_BYTES_MAX;

    fn forms(text: &str) -> Vec<(&'static str, String)> {
        let mut search = Search::new(GivenSignature::none());
        let mut forms = Forms::of(&mut search, text);
        let mut all = Vec::new();
        while let Some(form) = forms.next(&mut search) {
            all.push((form.about, String::from_utf8(form.text).expect("JSON is UTF-8")));
        }
        all
    }

    /// R-EXPLAIN-2: the forms of one text are those that the encoders of usual languages write.
    #[test]
    fn forms_are_those_of_real_encoders() {
        const SENT: &str =
            r#"{"user_id":7,"user_info":{"name":"Zoë <😀> & Co","url":"https://a.test/x","tags":[1,"b"],"none":{}}}"#;
        let all = forms(SENT);
        let expected = [
            // Python: json.dumps(data)
            r#"{"user_id": 7, "user_info": {"name": "Zo\u00eb <\ud83d\ude00> & Co", "url": "https://a.test/x", "tags": [1, "b"], "none": {}}}"#,
            // Python: json.dumps(data, ensure_ascii=False)
            r#"{"user_id": 7, "user_info": {"name": "Zoë <😀> & Co", "url": "https://a.test/x", "tags": [1, "b"], "none": {}}}"#,
            // Python: json.dumps(data, separators=(",", ":"))
            r#"{"user_id":7,"user_info":{"name":"Zo\u00eb <\ud83d\ude00> & Co","url":"https://a.test/x","tags":[1,"b"],"none":{}}}"#,
            // PHP: json_encode($data)
            r#"{"user_id":7,"user_info":{"name":"Zo\u00eb <\ud83d\ude00> & Co","url":"https:\/\/a.test\/x","tags":[1,"b"],"none":{}}}"#,
            // Go: json.Marshal of a struct
            r#"{"user_id":7,"user_info":{"name":"Zoë \u003c😀\u003e \u0026 Co","url":"https://a.test/x","tags":[1,"b"],"none":{}}}"#,
            // .NET: JsonSerializer.Serialize
            r#"{"user_id":7,"user_info":{"name":"Zo\u00EB \u003C\uD83D\uDE00\u003E \u0026 Co","url":"https://a.test/x","tags":[1,"b"],"none":{}}}"#,
            // Go: json.Marshal of a map
            r#"{"user_id":7,"user_info":{"name":"Zoë \u003c😀\u003e \u0026 Co","none":{},"tags":[1,"b"],"url":"https://a.test/x"}}"#,
            // Node: JSON.stringify(data, null, 2)
            "{\n  \"user_id\": 7,\n  \"user_info\": {\n    \"name\": \"Zoë <😀> & Co\",\n    \"url\": \"https://a.test/x\",\n    \"tags\": [\n      1,\n      \"b\"\n    ],\n    \"none\": {}\n  }\n}",
            // The id as a string, and PHP's empty array.
            r#"{"user_id":"7","user_info":{"name":"Zoë <😀> & Co","url":"https://a.test/x","tags":[1,"b"],"none":{}}}"#,
            r#"{"user_id":7,"user_info":{"name":"Zoë <😀> & Co","url":"https://a.test/x","tags":[1,"b"],"none":[]}}"#,
        ];
        for text in expected {
            assert!(all.iter().any(|(_, form)| form == text), "{text}");
        }
        for (index, (_, form)) in all.iter().enumerate() {
            assert_ne!(form, SENT);
            assert!(all[..index].iter().all(|(_, before)| before != form), "twice: {form}");
            serde_json::from_str::<serde_json::Value>(form).expect("each form is JSON");
        }
    }

    /// T54, T10: text that is no JSON, too deep or too long has no form; the bytes written are bounded.
    #[test]
    fn forms_are_bounded() {
        for text in ["", "{", "x", "{\"a\":}", &format!("{}{}", "[".repeat(33), "]".repeat(33))] {
            assert_eq!(forms(text), [], "{text}");
        }
        assert!(!forms(&format!("{}{}", "[".repeat(32), "]".repeat(32))).is_empty());
        let mut search = Search::new(GivenSignature::none());
        let long = format!("{{\"a\":\"é/{}\"}}", "x".repeat(EXPLAIN_JSON_BYTES_MAX));
        assert!(Forms::of(&mut search, &long).next(&mut search).is_none() && search.is_cut);
        let mut search = Search::new(GivenSignature::none());
        let text = format!("{{\"b\":\"é/<\",\"a\":\"{}\"}}", "x".repeat(EXPLAIN_JSON_BYTES_MAX - 32));
        let mut forms = Forms::of(&mut search, &text);
        let mut bytes = 0;
        while let Some(form) = forms.next(&mut search) {
            bytes += form.text.len();
        }
        assert!(search.is_cut && bytes > EXPLAIN_FORM_BYTES_MAX / 3 && bytes < 2 * EXPLAIN_FORM_BYTES_MAX, "{bytes}");
    }

    /// A JSON string of JSON, and the member that identifies a user.
    #[test]
    fn strings_and_members() {
        assert_eq!(quoted(r#"{"a":"é"}"#), r#""{\"a\":\"é\"}""#.as_bytes());
        assert_eq!(unquoted(r#""{\"a\":1}""#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(unquoted("{}"), None);
        assert_eq!(member(r#"{"id":"u-1"}"#, "id").as_deref(), Some("u-1"));
        assert_eq!(member(r#"{"id":17}"#, "id").as_deref(), Some("17"));
        assert_eq!((member(r#"{"id":{}}"#, "id"), member("[]", "id")), (None, None));
    }
}
