//! Machines on the system daemon, with networks: real guests through `qemu:///system`.
//!
//! They need root and a libvirtd, and fail without.

mod foreign;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use see_tests::{
    Footprint, Home, Nobody, Outcome, Picture, assert_nothing_remains, finish, guest, spawn,
};
use serde_json::{Value, json};

/// The longest that a run of a small guest may take on a busy host.
const RUN: Duration = Duration::from_secs(180);
/// The documented exit codes.
const SANDBOX_FAILED: i32 = 4;
const MISSING_RIGHTS: i32 = 5;
/// The port on which the small guest's agent listens.
const AGENT_PORT: u16 = 8020;

/// A home that the daemon's emulators can pass. Fails where there is no daemon, or no right to use it.
fn home() -> Home {
    assert!(
        rustix::process::geteuid().is_root(),
        "the tests of the system daemon need root: run `sudo -E cargo xtask test`"
    );
    let answer = virsh(["version"]);
    assert!(
        answer.is_ok(),
        "qemu:///system does not answer, `cargo xtask setup --daemon` starts libvirtd: {answer:?}"
    );
    Home::passable()
}

fn virsh<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
    see_tests::virsh("qemu:///system", arguments)
}

/// A context on the daemon: the guest's image in the home, and these further keys.
fn context(home: &Home, image: &str, more: Value) -> Value {
    home.guest(image);
    let mut context = json!({
        "hypervisor": "qemu:///system",
        "memory": "128MiB",
        "disk": { "image": image },
    });
    let keys = context.as_object_mut().expect("an object");
    keys.extend(more.as_object().expect("an object").clone());
    context
}

/// A run file with this context, whose sample runs once the guest has an address, as python-see's tutorial has it.
fn networked(home: &Home, context: &Value) -> PathBuf {
    let run = json!({
        "version": 1,
        "context": context,
        "hooks": { "hooks": [{ "name": "commands" }] },
        "protocol": protocol(),
    });
    home.write("run.json", run.to_string())
}

fn protocol() -> Value {
    json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ip_address", "timeout": "60s" },
        { "step": "trigger", "event": "run_sample",
          "attributes": { "sample": "${sample}", "command": "${command}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "60s" },
        { "step": "pause" },
        { "step": "trigger", "event": "snapshots_capture" },
        { "step": "resume" },
        { "step": "shutdown", "timeout": "60s" },
    ])
}

/// A network in a free subnet of this one, which no other test uses.
fn dynamic_address(network: &str) -> Value {
    json!({ "dynamic_address": { "ipv4": network, "prefix": 24, "subnet_prefix": 26 } })
}

fn run<S: AsRef<std::ffi::OsStr>>(
    home: &Home,
    run_file: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    let mut command = Command::new("sh");
    // What SEE makes with a strict umask the emulator's account has to get at all the same.
    command
        .args(["-c", "umask 077 && exec \"$0\" \"$@\""])
        .arg(see_tests::seectl())
        .args(["run", "--output", "json"])
        .arg(run_file)
        .args(arguments);
    home.furnish(&mut command);
    finish(spawn(&mut command), RUN)
}

/// What the result says, by a JSON pointer.
fn told(outcome: &Outcome, pointer: &str) -> Value {
    let result = outcome.result();
    result
        .pointer(&format!("/result{pointer}"))
        .unwrap_or_else(|| panic!("no {pointer} in {result:#}"))
        .clone()
}

fn text(outcome: &Outcome, pointer: &str) -> String {
    let value = told(outcome, pointer);
    value
        .as_str()
        .unwrap_or_else(|| panic!("{pointer} is {value}"))
        .to_owned()
}

