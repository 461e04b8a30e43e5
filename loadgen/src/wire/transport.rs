//! How a connection reads events.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How a connection reads events.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// A WebSocket.
    Ws,
    /// Server-sent events.
    Sse,
    /// Long polling on a keep-alive connection.
    Poll,
}

impl Transport {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::Poll => "poll",
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}
