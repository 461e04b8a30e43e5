//! Turns an authenticated HTTP request into a command or a refusal; one file per endpoint family.

pub mod answer;
pub mod arrival;
pub mod auth;
pub mod authorize;
pub mod authorizer;
pub mod batch_events;
pub mod channel;
pub mod channel_events;
pub mod channel_history;
pub mod channel_users;
pub mod channels;
pub mod connections;
pub mod cors;
pub mod document;
pub mod encryption_key;
pub mod events;
pub mod info;
mod literal;
pub mod objects;
pub mod refusal;
pub mod route;
pub mod script;
pub mod stream;
pub mod terminate;
pub mod tokens;
mod usual_event;
pub mod webhooks;
