//! Codecs between bytes and typed frames and requests. Sans-IO: input split at every byte gives the same result.

pub mod forwarded;
pub mod http;
pub mod json;
pub mod proxy;
pub mod query;
pub mod websocket;
