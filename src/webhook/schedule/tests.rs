//! Scenarios of the schedule, with the clock moved by hand.

use super::*;

const START: Moment = Moment { monotonic_ms: 1_000, unix_ms: 1_700_000_000_000 };

fn at(ms: u64) -> Moment {
    Moment { monotonic_ms: START.monotonic_ms + ms, unix_ms: START.unix_ms + ms }
}

fn delivery(number: u64, endpoint: &str, lane: u64) -> Delivery {
    Delivery {
        number,
        app: AppSerial(1),
        endpoint: endpoint.into(),
        lane,
        created_ms: START.unix_ms,
        attempts: 0,
        next_at_ms: 0,
        body_bytes: 2,
    }
}

fn add(schedule: &mut Schedule, number: u64, endpoint: &str, lane: u64) {
    schedule.add(delivery(number, endpoint, lane), WebhookFormat::Pusher, START, TakenUp::New);
}

fn take(schedule: &mut Schedule, ms: u64) -> Option<Job> {
    match schedule.take(at(ms)) {
        Some(Next::Send(job)) => Some(job),
        None => None,
        Some(Next::Expired(delivery)) => panic!("{delivery:?} expired"),
    }
}

fn fail(schedule: &mut Schedule, job: &Job, ms: u64) -> Fate {
    schedule.finish(job, Ended::Failed, 1, WebhookFormat::Pusher, at(ms))
}

fn end(schedule: &mut Schedule, job: &Job, ms: u64) {
    let fate = schedule.finish(job, Ended::Done, 1, WebhookFormat::Pusher, at(ms));
    assert!(matches!(fate, Fate::Done(_)), "{fate:?}");
}

/// Tries a delivery that always fails until it is given up; gives the times of the tries, in ms.
fn tries(format: WebhookFormat) -> Vec<u64> {
    let mut schedule = Schedule::new(8, limits::WEBHOOK_RETRY_MS);
    schedule.add(delivery(1, "wh_a", 7), format, START, TakenUp::New);
    let (mut tries, mut ms) = (Vec::new(), 0);
    loop {
        let job = take(&mut schedule, ms).expect("it is due");
        tries.push(ms);
        match schedule.finish(&job, Ended::Failed, 1, format, at(ms)) {
            Fate::Again(again) => {
                let due_ms = schedule.due_ms().expect("it rests") - START.monotonic_ms;
                assert_eq!(again.next_at_ms, START.unix_ms + due_ms);
                assert!(take(&mut schedule, due_ms - 1).is_none(), "it rests to the last millisecond");
                ms = due_ms;
            }
            Fate::GivenUp(given_up) => {
                assert_eq!(usize::from(given_up.attempts), tries.len());
                assert_eq!(schedule.due_ms(), None);
                return tries;
            }
            fate @ (Fate::Done(_) | Fate::Gone) => panic!("{fate:?}"),
        }
    }
}

