//! Whether the process has capacity for more: `/accept-traffic` for load balancers, `/usage` for people.

use serde_json::{Value, json};

use super::figures::{ProcessFigures, Snapshot};
use crate::limits::{ACCEPT_TRAFFIC_MEMORY_PERCENT, ACCEPT_TRAFFIC_SLOTS_PERCENT};

/// Usage, in percent of the total; 0 where that is not known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Headroom {
    /// Memory.
    pub memory_percent: u64,
    /// Descriptors of the process.
    pub descriptors_percent: u64,
    /// Connection slots of the shard that has the fewest left.
    pub slots_percent: u64,
    /// The process is shutting down.
    pub draining: bool,
}

impl Headroom {
    /// Computed from the figures of the process and its shards.
    pub fn of(process: &ProcessFigures, shards: &[Snapshot], draining: bool) -> Self {
        let slots = |shard: &Snapshot| percent(shard.driver.slots_used, shard.driver.slots);
        Self {
            memory_percent: percent(process.resident_bytes, process.memory_bytes_max),
            descriptors_percent: percent(process.descriptors, process.descriptors_max),
            slots_percent: shards.iter().map(slots).max().unwrap_or(0),
            draining,
        }
    }

    /// Why no more traffic should be sent; `None` when it may.
    pub fn refusal(&self) -> Option<&'static str> {
        if self.draining {
            Some("draining")
        } else if self.memory_percent > ACCEPT_TRAFFIC_MEMORY_PERCENT {
            Some("memory")
        } else if self.descriptors_percent > ACCEPT_TRAFFIC_SLOTS_PERCENT {
            Some("descriptors")
        } else if self.slots_percent > ACCEPT_TRAFFIC_SLOTS_PERCENT {
            Some("connections")
        } else {
            None
        }
    }

    /// The answer to `/accept-traffic?verbose`.
    pub fn encode(&self) -> Vec<u8> {
        line(&json!({
            "status": if self.refusal().is_some() { "refuse" } else { "ok" },
            "reason": self.refusal(),
            "memory_percent": self.memory_percent,
            "memory_percent_max": ACCEPT_TRAFFIC_MEMORY_PERCENT,
            "descriptors_percent": self.descriptors_percent,
            "connections_percent": self.slots_percent,
            "connections_percent_max": ACCEPT_TRAFFIC_SLOTS_PERCENT,
            "draining": self.draining,
        }))
    }
}

/// The answer to `/usage`, in soketi's shape.
pub fn encode_usage(process: &ProcessFigures) -> Vec<u8> {
    let total = process.memory_bytes_max;
    let used = process.resident_bytes;
    line(&json!({
        "memory": {
            "free": total.saturating_sub(used).min(process.memory_bytes_available),
            "used": used,
            "total": total,
            "percent": percent(used, total),
        },
        "descriptors": {
            "used": process.descriptors,
            "total": process.descriptors_max,
            "percent": percent(process.descriptors, process.descriptors_max),
        },
    }))
}

/// The answer to a health path with `?verbose`.
pub fn encode_health(status: &str, uptime_s: u64) -> Vec<u8> {
    line(&json!({ "status": status, "version": env!("CARGO_PKG_VERSION"), "uptime_s": uptime_s }))
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

fn percent(used: u64, of: u64) -> u64 {
    used.saturating_mul(100).checked_div(of).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::figures::DriverFigures;

    fn shard(slots_used: u64, slots: u64) -> Snapshot {
        Snapshot { driver: DriverFigures { slots_used, slots, ..DriverFigures::default() }, ..Snapshot::default() }
    }

    /// Each kind of headroom refuses by itself, one above its bound; an unknown value refuses nothing.
    #[test]
    fn headroom_names_what_is_short() {
        let process = |resident_bytes, descriptors| ProcessFigures {
            resident_bytes,
            memory_bytes_max: 1_000,
            descriptors,
            descriptors_max: 100,
            ..ProcessFigures::default()
        };
        let rows = [
            (process(850, 95), shard(95, 100), false, None),
            (process(860, 0), shard(0, 100), false, Some("memory")),
            (process(0, 96), shard(0, 100), false, Some("descriptors")),
            (process(0, 0), shard(96, 100), false, Some("connections")),
            (process(0, 0), shard(0, 0), true, Some("draining")),
            (ProcessFigures::default(), shard(0, 0), false, None),
        ];
        for (process, busy, draining, refusal) in rows {
            let headroom = Headroom::of(&process, &[shard(0, 100), busy], draining);
            assert_eq!(headroom.refusal(), refusal, "{headroom:?}");
            let told: Value = serde_json::from_slice(&headroom.encode()).expect("JSON");
            assert_eq!(told["reason"].as_str(), refusal);
        }
    }

    /// The shape that soketi's users read.
    #[test]
    fn usage_has_the_shape_of_soketi() {
        let process = ProcessFigures {
            resident_bytes: 250,
            memory_bytes_max: 1_000,
            memory_bytes_available: 600,
            ..ProcessFigures::default()
        };
        let told: Value = serde_json::from_slice(&encode_usage(&process)).expect("JSON");
        assert_eq!(told["memory"], json!({ "free": 600, "used": 250, "total": 1_000, "percent": 25 }));
    }
}
