//! Seeds that once failed, each with what it found. They stay as scenarios: a change of the scheduler changes what a
//! seed does, so whatever matters beyond the seed has a test of its own beside the code.

use crate::fault::Fault;
use crate::scheduler::run;
use crate::trace::Trace;

/// Runs a seed that once failed.
fn holds(seed: u64) {
    run(seed, Fault::none(), Trace::new(false));
}

/// The first seed, as a quick check of the harness itself.
#[test]
fn the_first_seed_holds() {
    holds(0);
}