/// P-HOOK-7: retries after 1, 2, 4 ... 60 s within five minutes, then given up.
#[test]
fn pusher_retries_double_up_to_a_minute() {
    let seconds: Vec<u64> = tries(WebhookFormat::Pusher).iter().map(|ms| ms / 1_000).collect();
    assert_eq!(seconds, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
}

/// R-HOOK-4: retries after 10 s, 60 s and 5 min, then given up.
#[test]
fn relay_retries_three_times() {
    assert_eq!(tries(WebhookFormat::Relay), [0, 10_000, 70_000, 370_000]);
}

/// P-HOOK-6, P-HOOK-7: a lane waits for its first delivery, however often that fails; other lanes go on; an endpoint
/// has one request under way.
#[test]
fn lanes_keep_their_order() {
    let mut schedule = Schedule::new(8, 1_000);
    for (number, lane) in [(1, 1), (2, 1), (3, 2), (4, 1)] {
        add(&mut schedule, number, "wh_a", lane);
    }
    let first = take(&mut schedule, 0).expect("the first");
    assert_eq!(first.delivery.number, 1);
    assert!(take(&mut schedule, 0).is_none(), "one at a time");
    assert!(matches!(fail(&mut schedule, &first, 0), Fate::Again(_)));
    let other = take(&mut schedule, 0).expect("the other lane goes on");
    assert_eq!(other.delivery.number, 3);
    end(&mut schedule, &other, 0);
    assert!(take(&mut schedule, 999).is_none(), "2 waits for 1");
    for number in [1, 2, 4] {
        let job = take(&mut schedule, 1_000).expect("in order");
        assert_eq!(job.delivery.number, number);
        end(&mut schedule, &job, 1_000);
    }
    assert!(take(&mut schedule, 1_000).is_none());
}

/// Endpoints take turns, however much one of them has to do.
#[test]
fn endpoints_take_turns() {
    let mut schedule = Schedule::new(8, 1_000);
    for number in 0..10 {
        add(&mut schedule, number, "wh_busy", number);
    }
    add(&mut schedule, 10, "wh_calm", 1);
    let mut order = Vec::new();
    while let Some(job) = take(&mut schedule, 0) {
        order.push(job.delivery.number);
        end(&mut schedule, &job, 0);
    }
    assert_eq!(order, [0, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

/// Endpoints that were slow never have more than half of the threads; one that is quick again leaves their class.
#[test]
fn slow_endpoints_share_half_of_the_threads() {
    let mut schedule = Schedule::new(4, 1_000);
    let slow: Vec<String> = (0..6).map(|number| format!("wh_slow{number}")).collect();
    for (number, id) in slow.iter().enumerate() {
        for lane in 0..3 {
            add(&mut schedule, 10 * number as u64 + lane, id, lane);
        }
    }
    // Nobody knows yet that they are slow.
    let jobs: Vec<Job> = (0..6).map(|_| take(&mut schedule, 0).expect("all are due")).collect();
    for job in &jobs {
        schedule.finish(job, Ended::Failed, limits::WEBHOOK_SLOW_MS, WebhookFormat::Pusher, at(0));
    }
    add(&mut schedule, 100, "wh_quick", 1);
    add(&mut schedule, 101, "wh_quick", 2);
    let under_way: Vec<Job> = std::iter::from_fn(|| take(&mut schedule, 0)).collect();
    let slow_ones = under_way.iter().filter(|job| job.delivery.endpoint.starts_with("wh_slow")).count();
    assert_eq!((slow_ones, under_way.len()), (2, 3));
    let quick = under_way.iter().find(|job| job.delivery.number == 100).expect("the quick one is not held up");
    end(&mut schedule, quick, 0);
    assert_eq!(take(&mut schedule, 0).expect("it goes on").delivery.number, 101);
    let better = under_way.iter().find(|job| job.delivery.number != 100).expect("a slow one");
    schedule.finish(better, Ended::Done, 5, WebhookFormat::Pusher, at(0));
    let next: Vec<Job> = std::iter::from_fn(|| take(&mut schedule, 0)).collect();
    assert_eq!(next.len(), 2, "the one that became quick, and another slow one in its place");
}

/// P-HOOK-7: what waited behind failures for all its time is over without a request; what a start finds and was never
/// tried has its whole time before it, and attempts and rests go on where they were.
#[test]
fn time_runs_out_and_goes_on_after_a_restart() {
    let mut schedule = Schedule::new(4, 1_000);
    add(&mut schedule, 1, "wh_a", 1);
    let over = schedule.take(at(limits::WEBHOOK_PUSHER_WINDOW_MS));
    assert!(matches!(over, Some(Next::Expired(delivery)) if delivery.number == 1));
    assert!(schedule.take(at(limits::WEBHOOK_PUSHER_WINDOW_MS)).is_none());

    let mut schedule = Schedule::new(4, 1_000);
    let later = at(3_600_000);
    schedule.add(delivery(1, "wh_a", 1), WebhookFormat::Pusher, later, TakenUp::FromDisk);
    assert!(matches!(schedule.take(later), Some(Next::Send(_))), "an hour later");

    let mut schedule = Schedule::new(4, 1_000);
    let resting = Delivery { attempts: 3, next_at_ms: START.unix_ms + 4_000, ..delivery(1, "wh_a", 1) };
    schedule.add(resting, WebhookFormat::Pusher, START, TakenUp::FromDisk);
    assert!(take(&mut schedule, 3_999).is_none());
    let job = take(&mut schedule, 4_000).expect("its rest is over");
    fail(&mut schedule, &job, 4_000);
    assert_eq!(schedule.due_ms(), Some(at(12_000).monotonic_ms), "the fourth failure rests 8 s");
}

/// What waits for an endpoint that is gone is given back, also what is under way; a late answer changes nothing, even if
/// the endpoint is back by then.
#[test]
fn unwanted_endpoints() {
    let mut schedule = Schedule::new(4, 1_000);
    for (number, id) in [(1, "wh_a"), (2, "wh_a"), (3, "wh_b")] {
        add(&mut schedule, number, id, number);
    }
    let job = take(&mut schedule, 0).expect("due");
    let mut gone: Vec<u64> =
        schedule.take_unwanted(|_, id| id == "wh_b").iter().map(|delivery| delivery.number).collect();
    gone.sort_unstable();
    assert_eq!(gone, [1, 2]);
    add(&mut schedule, 4, "wh_a", 1);
    assert_eq!(fail(&mut schedule, &job, 0), Fate::Gone);
    let mut left: Vec<u64> = std::iter::from_fn(|| take(&mut schedule, 0)).map(|job| job.delivery.number).collect();
    left.sort_unstable();
    assert_eq!(left, [3, 4]);
}
