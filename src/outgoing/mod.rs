//! Requests of Relay to servers of its customers: webhooks and authorizers.
//!
//! An app chooses these URLs, so every request goes through the guard, which keeps it out of internal networks, and no
//! redirect is followed (threats T19, T38).

pub mod client;
#[cfg(not(fuzzing))]
mod guard;
#[cfg(fuzzing)]
pub mod guard;
