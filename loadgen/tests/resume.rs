//! Connections that are reset and continue after their last event, against a real Relay; and through a proxy that makes
//! mistakes, which must be noticed.

mod common;

use common::proxy::{Fault, Proxy};
use common::{Ended, Relay, Run};

/// Every driver with one shard and with several.
const SERVERS: [(&str, usize); 4] = [("uring", 1), ("uring", 3), ("epoll", 1), ("epoll", 3)];

#[track_caller]
fn assert_done(ended: &Ended) {
    // On a busy machine a run may be called invalid; all that it counts is right all the same.
    assert!(matches!(ended.code, Some(0 | 3)), "{:#} {}", ended.report, ended.error);
}

/// Runs a small load on every kind of server at once.
fn assert_nothing_is_lost(transport: &str, channel: &str) {
    std::thread::scope(|scope| {
        for (driver, shards) in SERVERS {
            scope.spawn(move || {
                let relay = Relay::start_with(driver, shards);
                let run = ["resume", "--url", &relay.url(), "--transport", transport, "--channel", channel, "--json"];
                let size = ["--subscribers", "30", "--channels", "9", "--workers", "2", "--publishers", "2"];
                let load = ["--events-per-second", "100", "--duration-seconds", "1.5"];
                let resets = ["--resets-per-second", "60", "--away-seconds", "0.3"];
                let ended = Run::start(&[&run[..], &size[..], &load[..], &resets[..]].concat()).finish();
                assert_done(&ended);
                assert_eq!(ended.figure("published"), 150.0, "{driver}, {shards} shards");
                // Each subscriber reads three of nine channels.
                assert_eq!(ended.figure("delivered"), 1_500.0, "{driver}, {shards} shards: {:#}", ended.report);
                for wrong in ["loss", "duplicates", "disordered", "wrong-channel", "damaged", "gaps", "ended-by-server"]
                {
                    assert_eq!(ended.figure(wrong), 0.0, "{driver}, {shards} shards: {:#}", ended.report);
                }
                assert!(ended.figure("resets") > 50.0 && ended.figure("resumes") > 20.0, "{:#}", ended.report);
                assert!(ended.figure("missed-and-resumed") > 0.0, "{:#}", ended.report);
            });
        }
    });
}

/// R-LOAD-4, R-HIST-7: WebSockets that are reset lose nothing; here on private channels.
#[test]
fn websockets_continue() {
    assert_nothing_is_lost("ws", "private-resume");
}

/// R-LOAD-4, R-LOAD-5, R-SSE-1: the same for streams, with the cursor of several channels.
#[test]
fn streams_continue() {
    assert_nothing_is_lost("sse", "resume");
}

/// R-LOAD-4, R-LOAD-5, R-POLL-2: the same for long polls.
#[test]
fn polls_continue() {
    assert_nothing_is_lost("poll", "private-resume");
}

/// R-LOAD-5: of several transports, each is used by a part of the subscribers, on the same channels. Method: a third of
/// six subscribers polls, so there are as many connections to /poll.
#[test]
fn transports_are_mixed() {
    let relay = Relay::start();
    let counting = Proxy::start(relay.address, Fault::None);
    let run = ["resume", "--url", &counting.url(), "--transport", "ws,sse,poll", "--subscribers", "6", "--json"];
    let load = ["--channels", "3", "--duration-seconds", "1", "--resets-per-second", "0", "--events-per-second", "30"];
    let ended = Run::start(&[&run[..], &load[..]].concat()).finish();
    assert_done(&ended);
    assert_eq!((ended.figure("delivered"), ended.figure("loss")), (180.0, 0.0));
    // The check before the run opens a WebSocket, too.
    assert_eq!(["GET /app/", "GET /apps/1/sse", "GET /apps/1/poll"].map(|request| counting.begun(request)), [3, 2, 2]);
}