/// What the sample printed.
fn stdout(outcome: &Outcome) -> String {
    let path = text(outcome, "/sample_result/stdout");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// An attribute of the only event of this name.
fn attribute(outcome: &Outcome, event: &str, name: &str) -> Value {
    let events = outcome.events(event);
    assert_eq!(events.len(), 1, "{event}: {outcome:#?}");
    events[0]["attributes"][name].clone()
}

/// The address that was told.
fn address(outcome: &Outcome) -> Ipv4Addr {
    let address = attribute(outcome, "ip_address", "address");
    address
        .as_str()
        .and_then(|address| address.parse().ok())
        .unwrap_or_else(|| panic!("no address: {address}"))
}

/// Fails unless nothing of a run is left on the host.
fn assert_clean(home: &Home, outcome: &Outcome) {
    assert_eq!(told(outcome, "/teardown_errors"), json!([]));
    assert_eq!(told(outcome, "/left_behind"), json!([]));
    assert_eq!(home.recorded(), Vec::<String>::new());
    assert_nothing_remains(&text(outcome, "/identifier"));
}

#[test]
fn a_guest_on_a_network_of_its_own_gets_an_address_and_shuts_down_when_asked() {
    let home = home();
    let context = context(
        &home,
        "guest.qcow2",
        json!({ "network": dynamic_address("10.91.1.0") }),
    );
    let run_file = networked(&home, &context);
    let outcome = run(&home, &run_file, ["--command", "ip -4 addr show eth0"]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let address = address(&outcome);
    assert_eq!(address.octets()[..3], [10, 91, 1]);
    let seen = stdout(&outcome);
    assert!(seen.contains(&format!("inet {address}/26")), "{seen}");
    assert_eq!(attribute(&outcome, "post_shutdown", "forced"), json!(false));
    assert_clean(&home, &outcome);
}

#[test]
fn pictures_are_taken_of_a_guest_on_the_daemon() {
    let home = home();
    let run_file = home.run_file(context(&home, "guest.qcow2", json!({})));
    let outcome = run(&home, &run_file, ["--command", "true"]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let results = PathBuf::from(text(&outcome, "/results"));
    let identifier = text(&outcome, "/identifier");
    for event in ["ready", "snapshots_capture"] {
        let picture = Picture::read(&results.join(format!("{identifier}_{event}.png")));
        assert!(picture.colours > 1, "{event}: {picture:?}");
    }
    assert_clean(&home, &outcome);
}

#[test]
fn the_agent_is_reached_over_the_network_with_its_token() {
    let home = home();
    let token = std::fs::read_to_string(guest("token")).expect("the token is text");
    let context = context(
        &home,
        "guest.qcow2",
        json!({
            "network": dynamic_address("10.91.2.0"),
            "agent": { "transport": "tcp", "port": AGENT_PORT, "token": token.trim() },
        }),
    );
    let run_file = networked(&home, &context);
    // Without a channel there is no port for it in the guest.
    let outcome = run(
        &home,
        &run_file,
        ["--command", "ls /dev/virtio-ports | wc -l"],
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(stdout(&outcome).trim(), "0", "{outcome:#?}");
    // Nobody is told the token.
    assert!(!outcome.stdout.contains(token.trim()), "{outcome:#?}");
    assert!(!outcome.stderr.contains(token.trim()), "{outcome:#?}");
    assert_clean(&home, &outcome);
}

#[test]
fn a_wrong_token_is_told_as_such() {
    let home = home();
    let context = context(
        &home,
        "guest.qcow2",
        json!({
            "network": dynamic_address("10.91.3.0"),
            "agent": { "transport": "tcp", "port": AGENT_PORT, "token": "not the guest's" },
        }),
    );
    let outcome = run(&home, &home.run_file(context), ["--command", "true"]);
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    assert_eq!(
        attribute(&outcome, "not_ready", "cause"),
        json!("wrong_token")
    );
    assert_clean(&home, &outcome);
}

#[test]
fn a_guest_that_ignores_the_power_button_is_switched_off_at_the_deadline() {
    let home = home();
    let run_file = home.write(
        "run.json",
        json!({
            "version": 1,
            "context": context(&home, "guest-deaf.qcow2", json!({})),
            "hooks": { "hooks": [{ "name": "commands" }] },
            "protocol": [
                { "step": "poweron" },
                { "step": "wait", "for": "ready", "timeout": "60s" },
                { "step": "shutdown", "timeout": "3s" },
            ],
        })
        .to_string(),
    );
    let outcome = run(&home, &run_file, [""; 0]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(attribute(&outcome, "post_shutdown", "forced"), json!(true));
    let time = |event: &str| {
        let events = outcome.events(event);
        events[0]["timestamp"].as_f64().expect("a number")
    };
    let asked = time("post_shutdown") - time("pre_shutdown");
    assert!(asked >= 3.0, "its time was cut short: {asked} s");
    assert_clean(&home, &outcome);
}

/// A domain as python-see's users have it.
const DOMAIN: &str = "\
<domain type='kvm'>
  <name>tobereplaced</name>
  <memory unit='KiB'>131072</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/tobereplaced'/>
      <target dev='hda' bus='ide'/>
    </disk>
    <interface type='network'>
      <source network='tobereplaced'/>
      <model type='virtio'/>
    </interface>
    <graphics type='vnc' port='-1' autoport='yes'/>
    <video><model type='vga'/></video>
  </devices>
</domain>
";

#[test]
fn configuration_files_of_python_see_run_as_they_are() {
    let home = home();
    home.guest("guest.qcow2");
    home.write("domain.xml", DOMAIN);
    let pool = home.path("instances");
    std::fs::create_dir(&pool).expect("the home is writable");
    std::fs::set_permissions(&pool, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("the owner may change its mode");
    let folder = home.folder().display();
    let context = format!(
        r#"{{
    "name": "see.resources.qemu.QEMUResources",
    "hypervisor": "qemu:///system",
    "domain": {{ "configuration": "{folder}/domain.xml" }},
    "disk": {{
        "image": {{ "uri": "{folder}/guest.qcow2", "provider": "see.image_providers.DummyProvider" }},
        "clone": {{ "storage_pool_path": "{folder}/instances", "copy_on_write": true }}
    }},
    "network": {{ "dynamic_address": {{ "ipv4": "10.91.4.0", "prefix": 24, "subnet_prefix": 26 }} }}
}}"#
    );
    let hooks = format!(
        r#"{{
    "hooks": {{
        "configuration": {{ "results_folder": "{folder}/results" }},
        "hooks": [
            {{ "name": "plugins.commands.CommandsHook", "configuration": {{}} }},
            {{ "name": "plugins.screen.ScreenHook",
               "configuration": {{ "screenshot_on_event": "snapshots_capture" }} }},
            {{ "name": "plugins.timers.TimersHook", "configuration": {{ "timers": {{ "custom_event": 1 }} }} }}
        ]
    }}
}}"#
    );
    let run_file = home.write(
        "run.json",
        format!(
            "{{\n\"version\": 1,\n\"context\": {context},\n\"hooks\": {hooks},\n\"protocol\": {}\n}}\n",
            protocol()
        ),
    );
    let sample = home.write("sample.sh", "#!/bin/sh\ncat /proc/partitions\n");
    let outcome = run(&home, &run_file, ["--sample".as_ref(), sample.as_os_str()]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    // The disk is where that domain has it.
    assert!(stdout(&outcome).contains("sda"), "{}", stdout(&outcome));
    assert_eq!(address(&outcome).octets()[..3], [10, 91, 4]);
    assert_eq!(outcome.events("custom_event").len(), 1, "{outcome:#?}");
    let identifier = text(&outcome, "/identifier");
    let results = PathBuf::from(text(&outcome, "/results"));
    Picture::read(&results.join(format!("{identifier}_snapshots_capture.png")));
    // The folder of pools stays, the run's own in it does not.
    let left = std::fs::read_dir(&pool).expect("it is still there").count();
    assert_eq!(left, 0);
    assert_clean(&home, &outcome);
}

#[test]
fn a_network_of_the_users_own_keeps_its_addresses() {
    let home = home();
    home.write(
        "network.xml",
        "<network>\n  <!-- the lab's -->\n  <name>tobereplaced</name>\n  <bridge name='tobereplaced'/>\n  \
         <ip address='10.91.5.1' netmask='255.255.255.0'>\n    \
         <dhcp><range start='10.91.5.77' end='10.91.5.77'/></dhcp>\n  </ip>\n</network>\n",
    );
    let context = context(
        &home,
        "guest.qcow2",
        json!({ "network": { "configuration": "network.xml" } }),
    );
    let outcome = run(
        &home,
        &networked(&home, &context),
        ["--command", "route -n"],
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(address(&outcome), Ipv4Addr::new(10, 91, 5, 77));
    assert_clean(&home, &outcome);
}

#[test]
fn the_base_image_is_not_given_to_the_emulators_account() {
    let home = home();
    let images = home.path("images");
    std::fs::create_dir(&images).expect("the home is writable");
    std::fs::set_permissions(&images, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("the owner may change its mode");
    std::fs::copy(guest("guest.qcow2"), images.join("guest.qcow2")).expect("the home is writable");
    let before = Footprint::of(&images);
    let run_file = home.run_file(json!({
        "hypervisor": "qemu:///system",
        "disk": { "image": "images/guest.qcow2" },
    }));
    let outcome = run(
        &home,
        &run_file,
        ["--command", "echo changed >/root/file; sync"],
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    before.assert_unchanged(&images);
    assert_clean(&home, &outcome);
}

#[test]
fn who_may_not_use_the_daemon_is_told_so() {
    let home = home();
    let run_file = home.run_file(context(&home, "guest.qcow2", json!({})));
    let nobody = Nobody::of(home);
    let mut command = nobody.seectl(None);
    command
        .arg("run")
        .arg(&run_file)
        .args(["--command", "true"]);
    let outcome = finish(spawn(&mut command), RUN);
    assert_eq!(outcome.code, Some(MISSING_RIGHTS), "{outcome:#?}");
    assert!(outcome.stderr.contains("qemu:///system"), "{outcome:#?}");
    assert!(outcome.stderr.contains("embedded"), "{outcome:#?}");
}
