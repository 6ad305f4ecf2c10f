//! QEMU inside this very process, without a daemon.

use see_core::testing::conformance;
use see_tests::{Machine, assert_provoked, assert_shown};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_qemu_passes_the_conformance_suite() {
    let machine = Machine::new(None, |image| {
        json!({
            "backend": "qemu",
            "acceleration": "tcg",
            "memory": "64MiB",
            "disk": { "image": image },
        })
    });
    let machine = machine
        .crashing()
        .malformed("disk", json!({ "image": "/no/such/image.qcow2" }))
        .malformed("memory", json!("64 bananas"));
    let report = conformance::run(machine).await;
    assert_shown(&report, &["dirty-names", "dead-machine", "guest-power"]);
    assert_provoked(&report);
}
