//! What the server knows when it explains a refusal.

use crate::app::{App, Directory};
use crate::moment::Moment;

/// The app, all others, the configuration and the time.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// All apps.
    pub directory: &'a Directory,
    /// The app that refused.
    pub app: &'a App,
    /// The configured path prefix, or `""`.
    pub path_prefix: &'a str,
    /// The time.
    pub now: Moment,
}
