//! The ways to read a signed query, and the text that each of them signs (P-SIGN-4, P-SIGN-5).
//!
//! Invariant: a reading takes linear time in the query except for its sort, since any client can cause one (threat T6).

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::wire::http::without_prefix;
use crate::wire::query::{self, Parameter, Values, append_read, array_base};

/// Whether `k[0]=a&k[1]=b` and `k[]=a&k[]=b` are signed as they are or as `k=a,b` (P-SDK-20).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pairs {
    AsSent,
    Collapsed,
}

/// The parameters in one reading of their names and values.
pub(super) struct Reading {
    /// Names and values, concatenated.
    text: Vec<u8>,
    parameters: SmallVec<[Place; PARAMETERS_INLINE]>,
}

/// Position of a parameter in the text of a reading: its name, directly followed by its value.
#[derive(Clone, Copy, Debug)]
struct Place {
    name_start: usize,
    /// The end of the name without `[]` or `[123]`, if it has such a suffix.
    base_end: Option<usize>,
    name_end: usize,
    value_end: usize,
}

impl Place {
    /// The name to sort by.
    fn name<'a>(&self, text: &'a [u8], pairs: Pairs) -> &'a [u8] {
        let end = match pairs {
            Pairs::AsSent => self.name_end,
            Pairs::Collapsed => self.base_end.unwrap_or(self.name_end),
        };
        &text[self.name_start..end]
    }

    fn value<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.name_end..self.value_end]
    }
}

impl Reading {
    pub(super) fn of(parameters: &[Parameter<'_>], values: Values) -> Self {
        let mut text = Vec::new();
        let places = parameters.iter().map(|parameter| {
            let name_start = text.len();
            append_read(&mut text, parameter.name, values);
            // Lower-cased in any reading (P-SIGN-2).
            text[name_start..].make_ascii_lowercase();
            let name_end = text.len();
            let base_end = array_base(&text[name_start..]).map(|base| name_start + base.len());
            append_read(&mut text, parameter.value, values);
            Place { name_start, base_end, name_end, value_end: text.len() }
        });
        let parameters = places.collect();
        Self { text, parameters }
    }

    pub(super) fn has_arrays(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.base_end.is_some())
    }

    /// Sorts the parameters by name and joins them. Parameters of one name stay in the order sent.
    pub(super) fn join(&mut self, pairs: Pairs) -> SignedText {
        let text = &*self.text;
        self.parameters
            .sort_unstable_by(|a, b| (a.name(text, pairs), a.name_start).cmp(&(b.name(text, pairs), b.name_start)));
        let mut joined = SmallVec::new();
        match pairs {
            Pairs::AsSent => {
                append_pairs(&mut joined, self.parameters.iter().map(|one| (one.name(text, pairs), one.value(text))));
            }
            Pairs::Collapsed => {
                let same_name = |a: &Place, b: &Place| a.name(text, pairs) == b.name(text, pairs);
                for same in self.parameters.chunk_by(same_name) {
                    append_collapsed(&mut joined, text, same);
                }
            }
        }
        joined
    }
}

/// Appends parameters of one name: the elements of its array become one value, at the position of the first element.
fn append_collapsed(joined: &mut SignedText, text: &[u8], same: &[Place]) {
    let mut elements = same.iter().filter(|parameter| parameter.base_end.is_some()).peekable();
    for parameter in same {
        if parameter.base_end.is_some() && elements.peek().is_none() {
            continue;
        }
        if !joined.is_empty() {
            joined.push(b'&');
        }
        joined.extend_from_slice(parameter.name(text, Pairs::Collapsed));
        joined.push(b'=');
        if parameter.base_end.is_none() {
            joined.extend_from_slice(parameter.value(text));
            continue;
        }
        for (index, element) in elements.by_ref().enumerate() {
            if index > 0 {
                joined.push(b',');
            }
            joined.extend_from_slice(element.value(text));
        }
    }
}

/// A text to sign, built on the stack.
pub(super) type SignedText = SmallVec<[u8; SIGNED_BYTES_INLINE]>;

/// Appends pairs, joined.
pub(super) fn append_pairs<'a>(text: &mut SignedText, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    for (index, (name, value)) in pairs.enumerate() {
        if index > 0 {
            text.push(b'&');
        }
        text.extend_from_slice(name);
        text.push(b'=');
        text.extend_from_slice(value);
    }
}

/// The paths that may have been signed: as requested, percent-decoded, and without `/api/v1` and the configured prefix
/// (P-SIGN-5). Each appears once, so that together with the readings there are 18 candidates at most.
pub(super) fn candidate_paths<'a>(path: &'a str, prefix: &str) -> SmallVec<[Cow<'a, [u8]>; 3]> {
    let mut paths: SmallVec<[Cow<'a, [u8]>; 3]> = SmallVec::new();
    paths.push(Cow::Borrowed(path.as_bytes()));
    if memchr::memchr(b'%', path.as_bytes()).is_some() {
        paths.push(query::decode(path.as_bytes()));
    }
    let unprefixed = without_prefix(path, prefix);
    let shortest = without_prefix(unprefixed.unwrap_or(path), "/api/v1");
    for shorter in [shortest, unprefixed].into_iter().flatten() {
        if paths.len() < 3 && paths.iter().all(|known| **known != *shorter.as_bytes()) {
            paths.push(Cow::Borrowed(shorter.as_bytes()));
        }
    }
    paths
}

/// Parameters held without allocating: those of a publish, and some of the caller's.
pub(super) const PARAMETERS_INLINE: usize = 12;
/// A text to sign up to this length is built on the stack.
const SIGNED_BYTES_INLINE: usize = 512;