/// R-LOAD-4, R-HIST-4: gaps that the server reports are counted by reason, what they leave out is no loss, and everything
/// else arrives. Method: a history of one event, on every transport.
#[test]
fn reported_gaps_are_no_loss() {
    let relay = Relay::start();
    relay.command(&["app", "set", "1", "history_events=1"]);
    let url = relay.url();
    let run = |transport| {
        let run = ["resume", "--url", &url, "--transport", transport, "--channel", transport, "--json"];
        let load = ["--subscribers", "20", "--channels", "4", "--duration-seconds", "1.5"];
        let resets = ["--resets-per-second", "40", "--away-seconds", "0.4"];
        Run::start(&[&run[..], &load[..], &resets[..]].concat()).finish()
    };
    common::eventually("the limit is known to the server", || {
        let ended = run("ws");
        (ended.figure("gaps") > 0.0).then_some(())
    });
    let run = &run;
    std::thread::scope(|scope| {
        for transport in ["ws", "sse", "poll"] {
            scope.spawn(move || {
                let ended = run(transport);
                assert_done(&ended);
                let (gaps, left_out) = (ended.figure("gaps-expired"), ended.figure("left-out-by-gaps"));
                assert!(gaps > 0.0 && gaps == ended.figure("gaps") && left_out > 0.0, "{:#}", ended.report);
                // 300 events for three quarters of twenty subscribers.
                assert_eq!(ended.figure("delivered") + left_out, 300.0 * 15.0, "{transport}: {:#}", ended.report);
            });
        }
    });
}

/// R-LOAD-5: fan-out reads with every transport, and checks each delivery.
#[test]
fn fan_out_reads_with_every_transport() {
    let relay = Relay::start();
    for transport in ["ws", "sse", "poll"] {
        let run = ["fan-out", "--url", &relay.url(), "--transport", transport, "--subscribers", "10", "--json"];
        let load = ["--channels", "2", "--events-per-second", "50", "--duration-seconds", "1", "--warmup-seconds", "0"];
        let ended = Run::start(&[&run[..], &load[..]].concat()).finish();
        assert_done(&ended);
        assert_eq!((ended.figure("delivered"), ended.figure("loss")), (250.0, 0.0), "{transport}");
    }
}

/// R-LOAD-4, R-LOAD-5: a mistake in what one subscriber is sent fails the run, whatever the transport, except an event
/// that comes again with its id where the protocol permits that. Method: a proxy that makes one mistake.
#[test]
fn mistakes_are_noticed() {
    let relay = Relay::start();
    let mistakes = [
        ("ws", Fault::Drop, "loss", Some(1)),
        ("ws", Fault::Double, "duplicates", Some(1)),
        ("ws", Fault::Swap, "disordered", Some(1)),
        ("sse", Fault::Drop, "loss", Some(1)),
        ("sse", Fault::Double, "repeated-with-the-same-id", None),
        ("sse", Fault::Swap, "disordered", Some(1)),
        ("poll", Fault::Drop, "loss", Some(1)),
        ("poll", Fault::Double, "repeated-with-the-same-id", None),
    ];
    std::thread::scope(|scope| {
        for (transport, fault, figure, code) in mistakes {
            let address = relay.address;
            scope.spawn(move || {
                let proxy = Proxy::start(address, fault);
                let channel = format!("{transport}-{fault:?}");
                let run = ["resume", "--url", &proxy.url(), "--transport", transport, "--channel", &channel, "--json"];
                let size = ["--subscribers", "1", "--channels", "1", "--channels-per-subscriber", "1"];
                let load = ["--events-per-second", "30", "--duration-seconds", "1", "--resets-per-second", "0"];
                let ended = Run::start(&[&run[..], &size[..], &load[..]].concat()).finish();
                assert_eq!(ended.figure(figure), 1.0, "{channel}: {:#}", ended.report);
                match code {
                    Some(code) => assert_eq!(ended.code, Some(code), "{channel}"),
                    None => assert_done(&ended),
                }
            });
        }
    });
}
