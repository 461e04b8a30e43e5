//! Complete shards: the bytes are the choices of the simulation's scheduler, and its model checks every delivery.

use crate::fault::Fault;
use crate::random::Random;
use crate::scheduler::run;
use crate::trace::Trace;

/// Everything that the simulation checks: P-SUB-5, P-HTTP-17, P-CLOSE-5, R-PUB-6 and the rest.
pub fn check(bytes: &[u8]) {
    let print = std::env::var_os("RELAY_SIM_TRACE").is_some();
    run(Random::of_choices(bytes), Fault::none(), Trace::new(print));
}
