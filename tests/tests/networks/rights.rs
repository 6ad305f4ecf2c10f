//! Who may not load firewall rules.

use std::process::Command;

use see_tests::{Home, finish, spawn};
use serde_json::json;

use crate::support::RUN;

/// The documented exit code.
const MISSING_RIGHTS: i32 = 5;
/// An account without rights, the same everywhere.
const NOBODY: &str = "65534";

#[test]
fn closed_networks_are_refused_to_whoever_may_not_load_firewall_rules() {
    let home = Home::passable();
    home.guest("guest.qcow2");
    let program = home.path("seectl");
    std::fs::copy(see_tests::seectl(), &program).expect("the home is writable");
    let nobodys = home.path("nobody");
    std::fs::create_dir(&nobodys).expect("the home is writable");
    std::os::unix::fs::chown(&nobodys, Some(65534), Some(65534)).expect("root may");
    for mode in ["isolated", "shared"] {
        let run_file = home.run_file(json!({
            "hypervisor": "qemu:///system",
            "disk": { "image": "guest.qcow2" },
            "network": { "mode": mode },
        }));
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={NOBODY}"))
            .arg(format!("--regid={NOBODY}"))
            .arg("--clear-groups")
            .arg(&program)
            .arg("run")
            .arg(&run_file)
            .args(["--command", "true"]);
        home.furnish(&mut command);
        command
            .env("HOME", &nobodys)
            .env("SEE_STATE_DIR", nobodys.join("state"))
            .env("XDG_CACHE_HOME", nobodys.join("cache"));
        let outcome = finish(spawn(&mut command), RUN);
        assert_eq!(outcome.code, Some(MISSING_RIGHTS), "{outcome:#?}");
        for part in ["firewall rules", "root", "context.network.mode"] {
            assert!(outcome.stderr.contains(part), "{part}: {outcome:#?}");
        }
    }
}
