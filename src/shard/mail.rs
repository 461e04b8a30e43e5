//! What shards say to each other.

/// One mail. Opaque to drivers.
#[derive(Debug)]
pub struct Mail {}
