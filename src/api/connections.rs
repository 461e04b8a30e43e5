//! `GET /connections` (P-HTTP-9, R-READ-2).

/// Appends the answer: connections of the app that are open now.
pub fn encode_connections(out: &mut Vec<u8>, connections: u32) {
    out.extend_from_slice(br#"{"connections":"#);
    out.extend_from_slice(itoa::Buffer::new().format(connections).as_bytes());
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-HTTP-9: one number.
    #[test]
    fn one_number() {
        let mut out = Vec::new();
        encode_connections(&mut out, 15_000);
        assert_eq!(out, br#"{"connections":15000}"#);
    }
}
