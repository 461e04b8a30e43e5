//! An authenticated HTTP request becomes a command or a refusal; one file per endpoint family.

pub mod answer;
pub mod authorize;
pub mod batch_events;
pub mod events;
mod literal;
pub mod refusal;
pub mod route;
