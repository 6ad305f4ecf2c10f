//! The privilege model, as docs/privileges.md tells it: what works for whom. The accounts are tried against a
//! private daemon's socket, so that the host's own groups stay as they are.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use see_tests::{DaemonOptions, GROUP, Home, Nobody, Outcome, PrivateDaemon, finish, spawn, until};
use serde_json::{Value, json};

/// The longest that a run of a small guest may take on a busy host.
const RUN: Duration = Duration::from_secs(180);
/// The documented exit codes.
const OK: Option<i32> = Some(0);
const MISSING_RIGHTS: Option<i32> = Some(5);

/// Somebody without rights, whose home has an image.
struct Ordinary(Nobody);

impl Ordinary {
    fn new() -> Self {
        let home = Home::passable();
        let image = home.guest("guest.qcow2");
        std::fs::set_permissions(image, PermissionsExt::from_mode(0o444)).expect("root may");
        Self(Nobody::of(home))
    }

    fn run(&self, context: &Value, groups: Option<&str>) -> Outcome {
        let run_file = self.0.home.sampling(context);
        let mut command = self.0.seectl(groups);
        command
            .args([
                "run",
                "--output",
                "json",
                "--command",
                "echo from the guest",
            ])
            .arg("--results")
            .arg(self.0.own.join("results"))
            .arg(run_file);
        finish(spawn(&mut command), RUN)
    }

    fn context(&self, uri: &str) -> Value {
        json!({
            "hypervisor": uri,
            // This account cannot try how fast the daemon's KVM is, which may crawl.
            "acceleration": "tcg",
            "memory": "128MiB",
            "disk": { "image": self.0.home.path("guest.qcow2") },
        })
    }
}

fn assert_ran(outcome: &Outcome) {
    assert_eq!(outcome.code, OK, "{outcome:#?}");
    let result = &outcome.result()["result"];
    let printed = result["sample_result"]["stdout"].as_str().expect("a path");
    let printed = std::fs::read_to_string(printed).expect("the file that the result names");
    assert_eq!(printed, "from the guest\n");
    assert_eq!(result["teardown_errors"], json!([]), "{result:#}");
    assert_eq!(result["left_behind"], json!([]), "{result:#}");
}

fn open_to_the_group() -> PrivateDaemon {
    PrivateDaemon::with(&DaemonOptions {
        group: Some(GROUP.to_owned()),
        ..DaemonOptions::default()
    })
}

#[test]
fn a_member_of_the_group_runs_samples_on_the_systems_daemon_and_others_are_told_how() {
    let daemon = open_to_the_group();
    let user = Ordinary::new();
    let mut context = user.context(&daemon.uri());
    let denied = user.run(&context, None);
    assert_eq!(denied.code, MISSING_RIGHTS, "{denied:#?}");
    assert!(
        denied.stderr.contains("join the group `libvirt`"),
        "{denied:#?}"
    );
    assert!(denied.stderr.contains("`embedded`"), "{denied:#?}");

    // The walls of a closed network are root's to put up, and the mode never becomes a weaker one.
    context["network"] = json!({ "mode": "isolated" });
    let walls = user.run(&context, Some(GROUP));
    assert_eq!(walls.code, MISSING_RIGHTS, "{walls:#?}");
    assert!(walls.stderr.contains("firewall rules"), "{walls:#?}");

    // With a network of libvirt's, which takes no rights of the user's own.
    context["network"] =
        json!({ "dynamic_address": { "ipv4": "10.78.0.0", "prefix": 16, "subnet_prefix": 24 } });
    let ran = user.run(&context, Some(GROUP));
    assert_ran(&ran);
    // The daemon's log of the machine is root's: that is said, and nothing is claimed of it.
    let looked = &ran.result()["result"]["looked_for"];
    let denied = looked.as_array().expect("a list").iter();
    let mut denied = denied.filter(|looked| looked["denied"].is_string());
    assert!(
        denied.any(|looked| looked["denied"].to_string().contains("only root")),
        "{looked:#}"
    );
    assert_eq!(daemon.objects(""), Vec::<String>::new());
}

/// A session daemon of that account.
struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_ordinary_user_runs_samples_in_a_session_daemon_of_its_own() {
    let user = Ordinary::new();
    let mut libvirtd = user
        .0
        .command(std::path::Path::new("/usr/sbin/libvirtd"), None);
    libvirtd.stdout(Stdio::null()).stderr(Stdio::null());
    let _session = Session(libvirtd.spawn().expect("libvirtd is installed"));
    let socket = user.0.own.join("libvirt/libvirt-sock");
    until("the session daemon", RUN, || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    let uri = format!("qemu+unix:///session?socket={}", socket.display());
    assert_ran(&user.run(&user.context(&uri), None));
}
