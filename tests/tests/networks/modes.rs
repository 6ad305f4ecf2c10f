//! The modes without walls.

use serde_json::{Value, json};

use crate::support::{Site, sampling, stdout, told};

#[test]
fn a_guest_behind_nat_has_a_lease_and_reaches_the_world_through_its_gateway() {
    let site = Site::new();
    site.open_up();
    let run_file = site.run_file("run.json", json!({ "mode": "nat" }), sampling());
    // The guest takes its address first, and its route then.
    let command = "for look in $(seq 100); do
          gateway=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')
          [ -n \"$gateway\" ] && break
          sleep 0.1
        done
        ip -4 -o addr show eth0 | grep -q 'inet 10\\.' && echo leased
        ping -c 3 -W 5 \"$gateway\" >/dev/null && echo gateway
        ping -c 3 -W 5 198.51.100.1 >/dev/null && echo world";
    let outcome = site.run(&run_file, command);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(stdout(&outcome), "leased\ngateway\nworld\n");
    assert_eq!(told(&outcome, "/isolation/verdict"), json!("no_walls"));
    assert_eq!(told(&outcome, "/left_behind"), json!([]));
}

/// The cards of a guest on this network whose domain's XML has two of its own.
fn cards(network: &Value) -> String {
    let site = Site::new();
    site.home.write(
        "domain.xml",
        "<domain type='qemu'><name>users</name><memory unit='MiB'>160</memory><vcpu>1</vcpu>
           <os><type arch='x86_64' machine='pc'>hvm</type></os>
           <features><acpi/><apic/></features>
           <devices>
             <disk type='file' device='disk'><source file='/nothing'/><target dev='vda' bus='virtio'/></disk>
             <interface type='network'><source network='default'/><model type='virtio'/></interface>
             <interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
           </devices></domain>",
    );
    let run_file = site.home.sampling(&json!({
        "hypervisor": site.daemon.uri(),
        "domain": { "configuration": "domain.xml" },
        "disk": { "image": "guest.qcow2" },
        "network": network,
    }));
    let outcome = site.run(&run_file, "ls /sys/class/net");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    stdout(&outcome)
}

#[test]
fn a_guest_without_a_network_loses_the_interface_of_its_domains_xml() {
    assert_eq!(cards(&json!({ "mode": "none" })), "lo\n");
}

#[test]
fn a_guest_behind_nat_has_no_other_card_whatever_its_domains_xml_has() {
    assert_eq!(cards(&json!({ "mode": "nat" })), "eth0\nlo\n");
}
