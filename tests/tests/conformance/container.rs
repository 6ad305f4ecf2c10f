//! LXC on the system daemon.

use see_core::testing::conformance;
use see_tests::{Machine, assert_shown};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_pass_the_conformance_suite() {
    let report = conformance::run(Machine::container()).await;
    assert_shown(&report, &["dirty-names", "dead-machine", "guest-power"]);
}
