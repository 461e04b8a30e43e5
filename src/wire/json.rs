//! What must be known of JSON text before any parser sees it.

/// The text nests deeper than allowed, or is not UTF-8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooDeep;

/// Refuses text whose `[` and `{` nest deeper than `depth_max`, in one pass that knows strings and escapes (threat T10).
///
/// Says nothing about whether the text is JSON.
pub fn check_depth(_json: &[u8], _depth_max: usize) -> Result<(), TooDeep> {
    todo!()
}
