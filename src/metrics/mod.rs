//! Metrics for operators: figures of apps, shards, drivers and the process, and their output formats.
//!
//! Figures are plain integers inside each shard. Nothing is shared: on request, every shard sends a copy of its own to
//! the shard that was asked, which adds them up and writes the page.

pub mod app_figures;
pub mod exposition;
pub mod figures;
pub mod health;
pub mod histogram;
pub mod page;
pub mod refusal_log;
pub mod stats;
