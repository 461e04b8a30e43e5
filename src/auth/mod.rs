//! Verdicts over proofs: subscription signatures, request credentials, tokens, and the handshake digest.
//! The users of `ring`.

pub mod failures;
pub mod handshake;
pub mod request;
pub mod subscription;
pub mod token;
