//! One channel's state: its name, its local subscribers, its presence roster.

pub mod name;
pub mod presence;
pub mod subscribers;
