//! The embedded driver's log stays off the standard error stream when asked in time.

use std::process::Command;
use std::time::Duration;

use see_libvirt::{Connection, EmbeddedRoot, EmulatorAccount};

const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    if let Some(place) = std::env::var_os("SEE_TEST_PLACE") {
        assert!(see_libvirt::quiet_log(), "this process has one thread");
        tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(run(place.as_ref()));
        return;
    }
    let place = tempfile::tempdir_in("/tmp").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .env("SEE_TEST_PLACE", place.path())
        .env_remove("LIBVIRT_DEBUG")
        .env_remove("LIBVIRT_LOG_FILTERS")
        .env_remove("LIBVIRT_LOG_OUTPUTS")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "");
}

/// Does what libvirt warns of, and what it calls an error.
async fn run(place: &std::path::Path) {
    let saved = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("embedded-capabilities");
    let root = place.join("r");
    let root = EmbeddedRoot::create(&root, Some(&saved), EmulatorAccount::default()).unwrap();
    let connection = Connection::open_embedded(&root, LIMIT).await.unwrap();
    let uuid = uuid::Uuid::new_v4();
    let xml = format!(
        "<domain type='qemu'><name>see-{uuid}</name><uuid>{uuid}</uuid>\
         <memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>\
         </domain>"
    );
    let domain = connection.define_domain(&xml).await.unwrap();
    domain.start().await.unwrap();
    let answer = domain.qmp("{\"execute\": \"query-status\"}").await;
    let wrong = domain.qmp("{\"execute\": \"no-such-command\"}").await;
    domain.destroy().await.unwrap();
    assert!(answer.unwrap().contains("running"));
    assert!(wrong.unwrap().contains("CommandNotFound"));
    domain.undefine().await.unwrap();
    domain.status().await.unwrap_err();
}
