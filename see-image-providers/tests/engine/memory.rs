//! The memory that a download takes.

use std::process::Command;
use std::time::Duration;

use see_image_providers::testing::{Fault, FaultServer, Resource, noise};

use crate::support::{Shelf, Web};

/// Says to the test that it has a process of its own.
const ALONE: &str = "SEE_TEST_ALONE";
const LENGTH: u64 = 160 << 20;
/// In kibibytes, as the kernel tells it.
const LIMIT: u64 = 32 << 10;

#[tokio::test]
async fn a_download_takes_the_same_little_memory_however_large_the_image_is() {
    let test = "memory::a_download_takes_the_same_little_memory_however_large_the_image_is";
    alone(test, None).await;
}

#[tokio::test]
async fn as_many_streams_as_there_can_be_take_little_memory_too() {
    let test = "memory::as_many_streams_as_there_can_be_take_little_memory_too";
    alone(
        test,
        Some(Fault::Trickle(128 << 10, Duration::from_millis(25))),
    )
    .await;
}

/// Downloads an image in a process of its own, and looks at the memory that it took.
async fn alone(test: &str, slow: Option<Fault>) {
    if std::env::var_os(ALONE).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env(ALONE, "1");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{told}");
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    let server = FaultServer::start().await;
    let resource = Resource::new(noise(1 << 20)).repeated_to(LENGTH);
    let mut resource = resource.entity_tag("one");
    let is_slow = slow.is_some();
    if let Some(slow) = slow {
        resource = resource.always(slow);
    }
    server.put("/image", resource);
    let mut shelf = Shelf::new();
    shelf.configuration.streams = is_slow.then_some(8);
    let image = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
    assert_eq!(std::fs::metadata(image.path).unwrap().len(), LENGTH);
    if is_slow {
        assert_eq!(server.most_at_once(), 8, "all of them are used");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(
        peak < LIMIT,
        "{peak} KiB at the most, the server's part among them"
    );
}
