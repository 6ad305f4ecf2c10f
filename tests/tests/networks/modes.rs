//! The modes without walls.

use serde_json::json;

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

#[test]
fn a_guest_without_a_network_loses_the_interface_of_its_domains_xml() {
    let site = Site::new();
    site.home.write(
        "domain.xml",
        "<domain type='qemu'><name>users</name><memory unit='MiB'>160</memory><vcpu>1</vcpu>
           <os><type arch='x86_64' machine='pc'>hvm</type></os>
           <features><acpi/><apic/></features>
           <devices>
             <disk type='file' device='disk'><source file='/nothing'/><target dev='vda' bus='virtio'/></disk>
             <interface type='network'><source network='default'/><model type='virtio'/></interface>
           </devices></domain>",
    );
    let run = json!({
        "version": 1,
        "context": {
            "hypervisor": site.daemon.uri(),
            "domain": { "configuration": "domain.xml" },
            "disk": { "image": "guest.qcow2" },
            "network": { "mode": "none" },
        },
        "hooks": { "hooks": [{ "name": "commands", "configuration": { "ready_timeout": "160s" } }] },
        "protocol": [
            { "step": "poweron" },
            { "step": "wait", "for": "ready", "timeout": "170s" },
            { "step": "trigger", "event": "run_sample", "attributes": { "command": "${command}" } },
            { "step": "wait", "for": "sample_finished", "timeout": "120s" },
        ],
    });
    let run_file = site.home.write("run.json", run.to_string());
    let outcome = site.run(&run_file, "ls /sys/class/net");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(stdout(&outcome), "lo\n");
}
