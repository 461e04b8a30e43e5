//! Scenarios of the schedule; the tests advance the clock.

use super::*;

const START: Moment = Moment { monotonic_ms: 1_000, unix_ms: 1_700_000_000_000 };

fn at(ms: u64) -> Moment {
    Moment { monotonic_ms: START.monotonic_ms + ms, unix_ms: START.unix_ms + ms }
}

fn delivery(number: u64, endpoint: &str, queue: u64) -> Delivery {
    Delivery {
        number,
        app: AppSerial(1),
        endpoint: endpoint.into(),
        queue,
        created_ms: START.unix_ms,
        attempts: 0,
        next_at_ms: 0,
        body_bytes: 2,
    }
}

fn add(schedule: &mut Schedule, number: u64, endpoint: &str, queue: u64) {
    add_for(schedule, 1, number, endpoint, queue);
}

fn add_for(schedule: &mut Schedule, app: u32, number: u64, endpoint: &str, queue: u64) {
    let delivery = Delivery { app: AppSerial(app), ..delivery(number, endpoint, queue) };
    schedule.add(delivery, WebhookFormat::Pusher, START, TakenUp::New);
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

/// Tries a delivery that always fails until it is given up; returns the times of the tries, in ms.
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

/// P-HOOK-6, P-HOOK-7: a queue waits for its first delivery, however often that fails; other queues continue; an
/// endpoint has one request in flight.
#[test]
fn queues_keep_their_order() {
    let mut schedule = Schedule::new(8, 1_000);
    for (number, queue) in [(1, 1), (2, 1), (3, 2), (4, 1)] {
        add(&mut schedule, number, "wh_a", queue);
    }
    let first = take(&mut schedule, 0).expect("the first");
    assert_eq!(first.delivery.number, 1);
    assert!(take(&mut schedule, 0).is_none(), "one at a time");
    assert!(matches!(fail(&mut schedule, &first, 0), Fate::Again(_)));
    let other = take(&mut schedule, 0).expect("the other queue goes on");
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

/// P-HOOK-10: apps and endpoints take turns, however much one of them has to send.
#[test]
fn endpoints_take_turns() {
    let mut schedule = Schedule::new(8, 1_000);
    for number in 0..10 {
        add(&mut schedule, number, "wh_busy", number);
    }
    add(&mut schedule, 10, "wh_calm", 1);
    add_for(&mut schedule, 2, 11, "wh_other", 1);
    let mut order = Vec::new();
    while let Some(job) = take(&mut schedule, 0) {
        order.push(job.delivery.number);
        end(&mut schedule, &job, 0);
    }
    assert_eq!(order.len(), 12);
    let place = |number: u64| order.iter().position(|other| *other == number).expect("it was made");
    assert!(place(10) <= 4 && place(11) <= 4, "{order:?}");
    let busy: Vec<u64> = order.iter().copied().filter(|number| *number < 10).collect();
    assert_eq!(busy, (0..10).collect::<Vec<u64>>());
}

/// Takes every delivery that may be made now.
fn take_all(schedule: &mut Schedule) -> Vec<Job> {
    std::iter::from_fn(|| take(schedule, 0)).collect()
}

/// How many of the jobs are of each app.
fn by_app(jobs: &[Job], apps: std::ops::Range<u32>) -> Vec<usize> {
    apps.map(|app| jobs.iter().filter(|job| job.delivery.app == AppSerial(app)).count()).collect()
}

/// P-HOOK-10: endpoints that were slow never have more than half of the threads, and one app not all of these; one that
/// is quick again leaves their class.
#[test]
fn slow_endpoints_share_half_of_the_threads() {
    let mut schedule = Schedule::new(8, 1_000);
    for app in 1..4 {
        for endpoint in 0..3 {
            add_for(&mut schedule, app, u64::from(app) * 100 + endpoint, &format!("wh_{app}_{endpoint}"), 0);
        }
    }
    // Nothing shows yet that they are slow: each is sent its first delivery.
    for _ in 0..9 {
        let job = take(&mut schedule, 0).expect("one after the other");
        schedule.finish(&job, Ended::Failed, limits::WEBHOOK_SLOW_MS, WebhookFormat::Pusher, at(0));
    }
    for app in 1..4 {
        for endpoint in 0..3 {
            for queue in 1..3 {
                let number = u64::from(app) * 100 + endpoint + 10 * queue;
                add_for(&mut schedule, app, number, &format!("wh_{app}_{endpoint}"), queue);
            }
        }
    }
    let in_flight = take_all(&mut schedule);
    assert!((3..=4).contains(&in_flight.len()), "half of the threads: {in_flight:?}");
    assert!(by_app(&in_flight, 1..4).iter().all(|count| *count <= 2), "{in_flight:?}");
    add_for(&mut schedule, 9, 1_000, "wh_quick", 1);
    add_for(&mut schedule, 9, 1_001, "wh_quick", 2);
    let quick = take(&mut schedule, 0).expect("it is not delayed");
    end(&mut schedule, &quick, 0);
    assert_eq!(take(&mut schedule, 0).expect("it goes on").delivery.number, 1_001);
    let better = &in_flight[0];
    schedule.finish(better, Ended::Done, 5, WebhookFormat::Pusher, at(0));
    let next = take_all(&mut schedule);
    assert_eq!(next.len(), 2, "the one that became quick, and another slow one in its place");
}

/// P-HOOK-10: a new endpoint may hang like any other. Method: an app with nine endpoints, none ever sent anything,
/// takes as many threads as it may; then other apps add their first delivery, to new endpoints and to ones known as
/// quick.
#[test]
fn new_endpoints_of_one_app_delay_no_other_app() {
    for threads in [2, 3, 4, 8, 16] {
        let mut schedule = Schedule::new(threads, 1_000);
        add_for(&mut schedule, 7, 700, "wh_known", 1);
        let known = take(&mut schedule, 0).expect("the first");
        end(&mut schedule, &known, 0);
        for endpoint in 0..9 {
            add_for(&mut schedule, 1, endpoint, &format!("wh_hostile{endpoint}"), 1);
        }
        let hostile = take_all(&mut schedule);
        assert!(!hostile.is_empty() && hostile.len() <= threads.div_ceil(2), "{} of {threads} threads", hostile.len());
        add_for(&mut schedule, 7, 701, "wh_known", 1);
        let quick = take(&mut schedule, 0).expect("a quick one is not delayed");
        assert_eq!(quick.delivery.number, 701);
        end(&mut schedule, &quick, 0);
        if threads >= 4 {
            add_for(&mut schedule, 2, 200, "wh_other", 1);
            assert_eq!(take(&mut schedule, 0).expect("a new one of another app neither").delivery.number, 200);
        }
    }
}

/// P-HOOK-10: quick endpoints of one app do not use every thread either; an app alone has most of them.
#[test]
fn quick_endpoints_of_one_app_leave_threads_to_others() {
    let mut schedule = Schedule::new(8, 1_000);
    let ids: Vec<String> = (0..20).map(|endpoint| format!("wh_{endpoint}")).collect();
    let add_round = |schedule: &mut Schedule, round: u64| {
        for (number, id) in ids.iter().enumerate() {
            add_for(schedule, 1, round * 100 + number as u64, id, round);
        }
    };
    add_round(&mut schedule, 0);
    for _ in 0..20 {
        let job = take(&mut schedule, 0).expect("one after the other");
        end(&mut schedule, &job, 0);
    }
    add_round(&mut schedule, 1);
    let in_flight = take_all(&mut schedule);
    assert_eq!(in_flight.len(), 5, "five of eight");
    add_for(&mut schedule, 1, 900, "wh_new", 1);
    add_for(&mut schedule, 1, 901, "wh_newer", 1);
    assert_eq!(take(&mut schedule, 0).expect("one new endpoint of its own").delivery.number, 900);
    assert!(take(&mut schedule, 0).is_none(), "no second one");
    add_for(&mut schedule, 2, 1_000, "wh_other", 1);
    assert_eq!(take(&mut schedule, 0).expect("a new one of another app").delivery.number, 1_000);
}

/// One thread serves all apps in turn.
#[test]
fn one_thread_is_enough() {
    let mut schedule = Schedule::new(1, 1_000);
    for app in 1..4 {
        add_for(&mut schedule, app, app.into(), &format!("wh_{app}"), 1);
    }
    for _ in 1..4 {
        let job = take(&mut schedule, 0).expect("one after the other");
        assert!(take(&mut schedule, 0).is_none());
        schedule.finish(&job, Ended::Failed, limits::WEBHOOK_SLOW_MS, WebhookFormat::Pusher, at(0));
    }
    assert_eq!(take(&mut schedule, 1_000).map(|job| job.delivery.number), Some(1));
}

/// P-HOOK-7: a delivery that waited behind failures for its full time expires without a request; one found at start
/// that was never tried gets its full time, and attempts and delays continue where they were.
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

/// Deliveries that wait for a removed endpoint are returned, including those in flight; a late answer changes nothing,
/// even if the endpoint was added again by then.
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
