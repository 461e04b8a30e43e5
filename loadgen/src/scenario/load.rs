//! Options that several scenarios share: channels, subscribers, publishers and rates. Each scenario sets its own defaults.

use clap::Args;
use serde::Serialize;

use super::round::Audience;
use super::{Needs, WaveOfConnections};
use crate::coordinator::preflight::Proof;
use crate::messages::{Group, Requests};
use crate::outcome::Failure;
use crate::wire::stamp::STAMP_BYTES;
use crate::wire::transport::Transport;

/// Channels of a run.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Channels {
    /// Channel to subscribe to; subscriptions to `private-` and `presence-` names are signed.
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: String,
    /// Number of channels: connection i subscribes to number i mod N.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) channels: usize,
}

impl Channels {
    /// The names: the given one, or with several channels, the given one followed by a number.
    pub(crate) fn names(&self) -> Result<Vec<String>, Failure> {
        match self.channels {
            0 => Err(Failure::Usage("--channels must be at least 1".into())),
            1 => Ok(vec![self.channel.clone()]),
            count => Ok((0..count).map(|index| format!("{}-{index}", self.channel)).collect()),
        }
    }

    /// The number of channels, at least 1.
    pub(crate) fn count(&self) -> u64 {
        self.channels.max(1) as u64
    }

    /// Whether subscriptions are signed.
    pub(crate) fn is_signed(&self) -> bool {
        self.channel.starts_with("private-") || self.channel.starts_with("presence-")
    }

    /// What the server must accept before a run that only subscribes.
    pub(crate) fn proof(&self) -> Proof {
        if self.is_signed() { Proof::KeyAndSecret } else { Proof::KeyOnly }
    }
}

/// Events from publishers to subscribers.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Load {
    /// Connections that subscribe.
    #[arg(long, value_name = "N")]
    pub(crate) subscribers: u64,
    /// Publishers, each with its own keep-alive connection.
    #[arg(long, value_name = "N")]
    pub(crate) publishers: u32,
    /// Events per second of all publishers together; 0 means a closed loop: as fast as the server answers.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub(crate) events_per_second: f64,
    /// Seconds of each round.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub(crate) duration_seconds: f64,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) channels: Channels,
    /// Bytes of each event's data.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(crate) payload_bytes: usize,
}

impl Load {
    /// The parameters for the coordinator, with one request in flight per publisher.
    pub(crate) fn needs(&self) -> Result<Needs, Failure> {
        Ok(Needs {
            connections: self.subscribers,
            channels: self.channels.names()?,
            publishers: self.publishers,
            pipeline: 1,
            events_in_flight_max: 0,
            payload_bytes: self.payload_bytes.max(STAMP_BYTES),
            watchers: 0,
            proof: Proof::KeyAndSecret,
            requests: Requests::Events,
            transports: vec![Transport::Ws],
            resume: None,
        })
    }

    /// All subscribers at once.
    pub(crate) fn wave(&self) -> WaveOfConnections {
        let count = self.subscribers;
        WaveOfConnections { label: "connect", group: Group::Subscribers, first: 0, count, per_second: 0.0 }
    }

    /// The receivers of an event; `excluded` of the subscribers of a channel do not get it.
    pub(crate) fn audience(&self, excluded: u64) -> Audience {
        Audience { subscribers: self.subscribers, channels: self.channels.count(), excluded }
    }
}
