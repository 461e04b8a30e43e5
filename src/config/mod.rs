//! The configuration of `relay serve`: flags over `RELAY_*` variables over `relay.toml` over variables of other servers
//! over defaults. Everything here is checked, so nothing downstream parses a setting again.
//!
//! [`settings`] defines each setting once. [`source`] finds the texts and their sources, [`serve`] and [`app`] convert
//! them to values.

mod alias;
mod app;
#[cfg(test)]
mod documentation;
mod environment;
mod error;
mod file;
mod serve;
mod settings;
mod source;

pub use alias::SOKETI_APP;
pub use app::ConfiguredApp;
pub use environment::ADMIN_TOKEN_VARIABLE;
pub use error::ConfigError;
pub use serve::{AdminPort, MetricsPort, ServeConfig, webhooks};
pub use settings::{AdminListen, DATA_DEFAULT, IoChoice, Mode, SERVER_SETTINGS, ServerSettings};
pub use source::{Settings, Source};
