//! What libvirt and the programs that it starts leave of a machine: it goes with the run, and what is said of that in the
//! end was looked at on the host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use see_tests::{Home, Outcome, assert_nothing_remains};
use serde_json::{Value, json};

/// The longest that a run may take on a busy host.
const RUN: Duration = Duration::from_secs(180);
/// The documented exit codes.
const OK: Option<i32> = Some(0);
const SANDBOX_FAILED: Option<i32> = Some(4);

/// A home that the daemon's emulators can pass, with an empty disk in it.
fn home() -> Home {
    assert!(
        rustix::process::geteuid().is_root(),
        "the tests of the system daemon need root: run `sudo -E cargo xtask test`"
    );
    let home = Home::passable();
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(home.path("disk.qcow2"))
        .arg("64M")
        .status();
    assert!(made.expect("qemu-img is installed").success());
    home
}

/// Starts a machine with nothing to boot from and ends it at once; `more` are further keys of its context.
fn run(home: &Home, more: Value, arguments: &[&str]) -> Outcome {
    let mut context = json!({
        "memory": "64MiB",
        "acceleration": "tcg",
        "disk": { "image": "disk.qcow2" },
        "agent": { "transport": "none" },
    });
    let keys = context.as_object_mut().expect("an object");
    keys.extend(more.as_object().expect("an object").clone());
    if keys.contains_key("domain") {
        keys.remove("memory");
    }
    let run = json!({
        "version": 1,
        "context": context,
        "hooks": { "hooks": [] },
        "protocol": [{ "step": "poweron" }],
    });
    home.write("run.json", run.to_string());
    let all = ["run", "--output", "json", "run.json"];
    home.run(all.iter().chain(arguments), RUN)
}

fn result(outcome: &Outcome) -> Value {
    let result = outcome.result();
    result.get("result").unwrap_or(&result).clone()
}

fn identifier(result: &Value) -> String {
    result["identifier"]
        .as_str()
        .expect("it has one")
        .to_owned()
}

/// What was looked for, by name; fails unless nothing of it was found.
fn looked_for(result: &Value) -> Vec<String> {
    let looked = result["looked_for"].as_array().expect("a list");
    for looked in looked {
        assert_eq!(looked["found"], json!([]), "{looked}");
        assert_eq!(looked["denied"], Value::Null, "{looked}");
    }
    let names = looked.iter().filter_map(|looked| looked["what"].as_str());
    names.map(str::to_owned).collect()
}

fn log_of(identifier: &str) -> PathBuf {
    Path::new("/var/log/libvirt/qemu").join(format!("{identifier}.log"))
}

/// Fails unless the run left nothing and looked for all these; gives its result and all that it looked for.
fn assert_clean_and_looked(outcome: &Outcome, places: &[&str]) -> (Value, Vec<String>) {
    assert_eq!(outcome.code, OK, "{outcome:#?}");
    let result = result(outcome);
    assert_eq!(result["left_behind"], json!([]), "{result:#}");
    let looked = looked_for(&result);
    for place in places {
        assert!(looked.iter().any(|looked| looked == place), "{looked:#?}");
    }
    (result, looked)
}

#[test]
fn a_run_on_the_daemon_leaves_no_log_and_says_where_it_looked() {
    let home = home();
    let outcome = run(&home, json!({ "hypervisor": "qemu:///system" }), &[]);
    let (result, looked) = assert_clean_and_looked(
        &outcome,
        &[
            "the domain at qemu:///system",
            "its processes",
            "its open sockets",
            "its control groups",
            "libvirt's logs",
            "shared memory",
            "AppArmor's profiles",
            "the emulated TPM's state",
        ],
    );
    let folder = looked.iter().filter(|looked| looked.starts_with("folder "));
    assert!(folder.count() >= 2, "{looked:#?}");
    assert_nothing_remains(&identifier(&result));
}

