//! Bodies that differ from the signed one (P-SIGN-1): what happened to them on the way.

use base64::Engine;

use super::cause::Cause;
use super::given::BASE64;
use super::json::Forms;
use super::search::Search;

/// What became of a body whose MD5 is `md5`, while `body_md5` of the query is `given`.
pub(super) fn difference(search: &mut Search, given: &str, body: &[u8], md5: &str, coding: Option<&str>) -> Changed {
    let changed = |cause| Changed { cause, about: "" };
    if is_compressed(body, coding) {
        return changed(Cause::CompressedBody);
    }
    let Some(wanted) = decode_md5(given) else { return changed(Cause::EncodedBodyMd5) };
    if const_hex::encode(wanted) == md5 {
        return changed(Cause::EncodedBodyMd5);
    }
    if const_hex::encode(wanted) == MD5_OF_NOTHING {
        return changed(Cause::Md5OfEmptyBody);
    }
    let is_signed = |search: &mut Search, body: &[u8]| search.body_md5(body) == Some(wanted);
    let ended = body.trim_ascii();
    let ends: [Vec<u8>; 2] = if ended.len() < body.len() {
        [ended.to_vec(), body.trim_ascii_end().to_vec()]
    } else {
        [[body, b"\n"].concat(), [body, b"\r\n"].concat()]
    };
    for end in ends {
        if is_signed(search, &end) {
            return changed(Cause::BodyNewline);
        }
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let mut forms = Forms::of(search, text);
        while let Some(form) = forms.next(search).filter(|_| !search.is_cut) {
            if is_signed(search, &form.text) {
                return Changed { cause: Cause::ReformattedBody, about: form.about };
            }
        }
    }
    changed(Cause::OtherBody)
}

/// What became of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed {
    pub(super) cause: Cause,
    pub(super) about: &'static str,
}

/// By its header, or by the first bytes of gzip.
pub(super) fn is_compressed(body: &[u8], coding: Option<&str>) -> bool {
    let named = coding.is_some_and(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"));
    !body.is_empty() && (named || body.starts_with(b"\x1f\x8b"))
}

/// The MD5 in hex or base64.
fn decode_md5(text: &str) -> Option<[u8; 16]> {
    let text = text.trim();
    let bytes = const_hex::decode(text).ok().or_else(|| BASE64.decode(text.replace(' ', "+")).ok())?;
    bytes.try_into().ok()
}

pub(super) const MD5_OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";
