//! The key from which those of an app's encrypted channels are derived (P-ENC-2, R-AUTHEP-6).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// 32 secret bytes; `Debug` does not print them.
#[derive(Clone, Eq, PartialEq)]
pub struct MasterKey(Box<[u8; 32]>);

impl MasterKey {
    /// Reads the 44 characters that [`MasterKey::to_base64`] writes.
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes: Vec<u8> = STANDARD.decode(text).ok()?;
        bytes.try_into().ok().map(|bytes| Self(Box::new(bytes)))
    }

    /// Wraps random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Box::new(bytes))
    }

    /// The form that server libraries take.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(*self.0)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-AUTHEP-6: the text reads back, other lengths are refused, and nothing prints the key (threat T27).
    #[test]
    fn text_of_32_bytes() {
        let key = MasterKey::new([7; 32]);
        let text = key.to_base64();
        assert_eq!((text.len(), MasterKey::from_base64(&text)), (44, Some(key.clone())));
        for other in ["", "AAAA", &text[..43], &format!("{text}AAAA")] {
            assert_eq!(MasterKey::from_base64(other), None, "{other}");
        }
        assert_eq!(format!("{key:?}"), "[secret]");
    }
}
