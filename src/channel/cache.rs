//! The last event of one cache channel, held by the channel's owner (P-CACHE-1).

use bytes::Bytes;

/// The frame as it was sent live, and its expiry.
#[derive(Debug)]
pub struct CachedEvent {
    frame: Bytes,
    /// Length of the literal of `data`, which ends the frame except for one brace.
    data_bytes: u32,
    /// Expiry, in ms of the monotonic clock.
    expires_ms: u64,
    /// Its position in the order in which events were cached.
    age: u64,
}

impl CachedEvent {
    /// Keeps the frame of a channel event whose `data` literal has `data_bytes`.
    pub fn new(frame: Bytes, data_bytes: u32, expires_ms: u64, age: u64) -> Self {
        debug_assert!(frame.len() > data_bytes as usize, "a frame contains its data");
        Self { frame, data_bytes, expires_ms, age }
    }

    /// The frame, identical to the live one (P-CACHE-2); `None` once it has expired.
    pub fn frame(&self, now_ms: u64) -> Option<&Bytes> {
        (now_ms < self.expires_ms).then_some(&self.frame)
    }

    /// `data` as a JSON string literal, and its remaining whole seconds (P-HTTP-4); `None` once it has expired.
    pub fn data(&self, now_ms: u64) -> Option<(&[u8], u64)> {
        let end = self.frame.len() - 1;
        let literal = &self.frame[end - self.data_bytes as usize..end];
        (now_ms < self.expires_ms).then(|| (literal, (self.expires_ms - now_ms).div_ceil(1_000)))
    }

    /// Expiry, in ms of the monotonic clock.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// Its position in the order in which events were cached.
    pub fn age(&self) -> u64 {
        self.age
    }

    /// Length of its frame.
    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::server_event::encode_channel_event;

    /// P-CACHE-1, P-HTTP-4: frame and data are available until the millisecond of expiry, the seconds are rounded up.
    #[test]
    fn lasts_until_its_time_is_over() {
        for literal in [r#""""#, r#""{\"a\":\"}\"}""#, r#""é""#] {
            let mut frame = vec![0x81, 0x20];
            encode_channel_event(&mut frame, "e", "cache-c", literal, None);
            let cached = CachedEvent::new(frame.clone().into(), literal.len() as u32, 1_800_500, 1);
            assert_eq!(cached.frame(0).map(|frame| &**frame), Some(&*frame));
            assert_eq!(cached.data(500), Some((literal.as_bytes(), 1_800)));
            assert_eq!(cached.data(501).map(|(_, ttl)| ttl), Some(1_800));
            assert_eq!(cached.data(1_800_499).map(|(_, ttl)| ttl), Some(1));
            assert!(cached.data(1_800_500).is_none() && cached.frame(1_800_500).is_none());
        }
    }
}
