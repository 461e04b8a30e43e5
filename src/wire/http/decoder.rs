//! Decodes requests from a stream of bytes.

use super::chunked::ChunkedDecoder;
use super::head::{Framing, Head, HeadScan};
use super::{HttpError, Request, RequestLimits};

/// The result of one call of [`RequestDecoder::decode`].
#[derive(Debug)]
pub struct DecodedRequest<'a> {
    /// Bytes of the input that were consumed. Bytes beyond the end of a request are never consumed with it.
    pub consumed: usize,
    /// The progress made.
    pub progress: Progress<'a>,
}

/// State of the current request.
#[derive(Debug)]
pub enum Progress<'a> {
    /// More input is needed; all of it was consumed.
    Partial,
    /// The head is complete and asks for `100 Continue` before the body; returned once per request, and not when the
    /// body came with it. All input was consumed.
    ExpectsContinue,
    /// A complete request.
    Request(Request<'a>),
}

/// Decodes requests from a stream. Parses a head once when its end arrives, not once per byte (threat T14).
///
/// Between requests it owns no memory, except for a request that borrows from its buffer: that memory is released by
/// the next call of `decode`, by `release` or by dropping the decoder.
#[derive(Debug, Default)]
pub struct RequestDecoder {
    held: Option<Box<Held>>,
}

/// Stored inline in every connection.
const _: () = assert!(size_of::<RequestDecoder>() == 8);

/// State of a request that was not complete in one input.
#[derive(Debug, Default)]
struct Held {
    /// The head, then the decoded body, as received so far.
    buffer: Vec<u8>,
    phase: Phase,
    /// Whether `ExpectsContinue` is still to be returned.
    expects_continue: bool,
    /// The head is complete and was not taken yet.
    has_new_head: bool,
    /// Bytes of the body that were dropped; `None` if the body is kept.
    discarded: Option<usize>,
    /// The limit of this body, if it differs from the general limit.
    body_bytes_max: Option<usize>,
}

/// Progress of a held request.
#[derive(Debug)]
enum Phase {
    /// The head is incomplete.
    Head(HeadScan),
    /// The body ends at this length of the buffer.
    Length { head_bytes: usize, end: usize },
    /// The body is chunked.
    Chunked { head_bytes: usize, decoder: ChunkedDecoder },
    /// The request was returned.
    Spent,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Head(HeadScan::default())
    }
}

impl RequestDecoder {
    /// Takes input. A request that is complete in `input` borrows from it without a copy (except for chunked bodies).
    ///
    /// # Errors
    /// The first violation; the decoder must not be used after it.
    pub fn decode<'a>(&'a mut self, input: &'a [u8], limits: &RequestLimits) -> Result<DecodedRequest<'a>, HttpError> {
        self.release();
        if self.held.is_none() {
            if let Some(whole) = lend_whole(input, limits)? {
                return Ok(whole);
            }
            if input.is_empty() {
                return Ok(DecodedRequest { consumed: 0, progress: Progress::Partial });
            }
        }
        let held = self.held.get_or_insert_default();
        let mut consumed = 0;
        let Some(head_bytes) = held.take(input, &mut consumed, limits)? else {
            let tell = std::mem::take(&mut held.expects_continue);
            let progress = if tell { Progress::ExpectsContinue } else { Progress::Partial };
            return Ok(DecodedRequest { consumed, progress });
        };
        held.phase = Phase::Spent;
        held.has_new_head = false;
        let (head, body) = held.buffer.split_at(head_bytes);
        let request = Head::parse(head, limits)?.into_request(body);
        Ok(DecodedRequest { consumed, progress: Progress::Request(request) })
    }

    /// The request whose head is complete while its body is awaited, without that body; once per request.
    pub fn take_head(&mut self, limits: &RequestLimits) -> Option<Request<'_>> {
        let held = self.held.as_mut().filter(|held| held.has_new_head)?;
        held.has_new_head = false;
        let head = held.buffer.get(..held.head_bytes()?)?;
        Some(Head::parse(head, limits).ok()?.into_request(&[]))
    }

    /// Limits the body of the awaited request. The caller has already checked a declared length against the limit.
    pub fn limit_body(&mut self, bytes_max: usize) {
        if let Some(held) = &mut self.held {
            held.body_bytes_max = Some(bytes_max);
        }
    }

    /// Number of bytes that the awaited and kept body may have.
    pub fn body_bytes_awaited(&self) -> usize {
        match self.held.as_ref().filter(|held| held.discarded.is_none()).map(|held| (&held.phase, held.body_bytes_max))
        {
            Some((Phase::Length { head_bytes, end }, _)) => end - head_bytes,
            Some((Phase::Chunked { .. }, bytes_max)) => bytes_max.unwrap_or(0),
            Some((Phase::Head(_) | Phase::Spent, _)) | None => 0,
        }
    }

    /// Drops the body of the awaited request, both the received part and the rest: it is decoded like any other, and
    /// the request is returned without it.
    pub fn discard_body(&mut self) {
        if let Some(held) = &mut self.held
            && let Some(head_bytes) = held.head_bytes()
        {
            held.discarded.get_or_insert(0);
            held.drop_body(head_bytes);
        }
    }

    /// True when nothing of a request is held, so that the decoder may be dropped.
    pub fn is_idle(&self) -> bool {
        self.held.as_ref().is_none_or(|held| matches!(held.phase, Phase::Spent))
    }

    /// Releases the memory of what the last call of `decode` returned. Nothing that is still incomplete is lost.
    pub fn release(&mut self) {
        if self.is_idle() {
            self.held = None;
        }
    }

    /// Bytes of memory kept for a request.
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.buffer.capacity())
    }

    /// True while the body of a request is being kept as it arrives.
    pub fn keeps_body(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.discarded.is_none() && held.head_bytes().is_some())
    }
}

