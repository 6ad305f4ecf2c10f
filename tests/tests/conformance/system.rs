//! QEMU on the system daemon.

use see_core::testing::conformance;
use serde_json::json;

use crate::machine::{Machine, assert_shown};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_on_the_system_daemon_passes_the_conformance_suite() {
    let machine = Machine::new(Some("qemu:///system"), |image| {
        json!({
            "hypervisor": "qemu:///system",
            "backend": "qemu",
            "acceleration": "tcg",
            "memory": "64MiB",
            "disk": { "image": image },
        })
    });
    let report = conformance::run(machine).await;
    assert_shown(&report, &["dirty-names", "dead-machine", "guest-power"]);
}
