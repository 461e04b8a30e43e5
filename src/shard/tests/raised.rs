//! Fixed bounds next to settings that can be raised beyond them: the events of one request close no connection that
//! reads.

use super::*;

const MIB: usize = 1 << 20;

/// P-CLOSE-5, P-STAT-9, P-LIM-3: the events of one request, as large as the settings of the app allow, arrive at a
/// reader that has nothing unsent, whichever shards the publisher, the owner and the reader are on. Method: every shape
/// of a request at the highest settings, with frames below and above the bound of an outbox at the defaults.
#[test]
fn a_request_as_large_as_settings_allow_closes_no_reader() {
    let settings = AppSettings {
        max_event_data_bytes: MIB as u32,
        max_batch_events: 1_000,
        max_channels_per_event: 250,
        ..AppSettings::default()
    };
    // Events, channels of each, bytes of its data.
    for (events, channels, bytes) in
        [(1, 1, MIB), (3, 1, MIB - 1_000), (20, 1, MIB), (1_000, 1, 20_000), (1, 250, 130_000), (1, 31, MIB)]
    {
        for (shards, publisher, reader) in [(1, 0, 0), (2, 0, 0), (2, 0, 1), (2, 1, 0)] {
            let mut process = Process::with_settings(shards, settings.clone());
            let (caller, connection) = (process.accept(publisher), process.open(reader));
            let names: Vec<String> = (0..channels).map(|number| format!("c{number}")).collect();
            for name in &names {
                process.subscribe(reader, connection, name);
            }
            let data = "x".repeat(bytes);
            let (path, body) = if channels == 1 {
                let event = serde_json::json!({"name": "e", "channel": "c0", "data": data});
                ("/apps/1/batch_events", serde_json::json!({"batch": vec![event; events]}))
            } else {
                ("/apps/1/events", serde_json::json!({"name": "e", "channels": names, "data": data}))
            };
            let answer = process.ask(publisher, caller, "POST", path, &body.to_string());
            let case =
                format!("{events} events of {bytes} B on {channels} channels, {publisher} to {reader} of {shards}");
            assert!(answer.starts_with("HTTP/1.1 200"), "{case}: {answer}");
            let arrived = process.take(reader, connection).matches(r#""event":"e""#).count();
            assert_eq!((arrived, process.closed.len()), (events * channels, 0), "{case}");
            process.finish();
        }
    }
}

/// P-LIM-11, P-STAT-5: the events of one request are counted once for each channel; one byte beyond the bound is 413,
/// and nothing of it is published.
#[test]
fn a_request_publishes_no_more_than_its_bound() {
    let settings =
        AppSettings { max_event_data_bytes: MIB as u32, max_channels_per_event: 250, ..AppSettings::default() };
    let names: Vec<String> = (0..64).map(|number| format!("c{number}")).collect();
    let per_channel = limits::PUBLISHED_BYTES_MAX / names.len();
    // The data as JSON has two quotes more.
    for (bytes, status) in [(per_channel - 2, 200), (per_channel - 1, 413)] {
        let mut process = Process::with_settings(1, settings.clone());
        let (caller, connection) = (process.accept(0), process.open(0));
        process.subscribe(0, connection, "c63");
        let body = serde_json::json!({"name": "e", "channels": names, "data": "x".repeat(bytes)}).to_string();
        let answer = process.publish(0, caller, &body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.contains("33554432"), status == 413, "the answer names the bound: {answer}");
        assert_eq!(process.take(0, connection).contains(r#""event":"e""#), status == 200);
        process.finish();
    }
}
