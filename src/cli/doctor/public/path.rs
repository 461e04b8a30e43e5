//! Whether paths arrive as they were sent. A signature covers the path byte by byte (R-BASE-2), so a hop that decodes
//! escapes or merges slashes breaks requests whose channel has such characters.

use super::hop::relay_says;
use super::lines::Fault;
use super::{Examination, State};

impl Examination {
    /// An escape and a doubled slash.
    pub(super) fn check_path(&mut self) {
        let escaped = self.api_path("/channels/relay%2Ddoctor%3D1");
        let answer = match self.ask_signed_either("GET", &escaped, b"") {
            Ok(answer) => answer,
            Err(error) => return self.no_answer("path", &escaped, &error, "some requests of backends fail"),
        };
        match (answer.status, relay_says(&answer).is_some()) {
            (200, _) => {}
            (401, true) => {
                let found = format!("{escaped} arrives rewritten: its signature does not hold");
                let cost = "requests for channels whose name is percent-encoded get 401";
                return self.fault(State::Problem, "path", Fault::Rewritten, found, cost);
            }
            _ => return self.refused_by_hop("path", &escaped, &answer, "requests with escapes in the path fail"),
        }
        let doubled = self.api_path("//channels");
        match self.ask_signed_either("GET", &doubled, b"") {
            // Relay serves nothing at a doubled slash: this answer shows that it arrived.
            Ok(answer) if answer.status == 404 && relay_says(&answer).is_some() => {
                self.ok("path", "arrives byte for byte");
            }
            Ok(answer) if matches!(answer.status, 200 | 401) => {
                let found = format!("{doubled} arrives with one slash");
                let cost = "a client whose base path ends with a slash gets 401, and the cause is hard to see";
                self.fault(State::Advice, "path", Fault::Rewritten, found, cost);
            }
            Ok(answer) => {
                let found = format!("{} answers {} to {doubled}", self.hops.author(&answer).1, answer.status);
                self.ok("path", format!("escapes arrive as sent; {found}"));
            }
            Err(error) => self.no_answer("path", &doubled, &error, "some requests of backends fail"),
        }
    }
}
