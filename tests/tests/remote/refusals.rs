//! What is not possible on another host.

use see_tests::{Home, finish, spawn};
use serde_json::json;

use crate::{CONFIGURATION, PATIENCE, context, run_command};

#[test]
fn what_cannot_be_had_on_another_host_is_refused_before_anything_is_made() {
    let home = Home::new();
    // Nobody listens there: these are refused before anybody is asked.
    let base = context(&home, "qemu+tcp://127.0.0.1:1/system");
    let mistakes = [
        ("network", json!({ "mode": "isolated" }), "firewall rules"),
        ("network", json!({ "mode": "shared" }), "firewall rules"),
        (
            "agent",
            json!({ "transport": "tcp", "token": "x" }),
            "another host",
        ),
        (
            "disk",
            json!({ "image": "guest.qcow2", "clone": { "storage_pool_path": "disks" } }),
            "relative path `disks`",
        ),
        (
            "limits",
            json!({ "pids": 9 }),
            "the limit `pids` cannot be kept",
        ),
    ];
    let container = json!({
        "hypervisor": "lxc+tcp://127.0.0.1:1/",
        "domain": { "configuration": "container.xml" },
    });
    let contexts = mistakes.map(|(key, value, expected)| {
        let mut context = base.clone();
        context[key] = value;
        (key, context, expected)
    });
    let container = ("lxc", container, "on another host");
    for (key, context, expected) in contexts.into_iter().chain([container]) {
        let run_file = home.run_file(context);
        let mut seectl = run_command(&home, &run_file, "/bin/true", "true");
        let outcome = finish(spawn(&mut seectl), PATIENCE);
        assert_eq!(outcome.code, CONFIGURATION, "{key}: {outcome:#?}");
        assert!(
            outcome.stderr.contains(expected),
            "{key}: {}",
            outcome.stderr
        );
    }
}
