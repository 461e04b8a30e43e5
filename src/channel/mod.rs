//! One channel's state: its name, its local subscribers, its presence roster, its cached event; and the user whose id
//! forms a channel's name.

pub mod cache;
pub mod history;
pub mod name;
pub mod presence;
pub mod roster;
pub mod subscribers;
pub mod user;