#[test]
fn a_run_on_a_network_of_its_own_looks_for_the_bridge_and_the_address_servers_files() {
    let home = home();
    let context = json!({
        "hypervisor": "qemu:///system",
        "network": { "dynamic_address": {
            "ipv4": "10.213.78.0", "prefix": 24, "subnet_prefix": 24 } },
    });
    let outcome = run(&home, context, &[]);
    let (result, _) = assert_clean_and_looked(
        &outcome,
        &[
            "the domain at qemu:///system",
            "the network at qemu:///system",
            "its bridge and address server",
            "the address server's files",
        ],
    );
    assert_nothing_remains(&identifier(&result));
}

#[test]
fn the_collection_of_a_kept_machine_removes_its_log_and_the_rotated_ones() {
    let home = home();
    let context = json!({ "hypervisor": "qemu:///system" });
    let outcome = run(&home, context, &["--keep", "1h"]);
    assert_eq!(outcome.code, OK, "{outcome:#?}");
    let result = result(&outcome);
    assert_eq!(result["looked_for"], json!([]), "it is meant to be there");
    let identifier = identifier(&result);
    let log = log_of(&identifier);
    assert!(log.exists(), "{}", log.display());
    std::fs::write(log.with_extension("log.0"), "rotated").expect("root may");
    let collected = home.run(["gc", &identifier, "--include-kept"], RUN);
    assert_eq!(collected.code, OK, "{collected:#?}");
    assert_nothing_remains(&identifier);
}

/// A machine that QEMU refuses when it starts.
const REFUSED: &str = "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
    <name>refused</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
    <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
    <disk type='file' device='disk'><target dev='vda' bus='virtio'/></disk>\
    <controller type='usb' model='none'/><memballoon model='none'/></devices>\
    <qemu:commandline><qemu:arg value='-device'/><qemu:arg value='see-no-such-device'/></qemu:commandline>\
    </domain>";

#[test]
fn of_a_start_that_failed_the_hypervisors_log_is_kept_with_the_results_and_nothing_else() {
    let home = home();
    home.write("refused.xml", REFUSED);
    for hypervisor in ["embedded", "qemu:///system"] {
        let context = json!({
            "hypervisor": hypervisor,
            "domain": { "configuration": "refused.xml", "allow_command_line": true },
        });
        let outcome = run(&home, context, &[]);
        assert_eq!(outcome.code, SANDBOX_FAILED, "{outcome:#?}");
        let result = result(&outcome);
        let results = PathBuf::from(result["results"].as_str().expect("a path"));
        let log = results.join("hypervisor.log");
        let failure = result["failure"].as_str().expect("a text");
        assert!(failure.contains(&*log.to_string_lossy()), "{failure}");
        let text = std::fs::read_to_string(&log).expect("it is kept");
        assert!(text.contains("see-no-such-device"), "{text}");
        looked_for(&result);
        assert_nothing_remains(&identifier(&result));
    }
}

/// A network whose address server does not start.
const UNSERVED: &str = "<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>\
    <name>unserved</name><ip address='10.213.77.1' prefix='24'>\
    <dhcp><range start='10.213.77.2' end='10.213.77.254'/></dhcp></ip>\
    <dnsmasq:options><dnsmasq:option value='see-no-such-option'/></dnsmasq:options></network>";

#[test]
fn a_network_that_libvirt_cannot_start_leaves_no_files_of_its_address_server() {
    let home = home();
    home.write("unserved.xml", UNSERVED);
    let context = json!({
        "hypervisor": "qemu:///system",
        "network": { "configuration": "unserved.xml" },
    });
    let outcome = run(&home, context, &[]);
    assert_eq!(outcome.code, SANDBOX_FAILED, "{outcome:#?}");
    let result = result(&outcome);
    let failure = result["failure"].as_str().expect("a text");
    assert!(failure.contains("dnsmasq"), "{failure}");
    looked_for(&result);
    assert_nothing_remains(&identifier(&result));
}