/// The request, if it is complete in the input and needs no decoding.
fn lend_whole<'a>(input: &'a [u8], limits: &RequestLimits) -> Result<Option<DecodedRequest<'a>>, HttpError> {
    let window = &input[..input.len().min(limits.head_bytes_max)];
    let Some(head_bytes) = HeadScan::default().find_end(window)? else {
        return Ok(None);
    };
    let (head, rest) = input.split_at(head_bytes);
    let head = Head::parse(head, limits)?;
    match head.framing {
        Framing::Length(length) => Ok(rest.get(..length).map(|body| DecodedRequest {
            consumed: head_bytes + length,
            progress: Progress::Request(head.into_request(body)),
        })),
        Framing::Chunked => Ok(None),
    }
}

impl Held {
    /// Takes the bytes that the request needs from the input. Returns the length of the head once the request is
    /// complete.
    fn take(&mut self, input: &[u8], consumed: &mut usize, limits: &RequestLimits) -> Result<Option<usize>, HttpError> {
        if let Phase::Head(scan) = self.phase {
            *consumed += self.take_head(scan, input, limits)?;
        }
        let rest = &input[*consumed..];
        match &mut self.phase {
            Phase::Head(_) | Phase::Spent => Ok(None),
            Phase::Length { head_bytes, end } => {
                let known = self.buffer.len() + self.discarded.unwrap_or(0);
                let arrived = &rest[..rest.len().min(*end - known)];
                if let Some(discarded) = &mut self.discarded {
                    *discarded += arrived.len();
                    *consumed += arrived.len();
                    return Ok((known + arrived.len() == *end).then_some(*head_bytes));
                }
                // Doubled like any vector, but never beyond the declared end.
                let needed = self.buffer.len() + arrived.len();
                if needed > self.buffer.capacity() {
                    let doubled = needed.max(2 * self.buffer.capacity()).min(*end);
                    self.buffer.reserve_exact(doubled - self.buffer.len());
                }
                self.buffer.extend_from_slice(arrived);
                *consumed += arrived.len();
                Ok((self.buffer.len() == *end).then_some(*head_bytes))
            }
            Phase::Chunked { head_bytes, decoder } => {
                let head_bytes = *head_bytes;
                let body_bytes_max = self.body_bytes_max.unwrap_or(limits.body_bytes_max);
                let limits = RequestLimits { body_bytes_max, ..*limits };
                // Doubled like any vector, but never far beyond the longest body.
                let needed = self.buffer.len() + rest.len();
                if needed > self.buffer.capacity() {
                    let doubled = (2 * self.buffer.capacity()).min(head_bytes + body_bytes_max).max(needed);
                    self.buffer.reserve_exact(doubled - self.buffer.len());
                }
                let discarded = self.discarded.unwrap_or(0);
                *consumed += decoder.decode(rest, &mut self.buffer, head_bytes, discarded, &limits)?;
                let is_done = decoder.is_done();
                if self.discarded.is_some() {
                    self.drop_body(head_bytes);
                }
                Ok(is_done.then_some(head_bytes))
            }
        }
    }

    /// The length of the head, while the body is awaited.
    fn head_bytes(&self) -> Option<usize> {
        match self.phase {
            Phase::Length { head_bytes, .. } | Phase::Chunked { head_bytes, .. } => Some(head_bytes),
            Phase::Head(_) | Phase::Spent => None,
        }
    }

    /// Drops the held part of the body, and its memory.
    fn drop_body(&mut self, head_bytes: usize) {
        let dropped = self.buffer.len() - head_bytes;
        self.discarded = self.discarded.map(|discarded| discarded + dropped);
        self.buffer.truncate(head_bytes);
        self.buffer.shrink_to_fit();
    }

    /// Takes the bytes that the head needs from the input, and once it is complete determines what follows it.
    fn take_head(&mut self, mut scan: HeadScan, input: &[u8], limits: &RequestLimits) -> Result<usize, HttpError> {
        let known = self.buffer.len();
        let window = &input[..input.len().min(limits.head_bytes_max.saturating_sub(known))];
        self.buffer.extend_from_slice(window);
        let Some(head_bytes) = scan.find_end(&self.buffer)? else {
            if self.buffer.len() == limits.head_bytes_max {
                return Err(HttpError::HeadTooLarge);
            }
            self.phase = Phase::Head(scan);
            return Ok(window.len());
        };
        self.buffer.truncate(head_bytes);
        let head = Head::parse(&self.buffer, limits)?;
        self.expects_continue = head.expects_continue;
        self.has_new_head = true;
        self.phase = match head.framing {
            Framing::Length(length) => Phase::Length { head_bytes, end: head_bytes + length },
            Framing::Chunked => Phase::Chunked { head_bytes, decoder: ChunkedDecoder::new() },
        };
        Ok(head_bytes - known)
    }
}
