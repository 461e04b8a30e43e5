//! One channel's state: its name, its local subscribers, its presence roster, its cached event.

pub mod cache;
pub mod name;
pub mod presence;
pub mod roster;
pub mod subscribers;
