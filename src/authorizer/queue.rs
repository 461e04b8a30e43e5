//! Decides which question to an authorizer is asked when: pure, with time as an argument.
//!
//! Apps take turns. An app has at most its setting in flight, and never more than as many as are free, so hanging
//! backends of some apps leave room for the others (threat T39). A question waits at most until its deadline. An
//! authorizer that fails many times in a row is left alone: one question in [`limits::AUTHORIZER_PAUSE_MS`] finds out
//! whether it answers again, the others are not asked (R-AUTHEP-11).

use std::collections::{HashMap, VecDeque};

use crate::app::AppSerial;
use crate::limits;

/// Questions that wait or are in flight.
pub(super) struct Queue<T> {
    apps: HashMap<AppSerial, AppQueue<T>>,
    /// Apps with questions that wait, in their turn.
    turns: VecDeque<AppSerial>,
    in_flight: usize,
    waiting: usize,
}

struct AppQueue<T> {
    waiting: VecDeque<(u64, T)>,
    in_flight: usize,
    failures: u32,
    paused_until_ms: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { apps: HashMap::new(), turns: VecDeque::new(), in_flight: 0, waiting: 0 }
    }
}

impl<T> Default for AppQueue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), in_flight: 0, failures: 0, paused_until_ms: 0 }
    }
}

impl<T> AppQueue<T> {
    /// Whether its next question may be asked while so many requests of all apps are free.
    fn may_ask(&self, requests_max: usize, free: usize) -> bool {
        self.in_flight == 0 || (self.in_flight < requests_max && self.in_flight < free)
    }
}

impl<T> Queue<T> {
    /// Adds a question that must be decided by its deadline.
    ///
    /// # Errors
    /// The question, and the seconds after which to try again: the authorizer is left alone.
    pub(super) fn add(&mut self, app: AppSerial, question: T, deadline_ms: u64, now_ms: u64) -> Result<(), (T, u32)> {
        let queue = self.apps.entry(app).or_default();
        if queue.failures >= limits::AUTHORIZER_FAILURES_MAX {
            if now_ms < queue.paused_until_ms {
                let seconds = (queue.paused_until_ms - now_ms).div_ceil(1_000);
                return Err((question, u32::try_from(seconds).unwrap_or(u32::MAX)));
            }
            // This one finds out whether it answers again.
            queue.paused_until_ms = now_ms + limits::AUTHORIZER_PAUSE_MS;
        }
        if queue.waiting.is_empty() {
            self.turns.push_back(app);
        }
        queue.waiting.push_back((deadline_ms, question));
        self.waiting += 1;
        Ok(())
    }

    /// Takes the next question to ask, with its deadline. `requests_max` is the setting of an app.
    pub(super) fn take(&mut self, requests_max: &impl Fn(AppSerial) -> usize) -> Option<(u64, T)> {
        let free = limits::AUTHORIZER_REQUESTS_ALL_MAX - self.in_flight;
        if free == 0 {
            return None;
        }
        for _ in 0..self.turns.len() {
            let app = self.turns.pop_front()?;
            let queue = self.apps.get_mut(&app).expect("an app in turn has a queue");
            let may_ask = queue.may_ask(requests_max(app), free);
            let question = if may_ask { queue.waiting.pop_front() } else { None };
            if !queue.waiting.is_empty() {
                self.turns.push_back(app);
            }
            if let Some(question) = question {
                queue.in_flight += 1;
                self.in_flight += 1;
                self.waiting -= 1;
                return Some(question);
            }
        }
        None
    }

    /// Whether [`Queue::take`] would return a question.
    pub(super) fn can_take(&self, requests_max: &impl Fn(AppSerial) -> usize) -> bool {
        let free = limits::AUTHORIZER_REQUESTS_ALL_MAX - self.in_flight;
        free > 0 && self.turns.iter().any(|app| self.apps[app].may_ask(requests_max(*app), free))
    }

    /// A question was answered, validly or not. Returns questions that must not be asked any more, because the
    /// authorizer is left alone from now on.
    pub(super) fn finish(&mut self, app: AppSerial, is_valid: bool, now_ms: u64) -> Vec<T> {
        self.in_flight -= 1;
        let queue = self.apps.get_mut(&app).expect("its question was in flight");
        queue.in_flight -= 1;
        queue.failures = if is_valid { 0 } else { queue.failures.saturating_add(1) };
        let mut ended = Vec::new();
        if queue.failures >= limits::AUTHORIZER_FAILURES_MAX {
            queue.paused_until_ms = now_ms + limits::AUTHORIZER_PAUSE_MS;
            ended.extend(queue.waiting.drain(..).map(|(_, question)| question));
            self.waiting -= ended.len();
            self.turns.retain(|other| *other != app);
        }
        let queue = &self.apps[&app];
        if queue.in_flight == 0 && queue.failures == 0 && queue.waiting.is_empty() {
            self.apps.remove(&app);
        }
        ended
    }

