//! An authenticated HTTP request becomes a command or a refusal; one file per endpoint family.

pub mod batch_events;
pub mod events;
pub mod refusal;
pub mod route;
