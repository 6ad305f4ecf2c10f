//! QEMU on the system daemon.

use see_core::testing::conformance;
use see_tests::{Machine, assert_planted, assert_provoked, assert_shown};
use serde_json::json;

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
    let report = conformance::run(machine.crashing()).await;
    assert_shown(&report, &["dirty-names", "dead-machine", "guest-power"]);
    assert_planted(&report, &["libvirt.domain"]);
    assert_provoked(&report);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_with_a_network_and_a_pool_of_its_own_leaves_nothing_wherever_it_fails() {
    let machine = Machine::new(Some("qemu:///system"), |image| {
        let pool = image.with_file_name("pool");
        std::fs::create_dir(&pool).expect("the home is writable");
        json!({
            "hypervisor": "qemu:///system",
            "backend": "qemu",
            "acceleration": "tcg",
            "memory": "64MiB",
            "disk": { "image": image, "clone": { "storage_pool_path": pool } },
            "network": { "mode": "isolated" },
        })
    });
    let checks = ["failing-allocation", "dirty-names"];
    let report = conformance::run_only(machine, |check| checks.contains(&check)).await;
    assert_shown(&report, &checks);
    assert_planted(&report, &["libvirt.domain", "libvirt.pool"]);
}
