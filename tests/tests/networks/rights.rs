//! Who may not load firewall rules.

use see_tests::{Home, Nobody, finish, spawn};
use serde_json::json;

use crate::support::RUN;

/// The documented exit code.
const MISSING_RIGHTS: i32 = 5;

#[test]
fn closed_networks_are_refused_to_whoever_may_not_load_firewall_rules() {
    let home = Home::passable();
    home.guest("guest.qcow2");
    let nobody = Nobody::of(home);
    for mode in ["isolated", "shared"] {
        let run_file = nobody.home.run_file(json!({
            "hypervisor": "qemu:///system",
            "disk": { "image": "guest.qcow2" },
            "network": { "mode": mode },
        }));
        let mut command = nobody.seectl(None);
        command
            .arg("run")
            .arg(&run_file)
            .args(["--command", "true"]);
        let outcome = finish(spawn(&mut command), RUN);
        assert_eq!(outcome.code, Some(MISSING_RIGHTS), "{outcome:#?}");
        for part in ["firewall rules", "root", "context.network.mode"] {
            assert!(outcome.stderr.contains(part), "{part}: {outcome:#?}");
        }
    }
}
