//! What a sandbox on another host cannot have: all of it is told, and nobody there is asked for anything.

use see_tests::{Home, PrivateDaemon, Transport, finish, spawn};
use serde_json::{Value, json};

use crate::{CONFIGURATION, PATIENCE, context, left_there, other_host, run_command};

const DOMAIN: &str = "<domain type='qemu'><memory unit='MiB'>128</memory><os><type>hvm</type></os><devices>\
    <disk type='file' device='disk'><target dev='vda' bus='virtio'/></disk></devices></domain>";

/// Runs with these keys of the context changed, and gives what was said of what is wrong.
fn refused(home: &Home, daemon: &PrivateDaemon, changes: &[(&str, Value)]) -> String {
    let before = left_there(daemon);
    let mut context = context(home, &daemon.remote_uri(Transport::Tcp));
    for (key, value) in changes {
        context[*key] = value.clone();
    }
    // What shapes the built-in domain has no place beside one of the user's own.
    if let Some(keys) = context.as_object_mut()
        && keys.contains_key("domain")
    {
        keys.remove("memory");
    }
    let run_file = home.run_file(context);
    let mut seectl = run_command(home, &run_file, "/bin/true", "true");
    let outcome = finish(spawn(&mut seectl), PATIENCE);
    assert_eq!(outcome.code, CONFIGURATION, "{changes:?}: {outcome:#?}");
    assert_eq!(home.recorded(), Vec::<String>::new());
    // No define and no volume, since not even a connection.
    assert_eq!(daemon.received(Transport::Tcp), 0, "{changes:?}");
    assert_eq!(left_there(daemon), before);
    outcome.stderr
}

/// A domain of the user's own, with more devices and another `<os>`.
fn domain(home: &Home, name: &str, os: &str, devices: &str) -> Value {
    let xml = DOMAIN
        .replace("</os>", &format!("{os}</os>"))
        .replace("</devices>", &format!("{devices}</devices>"));
    let path = home.write(name, xml);
    json!({ "configuration": path })
}

#[test]
fn each_thing_that_there_is_not_on_another_host_is_told_with_its_key_and_what_to_do() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let further =
        "<disk type='file'><source file='/there/data.img'/><target dev='vdb' bus='virtio'/></disk>";
    let variables =
        "<loader readonly='yes' type='pflash'>/there/code.fd</loader><nvram>/there/vars.fd</nvram>";
    let disks = |folder| json!({ "image": home.guest("guest.qcow2"), "clone": { "storage_pool_path": folder } });
    let session = daemon.remote_uri(Transport::Tcp);
    let session = session.replace("/system", "/session");
    let cases = [
        (
            ("hypervisor", json!(session)),
            [
                "context.hypervisor",
                "no usual folder for disks",
                "set `disk.clone.storage_pool_path`",
            ],
        ),
        (
            ("disk", disks("/data/../images")),
            [
                "context.disk.clone.storage_pool_path",
                "found `..` in the path `/data/../images`",
                "write the path without it",
            ],
        ),
        (
            ("network", json!({ "mode": "isolated" })),
            [
                "context.network.mode",
                "firewall rules",
                "run SEE on that host",
            ],
        ),
        (
            ("network", json!({ "mode": "shared" })),
            ["context.network.mode", "firewall rules", "`none` or `nat`"],
        ),
        (
            ("agent", json!({ "transport": "tcp", "token": "x" })),
            ["context.agent", "another host", "`serial`"],
        ),
        (
            ("disk", disks("disks")),
            [
                "context.disk.clone.storage_pool_path",
                "relative path `disks`",
                "an absolute one",
            ],
        ),
        (
            ("limits", json!({ "pids": 9 })),
            [
                "context.limits.pids",
                "`pids` cannot be kept",
                "leave it out",
            ],
        ),
        (
            ("limits", json!({ "console": "1MiB" })),
            [
                "context.limits.console",
                "`console` cannot be kept",
                "leave it out",
            ],
        ),
        (
            ("domain", domain(&home, "further.xml", "", further)),
            ["further.xml:1:", "this is a further one", "take it out"],
        ),
        (
            ("domain", domain(&home, "uefi.xml", variables, "")),
            [
                "context.domain.configuration",
                "the firmware's variables",
                "take <nvram> out",
            ],
        ),
        (
            (
                "domain",
                domain(&home, "kernel.xml", "<kernel>/there/kernel</kernel>", ""),
            ),
            [
                "context.domain.configuration",
                "boots from /there/kernel",
                "boot from the disk",
            ],
        ),
    ];
    for (change, parts) in cases {
        let said = refused(&home, &daemon, std::slice::from_ref(&change));
        for part in parts {
            assert!(said.contains(part), "{change:?}: {part}: {said}");
        }
    }
}

#[test]
fn several_things_that_there_are_not_on_another_host_are_told_at_once() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let further =
        "<disk type='file'><source file='/there/data.img'/><target dev='vdb' bus='virtio'/></disk>";
    let changes = [
        ("network", json!({ "mode": "isolated" })),
        ("agent", json!({ "transport": "tcp", "token": "x" })),
        ("limits", json!({ "console": "1MiB", "pids": 9 })),
        (
            "domain",
            domain(&home, "both.xml", "<kernel>/there/kernel</kernel>", further),
        ),
    ];
    let said = refused(&home, &daemon, &changes);
    for part in [
        "firewall rules",
        "cannot be reached over the guest's network",
        "`console` cannot be kept",
        "`pids` cannot be kept",
        "this is a further one",
        "boots from /there/kernel",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_container_on_another_host_is_refused_before_anybody_is_asked() {
    let home = Home::new();
    let container = json!({
        "hypervisor": "lxc+tcp://127.0.0.1:1/",
        "domain": { "configuration": "container.xml" },
    });
    let run_file = home.run_file(container);
    let mut seectl = run_command(&home, &run_file, "/bin/true", "true");
    let outcome = finish(spawn(&mut seectl), PATIENCE);
    assert_eq!(outcome.code, CONFIGURATION, "{outcome:#?}");
    assert!(
        outcome.stderr.contains("on another host"),
        "{}",
        outcome.stderr
    );
}
