//! The longest body that the hops let through, against the longest that Relay accepts from an app with default limits.

use super::hop::relay_says;
use super::http::{Answer, Ask};
use super::lines::Fault;
use super::{Examination, State, describe};
use crate::limits::HTTP_BODY_BYTES_MAX;

/// Bodies tried after a refusal, to name the limit.
const SMALLER: [usize; 6] = [512 * 1024, 256 * 1024, 128 * 1024, 64 * 1024, 16 * 1024, 4 * 1024];

impl Examination {
    /// A body of Relay's default maximum.
    pub(super) fn check_body(&mut self) {
        let answer = match self.post_body(HTTP_BODY_BYTES_MAX) {
            Ok(None) => return self.ok("body", format!("{HTTP_BODY_BYTES_MAX} bytes arrive")),
            Ok(Some(answer)) => answer,
            Err(found) => {
                let found = format!("a body of {HTTP_BODY_BYTES_MAX} bytes: {found}");
                let cost = "batches and long events fail";
                return self.fault(State::Problem, "body", Fault::Body, found, cost);
            }
        };
        let passing = SMALLER.into_iter().find(|bytes| matches!(self.post_body(*bytes), Ok(None)));
        // Some proxies fail instead of answering 413: a shorter body shows that the length is the cause.
        if answer.status != 413 && passing.is_none() {
            return self.refused_by_hop("body", "a long body", &answer, "batches and long events fail");
        }
        let passing = passing.map_or("even 4096 are refused".to_owned(), |bytes| format!("{bytes} pass"));
        let (name, status) = (self.hops.author(&answer).1, answer.status);
        let found = format!("{name} refuses a body of {HTTP_BODY_BYTES_MAX} bytes with {status}; {passing}");
        self.fault(State::Problem, "body", Fault::Body, found, "batches and long events fail");
    }

    /// Posts so many bytes, unsigned: Relay refuses them, which shows that they arrived. The answer, if a hop made it.
    fn post_body(&self, bytes: usize) -> Result<Option<Answer>, String> {
        let path = self.api_path("/events");
        let headers = [("Content-Type", "application/json")];
        let body = vec![b' '; bytes];
        let ask = Ask { method: "POST", path: &path, headers: &headers, body: &body };
        let answer = self.connector.ask(&self.target, &ask).map_err(|error| describe(&error))?;
        Ok(relay_says(&answer).is_none().then_some(answer))
    }
}
