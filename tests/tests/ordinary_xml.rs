//! Domains as other programs write them run, several at once, though each names a machine of its own.

use std::time::Duration;

use see_tests::{DaemonOptions, Home, Live, PrivateDaemon};
use serde_json::json;

/// The longest run of a small guest on a busy host.
const RUN: Duration = Duration::from_secs(300);

/// What the guest says of itself.
const COMMAND: &str = "cat /sys/class/dmi/id/product_uuid /sys/class/dmi/id/sys_vendor; \
    ip link show eth0 | grep -o 'link/ether [0-9a-f:]*'";

/// A domain that another program wrote, with a port of VNC's that is taken by each run of it.
fn written(by: &str) -> String {
    let text = match by {
        "nova" => include_str!("../../see-context/src/admission/tests/nova.xml"),
        _ => include_str!("../../see-context/src/admission/tests/vagrant-libvirt.xml"),
    };
    // The models' disks are the small guest's, and what it has no driver for is another.
    text.replace(
        "autoport=\"yes\" listen=\"0.0.0.0\"",
        "port=\"5901\" autoport=\"no\" listen=\"0.0.0.0\"",
    )
    .replace("port='-1' autoport='yes'", "port='5901' autoport='no'")
    .replace(
        "<target dev='vda' bus='virtio'/>",
        "<target dev='vda' bus='virtio'/><shareable/><transient/>",
    )
}

#[test]
fn domains_of_nova_and_vagrant_libvirt_run_twice_at_once_on_a_closed_network() {
    let daemon = PrivateDaemon::with(&DaemonOptions::default());
    let home = Home::passable();
    home.guest("guest.qcow2");
    for by in ["nova", "vagrant-libvirt"] {
        let domain = home.write(&format!("{by}.xml"), written(by));
        let file = home.sampling(&json!({
            "hypervisor": daemon.uri(),
            "domain": { "configuration": domain },
            "disk": { "image": "guest.qcow2" },
            "network": { "mode": "isolated" },
        }));
        let start = || {
            let mut seectl = home.seectl();
            seectl
                .args(["run", "--output", "json"])
                .arg(&file)
                .args(["--command", COMMAND]);
            Live::start(&mut daemon.beside(seectl))
        };
        let addresses = [start(), start()].map(|live| {
            let outcome = live.finish(RUN);
            assert_eq!(outcome.code, Some(0), "{by}: {outcome:#?}");
            let result = &outcome.result()["result"];
            assert_eq!(result["isolation"]["verdict"], "proven", "{by}: {result:#}");
            let stdout = result["sample_result"]["stdout"]
                .as_str()
                .expect("it printed");
            let stdout = std::fs::read_to_string(stdout).expect("it is kept");
            let lines: Vec<&str> = stdout.lines().collect();
            let identifier = result["identifier"].as_str().expect("it has one");
            assert_eq!(
                lines[0], identifier,
                "{by}: the firmware shows the UUID: {stdout}"
            );
            if by == "nova" {
                assert_eq!(lines[1], "OpenStack Foundation", "{stdout}");
            }
            lines[2].to_owned()
        });
        assert_ne!(
            addresses[0], addresses[1],
            "{by}: each has a hardware address of its own"
        );
    }
}
