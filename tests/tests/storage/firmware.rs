//! Machines that boot by UEFI.

use std::path::{Path, PathBuf};
use std::time::Duration;

use see_core::Identifier;
use see_tests::{Footprint, Home, Lab, Live, assert_nothing_remains, until};
use serde_json::{Value, json};

use crate::support::*;

/// The longest that the firmware may take under emulation on a busy host.
const FIRMWARE: Duration = Duration::from_secs(60);

/// A machine with such firmware and an empty disk, and its context.
fn context(home: &Home, nvram: &str) -> Value {
    home.write(
        "domain.xml",
        format!(
            "<domain type='qemu'><memory unit='MiB'>128</memory>\
             <os firmware='efi'><type arch='x86_64' machine='pc'>hvm</type>{nvram}</os>\
             <features><acpi/></features><devices>\
             <disk type='file'><target dev='vda' bus='virtio'/></disk>\
             </devices></domain>"
        ),
    );
    home.write("empty.img", vec![0; 1 << 20]);
    json!({
        "domain": { "configuration": "domain.xml" },
        "disk": { "image": "empty.img" },
        "agent": { "transport": "none" },
    })
}

/// Where a machine's variables are.
fn nvram(identifier: &str) -> PathBuf {
    Path::new("/var/tmp").join(format!("see-{identifier}/nvram.fd"))
}

#[test]
fn a_machine_that_boots_by_uefi_has_variables_of_its_own_which_go_with_it() {
    runtime().block_on(async {
        let home = Home::new();
        let users = std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd")
            .expect("`cargo xtask setup` installs firmware");
        let users = home.write("users.fd", &users);
        let named = format!("<nvram>{}</nvram>", users.display());
        let context = context(&home, &named);
        write_run(&home, &context, None);
        let before = Footprint::of(&users);
        let lab = Lab::new(&home);
        let identifier = Identifier::random();
        let mut watched = lab
            .allocate_as(&home.path("run.json"), identifier)
            .await
            .expect("the machine can be made");
        let machine = watched.environment.machine().clone();
        let own = nvram(&identifier.to_string());
        assert_eq!(
            std::fs::read(&own).expect("each machine has a file"),
            std::fs::read(&users).unwrap(),
        );
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        // Without a system on the disk it is the firmware that speaks.
        let console = machine.console().expect("it has one").log().to_owned();
        until("the firmware to look for a system", FIRMWARE, || {
            let said = std::fs::read(&console).unwrap_or_default();
            String::from_utf8_lossy(&said).contains("BdsDxe")
        });
        assert_ne!(
            std::fs::read(&own).unwrap(),
            std::fs::read(&users).unwrap(),
            "the firmware wrote no variable"
        );
        watched.end().await;
        assert!(!own.exists());
        before.assert_unchanged(&users);
        lab.finish().await;
        assert_nothing_remains(&identifier.to_string());
    });
}

#[test]
fn the_variables_of_a_killed_machine_are_collected() {
    let home = Home::new();
    // Nobody names a file: libvirt makes it from the firmware's own template.
    let context = context(&home, "");
    let identifier = killed(&home, &context);
    assert!(nvram(&identifier).exists(), "the crash tidied up");
    collect(&home, &identifier);
}

#[test]
fn on_the_system_daemon_each_machine_has_variables_of_its_own_which_go_with_it_also_when_it_is_killed()
 {
    let home = Home::passable();
    let users = std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd")
        .expect("`cargo xtask setup` installs firmware");
    let users = home.write("users.fd", &users);
    let before = Footprint::of(&users);
    let mut context = context(&home, &format!("<nvram>{}</nvram>", users.display()));
    context["hypervisor"] = json!("qemu:///system");

    write_run(&home, &context, Some(json!([{ "step": "poweron" }])));
    let outcome = home.run(["run", "--output", "json", "run.json"], RUN);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let result = outcome.result();
    let identifier = result["result"]["identifier"].as_str().expect("it has one");
    assert!(!nvram(identifier).exists());
    assert_nothing_remains(identifier);
    before.assert_unchanged(&users);

    let identifier = killed(&home, &context);
    let own = std::fs::metadata(nvram(&identifier)).expect("each machine has a file");
    assert_eq!(
        own.len(),
        std::fs::metadata(&users).expect("it stays").len()
    );
    before.assert_unchanged(&users);
    collect(&home, &identifier);
    before.assert_unchanged(&users);
}

/// Kills a run whose machine is on, and gives its identifier.
fn killed(home: &Home, context: &Value) -> String {
    let steps = json!([{ "step": "poweron" }, { "step": "wait", "timeout": "60s" }]);
    write_run(home, context, Some(steps));
    let mut command = home.seectl();
    command.args(["run", "--output", "json", "run.json"]);
    let mut live = Live::start(&mut command);
    live.wait_for("power", RUN, |line| line["event"] == "post_poweron")
        .expect("the machine starts");
    let identifier = home.recorded().pop().expect("it has a record");
    assert!(nvram(&identifier).exists());
    live.kill();
    identifier
}

/// Collects what is left, and fails where something stays.
fn collect(home: &Home, identifier: &str) {
    let collected = home.run(["gc"], RUN);
    assert_eq!(collected.code, Some(0), "{collected:#?}");
    assert!(!nvram(identifier).exists());
    assert_nothing_remains(identifier);
    assert_eq!(home.recorded(), Vec::<String>::new());
}
