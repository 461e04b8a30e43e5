use super::*;

#[test]
fn probe_works_here() {
    probe().expect("the kernel of the test machine has io_uring");
}
