//! Invalid messages: limited by rate, not by total (P-IN-3).

use super::*;

/// P-IN-3: 99 bad messages in a minute are answered, and so in each following minute; the 100th of one minute closes.
#[test]
fn bad_messages_are_counted_by_the_minute() {
    let mut process = Process::new(1);
    let connection = process.open(0);
    process.take(0, connection);
    let answers = |process: &mut Process, count: usize| {
        for _ in 0..count {
            process.say(0, connection, "{");
        }
        process.take(0, connection).matches("Invalid JSON").count()
    };
    for _ in 0..3 {
        assert_eq!(answers(&mut process, 99), 99);
        process.pass_time(60_100);
    }
    assert_eq!(answers(&mut process, 99), 99);
    process.pass_time(59_000);
    process.say(0, connection, "{");
    let end = process.take(0, connection);
    assert!(end.contains("Too many invalid messages: 100 in a minute (max_invalid_messages)"), "{end}");
    process.finish();
}