    /// Takes the questions whose deadline has passed.
    pub(super) fn take_expired(&mut self, now_ms: u64) -> Vec<T> {
        let mut expired = Vec::new();
        for queue in self.apps.values_mut() {
            // Deadlines are those of the order in which questions came.
            while let Some((_, question)) = queue.waiting.pop_front_if(|(deadline_ms, _)| *deadline_ms <= now_ms) {
                expired.push(question);
            }
        }
        if !expired.is_empty() {
            self.waiting -= expired.len();
            let apps = &self.apps;
            self.turns.retain(|app| apps.get(app).is_some_and(|queue| !queue.waiting.is_empty()));
            self.apps.retain(|_, queue| queue.in_flight > 0 || queue.failures > 0 || !queue.waiting.is_empty());
        }
        expired
    }

    /// The earliest deadline of a question that waits.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.apps.values().filter_map(|queue| queue.waiting.front()).map(|(deadline_ms, _)| *deadline_ms).min()
    }

    /// Questions that wait, and those in flight.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.waiting, self.in_flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER_MS: u64 = u64::MAX;

    fn take_all(queue: &mut Queue<u32>, requests_max: usize) -> Vec<u32> {
        std::iter::from_fn(|| queue.take(&|_| requests_max).map(|(_, question)| question)).collect()
    }

    /// R-AUTHEP-11, threat T39: apps take turns, each within its setting.
    #[test]
    fn apps_take_turns() {
        let mut queue = Queue::default();
        for number in 0..6 {
            queue.add(AppSerial(1), number, NEVER_MS, 0).expect("room");
        }
        queue.add(AppSerial(2), 10, NEVER_MS, 0).expect("room");
        queue.add(AppSerial(2), 11, NEVER_MS, 0).expect("room");
        assert_eq!(take_all(&mut queue, 2), [0, 10, 1, 11]);
        assert_eq!(queue.counts(), (4, 4));
        assert!(queue.finish(AppSerial(2), true, 0).is_empty());
        assert!(take_all(&mut queue, 2).is_empty(), "that app has no more");
        assert!(queue.finish(AppSerial(1), true, 0).is_empty());
        assert_eq!(take_all(&mut queue, 2), [2]);
    }

    /// Threat T39: apps whose backends hang never take the last places.
    #[test]
    fn hanging_apps_leave_room() {
        let mut queue = Queue::default();
        for app in 1..=5 {
            for number in 0..1_000 {
                queue.add(AppSerial(app), number, NEVER_MS, 0).expect("room");
            }
            let taken = take_all(&mut queue, 1_000).len();
            assert!(taken >= 1, "app {app} got {taken}");
        }
        let (_, in_flight) = queue.counts();
        assert!(in_flight < limits::AUTHORIZER_REQUESTS_ALL_MAX, "{in_flight}");
        queue.add(AppSerial(6), 7, NEVER_MS, 0).expect("room");
        assert_eq!(take_all(&mut queue, 1_000), [7]);
    }

    /// R-AUTHEP-11: a question that waits until its deadline is not asked; the next deadline is known.
    #[test]
    fn questions_expire() {
        let mut queue = Queue::default();
        queue.add(AppSerial(1), 1, 100, 0).expect("room");
        queue.add(AppSerial(1), 2, 200, 0).expect("room");
        queue.add(AppSerial(2), 3, 150, 0).expect("room");
        assert_eq!(queue.next_deadline_ms(), Some(100));
        assert!(queue.take_expired(99).is_empty());
        let mut expired = queue.take_expired(150);
        expired.sort_unstable();
        assert_eq!((expired, queue.next_deadline_ms()), (vec![1, 3], Some(200)));
        assert_eq!(take_all(&mut queue, 9), [2]);
        assert!(queue.finish(AppSerial(1), true, 160).is_empty());
        assert_eq!((queue.counts(), queue.next_deadline_ms(), queue.apps.len()), ((0, 0), None, 0));
    }

    /// R-AUTHEP-11: after ten failures in a row an authorizer is asked once per pause, and normally again after one
    /// valid answer.
    #[test]
    fn failing_authorizers_are_left_alone() {
        let mut queue = Queue::default();
        let app = AppSerial(1);
        for number in 0..30 {
            queue.add(app, number, NEVER_MS, 0).expect("room");
        }
        for number in 0..10 {
            assert_eq!(queue.take(&|_| 1).map(|(_, question)| question), Some(number));
            let ended = queue.finish(app, false, 1_000);
            assert_eq!(ended.len(), if number == 9 { 20 } else { 0 }, "after failure {number}");
        }
        let other = AppSerial(2);
        queue.add(other, 99, NEVER_MS, 1_000).expect("another app is not affected");
        assert_eq!(take_all(&mut queue, 1), [99]);
        assert_eq!(queue.add(app, 40, NEVER_MS, 5_999), Err((40, 1)));
        assert_eq!(queue.add(app, 41, NEVER_MS, 6_000), Ok(()), "one finds out");
        assert_eq!(queue.add(app, 42, NEVER_MS, 6_000), Err((42, 5)));
        assert_eq!(take_all(&mut queue, 1), [41]);
        assert!(queue.finish(app, true, 6_100).is_empty());
        assert_eq!(queue.add(app, 43, NEVER_MS, 6_100), Ok(()));
    }
}
