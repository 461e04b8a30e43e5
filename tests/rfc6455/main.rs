//! Goal: the real endpoint, `/app/{key}`, conforms to RFC 6455 whatever a client sends. Method: an independent client
//! (its frames are bytes written by hand, and the answers are parsed here) asks the questions that Autobahn|Testsuite
//! asks: sizes, pings, reserved bits and opcodes, fragments, UTF-8, the closing handshake, limits, compression. Each
//! question is sent in one piece and byte by byte, and on both drivers.
//!
//! It shares no code with the server, and runs everywhere; `tests/autobahn.rs` needs a Python 2.7.

mod ask;
mod closing;
mod fragments;
mod framing;
mod sizes;
mod text;
