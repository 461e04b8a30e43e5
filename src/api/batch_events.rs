//! `POST /batch_events` (P-HTTP-2).

use super::events::{Publish, PublishRules};
use super::refusal::Refusal;

/// Decodes and checks the body of `POST /batch_events`.
pub fn decode_batch_events<'a>(
    _body: &'a [u8],
    _rules: &PublishRules<'_>,
) -> Result<Publish<'a>, Refusal> {
    todo!()
}
