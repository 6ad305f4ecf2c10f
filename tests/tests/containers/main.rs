//! Containers through `lxc:///`, with a root of busybox and the real agent.
//!
//! They need root and a libvirtd with its LXC driver, and fail without.

mod hostile;
mod limits;
mod refused;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use see_tests::{
    Home, Live, Outcome, assert_nothing_remains, daemon_objects, finish, guest, until,
};
use serde_json::{Value, json};

/// The longest that a run of a container may take on a busy host.
const RUN: Duration = Duration::from_secs(180);
/// The port on which the agent of the small root listens.
const AGENT_PORT: u16 = 8020;

/// A container's XML, as a user writes it.
const DOMAIN: &str = "<domain type='lxc'>\n  <memory unit='MiB'>128</memory>\n  \
    <os><type>exe</type><init>/etc/container</init></os>\n  <devices>\n    \
    <filesystem type='mount'><source dir='ROOT'/><target dir='/'/></filesystem>\n  \
    </devices>\n</domain>\n";

/// A home that a container's users can pass, with the container's XML and a folder for host folders.
fn home() -> Home {
    assert!(
        rustix::process::geteuid().is_root(),
        "the tests of containers need root: run `sudo -E cargo xtask test`"
    );
    let answer = virsh(&["version"]);
    assert!(
        answer.is_ok(),
        "lxc:/// does not answer, `cargo xtask setup --daemon` starts libvirtd: {answer:?}"
    );
    let home = Home::passable();
    let root = guest("container");
    home.write(
        "container.xml",
        DOMAIN.replace("ROOT", &root.to_string_lossy()),
    );
    std::fs::create_dir(home.path("shared")).expect("the home is writable");
    home
}

fn virsh(arguments: &[&str]) -> Result<String, String> {
    see_tests::virsh("lxc:///", arguments.iter().copied())
}

/// A context as python-see has it, which names no backend, and these further keys.
fn context(more: &Value) -> Value {
    let mut context = json!({
        "domain": {
            "configuration": "container.xml",
            "filesystem": { "source_path": "shared", "target_path": "/mnt/shared" },
        },
    });
    let keys = context.as_object_mut().expect("an object");
    keys.extend(more.as_object().expect("an object").clone());
    context
}

/// A run file with this context and, where there are some, these steps.
fn run_file(home: &Home, context: &Value, steps: &Value) -> PathBuf {
    let mut run = json!({
        "version": 1,
        "context": context,
        "hooks": { "hooks": [{ "name": "commands" }] },
    });
    if !steps.is_null() {
        run["protocol"] = steps.clone();
    }
    home.write("run.json", run.to_string())
}

fn seectl(home: &Home, run_file: &Path, command: &str) -> Command {
    let mut program = home.seectl();
    program
        .args(["run", "--output", "json"])
        .arg(run_file)
        .args(["--command", command]);
    program
}

fn run(home: &Home, run_file: &Path, command: &str) -> Outcome {
    finish(see_tests::spawn(&mut seectl(home, run_file, command)), RUN)
}

fn told(outcome: &Outcome, pointer: &str) -> Value {
    let result = outcome.result();
    let value = result.pointer(&format!("/result{pointer}"));
    value
        .unwrap_or_else(|| panic!("no {pointer} in {result:#}"))
        .clone()
}

fn text(outcome: &Outcome, pointer: &str) -> String {
    let value = told(outcome, pointer);
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("{pointer} is {value}"))
        .to_owned()
}

/// What the sample printed.
fn stdout(outcome: &Outcome) -> String {
    let path = text(outcome, "/sample_result/stdout");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails unless nothing of a run is left on the host.
fn assert_clean(home: &Home, outcome: &Outcome) {
    assert_eq!(told(outcome, "/teardown_errors"), json!([]));
    assert_eq!(told(outcome, "/left_behind"), json!([]));
    assert_eq!(home.recorded(), Vec::<String>::new());
    assert_nothing_remains(&text(outcome, "/identifier"));
    assert_eq!(listed(&home.path("shared")), Vec::<String>::new());
}

/// The names in a folder.
fn listed(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("it can be listed").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The one folder in a folder, and a file in it.
fn of_the_only(folder: &Path, file: &str) -> Option<PathBuf> {
    let [name] = &listed(folder)[..] else {
        return None;
    };
    let path = folder.join(name).join(file);
    path.symlink_metadata().is_ok().then_some(path)
}

#[test]
fn a_sample_runs_in_a_container_that_shuts_down_when_signalled_and_leaves_no_host_folder() {
    let home = home();
    let root = guest("container");
    let before = listed(&root);
    let file = run_file(&home, &context(&json!({})), &Value::Null);
    let sample = "cat /proc/self/uid_map; ls /sys/class/net; touch /new /mnt/shared/own && \
        echo said >/mnt/shared/file; grep -c ' /mnt/shared ' /proc/mounts; echo wrong >&2; exit 7";
    let outcome = run(&home, &file, sample);
    assert_eq!(
        told(&outcome, "/sample_result/exit_code"),
        json!(7),
        "{outcome:#?}"
    );
    let said = stdout(&outcome);
    let lines: Vec<&str> = said.lines().collect();
    let [map, network, mounted] = lines[..] else {
        panic!("{said}");
    };
    let map: Vec<u32> = map
        .split_whitespace()
        .map(|number| number.parse().expect("a map of numbers"))
        .collect();
    assert_eq!((map[0], map[2]), (0, 65_536), "{said}");
    assert!(map[1] >= 0x0008_0000, "its root is the host's: {said}");
    assert_eq!(network, "lo", "it sees the host's network");
    assert_eq!(mounted, "1");
    let shutdowns = outcome.events("post_shutdown");
    assert_eq!(
        shutdowns[0]["attributes"]["forced"],
        json!(false),
        "{outcome:#?}"
    );
    assert_eq!(listed(&root), before, "the user's root was written");
    let looked = told(&outcome, "/looked_for");
    for what in [
        "the domain at lxc:///",
        "its processes",
        "its control groups",
        "libvirt's run-time files",
        "libvirt's logs",
    ] {
        let looked = looked.as_array().expect("a list");
        let looked_for = looked.iter().find(|looked| looked["what"] == what);
        let looked_for = looked_for.unwrap_or_else(|| panic!("{what}: {looked:#?}"));
        assert_eq!(looked_for["found"], json!([]), "{looked_for:#}");
        assert_eq!(looked_for["denied"], Value::Null, "{looked_for:#}");
    }
    assert_clean(&home, &outcome);
}

#[test]
fn a_host_folder_is_there_while_its_container_runs_and_links_out_of_it_are_not_followed() {
    let home = home();
    let victim = home.path("victim");
    std::fs::create_dir(&victim).expect("the home is writable");
    std::fs::write(victim.join("file"), "mine").expect("the home is writable");
    let steps = json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ready", "timeout": "30s" },
        { "step": "trigger", "event": "run_sample", "attributes": { "command": "${command}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "30s" },
    ]);
    let file = run_file(&home, &context(&json!({})), &steps);
    let out = victim.display();
    // Links to folders and files outside, folders that nobody may list, and one that the sample keeps open.
    let sample = format!(
        "cd /mnt/shared && ln -s {out} folder && ln -s {out}/file file && mkdir -p deep/er && \
         ln -s {out} deep/er/link && chmod 0 deep && mkfifo pipe && echo here >ready && \
         while [ ! -e seen ]; do sleep 0.1; done; sleep 100 <ready >/dev/null 2>&1 &  exit 0"
    );
    let mut live = Live::start(&mut seectl(&home, &file, &sample));
    let shared = home.path("shared");
    let mut said = None;
    until("what the sample writes", RUN, || {
        let file = of_the_only(&shared, "ready");
        said = file.and_then(|file| std::fs::read_to_string(file).ok());
        said.as_deref() == Some("here\n") || !live.runs()
    });
    assert_eq!(
        said.as_deref(),
        Some("here\n"),
        "the host sees the container's files"
    );
    let ready = of_the_only(&shared, "ready").expect("it is there");
    let owner = std::fs::metadata(&ready).expect("it is there").uid();
    assert!(owner >= 0x0008_0000, "the file is {owner}'s");
    std::fs::write(ready.with_file_name("seen"), "").expect("root may");
    let outcome = live.finish(RUN);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_clean(&home, &outcome);
    let left = std::fs::read_to_string(victim.join("file"));
    assert_eq!(left.ok().as_deref(), Some("mine"), "a link was followed");
}

#[test]
fn a_container_on_a_network_is_reached_over_tcp_and_restarts_when_signalled() {
    let home = home();
    let token = std::fs::read_to_string(guest("token")).expect("the token is text");
    let context = context(&json!({
        "name": "see.resources.lxc.LXCResources",
        "hypervisor": "lxc:///",
        "network": { "dynamic_address": { "ipv4": "10.94.1.0", "prefix": 24, "subnet_prefix": 26 } },
        "agent": { "transport": "tcp", "port": AGENT_PORT, "token": token },
    }));
    let steps = json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ip_address", "timeout": "30s" },
        { "step": "restart" },
        { "step": "wait", "for": "restarted", "timeout": "30s" },
        { "step": "wait", "for": "ready", "timeout": "30s" },
        { "step": "pause" },
        { "step": "resume" },
        { "step": "trigger", "event": "run_sample", "attributes": { "command": "${command}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "30s" },
        { "step": "shutdown", "timeout": "30s" },
    ]);
    let outcome = run(
        &home,
        &run_file(&home, &context, &steps),
        "ip -4 addr show eth0",
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let addresses = outcome.events("ip_address");
    let address = addresses[0]["attributes"]["address"].as_str();
    let address = address.expect("an address").to_owned();
    let said = stdout(&outcome);
    assert!(said.contains(&format!("inet {address}/26")), "{said}");
    assert_clean(&home, &outcome);
}

/// Says which answer: the gateway, which has the first address of the network, and the address that it is given.
const WHO_ANSWERS: &str = r#"
eval "$(ipcalc -n "$(ip -4 -o addr show eth0 | sed 's/.*inet \([0-9./]*\).*/\1/')")"
for asked in "${NETWORK%.*}.$((${NETWORK##*.} + 1))" "$1"; do
  if ping -c 2 -W 1 "$asked" >/dev/null 2>&1; then echo open; else echo closed; fi
done
"#;

#[test]
fn a_container_in_a_closed_network_proves_it_and_reaches_neither_the_host_nor_another_one() {
    let token = std::fs::read_to_string(guest("token")).expect("the token is text");
    let on = |home: &Home, network: &Value| {
        let context = context(&json!({
            "network": network,
            "agent": { "transport": "tcp", "port": AGENT_PORT, "token": token },
        }));
        let steps = json!([
            { "step": "poweron" },
            { "step": "wait", "for": "ip_address", "timeout": "30s" },
            { "step": "trigger", "event": "run_sample", "attributes": { "command": "${command}" } },
            { "step": "wait", "for": "sample_finished", "timeout": "300s" },
        ]);
        run_file(home, &context, &steps)
    };
    // One is there before any other is asked to prove anything.
    let other = home();
    let seat = on(&other, &json!({ "mode": "shared", "verify": false }));
    let mut neighbour = Live::start(&mut seectl(&other, &seat, "sleep 300"));
    let address = neighbour.wait_for("address", RUN, |line| line["event"] == "ip_address");
    let address = address.unwrap_or_else(|| panic!("it ended: {neighbour:#?}"));
    let address = address["attributes"]["address"].as_str();
    let question = format!("set -- {}\n{WHO_ANSWERS}", address.expect("an address"));

    let subnet = json!({ "ipv4": "10.94.2.0", "prefix": 24, "subnet_prefix": 24 });
    for (network, answers) in [
        (json!({ "dynamic_address": subnet }), "open\nclosed\n"),
        (json!({ "mode": "isolated" }), "closed\nclosed\n"),
        (json!({ "mode": "shared" }), "closed\nclosed\n"),
    ] {
        let home = home();
        let outcome = run(&home, &on(&home, &network), &question);
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        assert_eq!(stdout(&outcome), answers, "{network}");
        if network.get("mode").is_some() {
            assert_eq!(told(&outcome, "/isolation/verdict"), "proven", "{network}");
            let tried = &outcome.events("isolation_proven")[0]["attributes"]["tried"];
            assert!(tried.as_u64().is_some_and(|tried| tried >= 10), "{tried}");
        }
        assert_clean(&home, &outcome);
    }

    assert!(neighbour.runs(), "nobody was there to be reached");
    neighbour.signal(Signal::TERM);
    let outcome = neighbour.finish(RUN);
    assert_eq!(outcome.code, Some(143), "{outcome:#?}");
    assert_clean(&other, &outcome);
}

#[test]
fn a_container_can_be_asked_to_shut_down_as_soon_as_it_runs() {
    let home = home();
    let steps = json!([{ "step": "poweron" }, { "step": "shutdown", "timeout": "10ms" }]);
    let context = context(&json!({ "agent": { "transport": "none" } }));
    let file = run_file(&home, &context, &steps);
    // libvirt hears of the first process some time after it told that the container runs, or before.
    for _ in 0..10 {
        let outcome = run(&home, &file, "true");
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        assert_eq!(outcome.events("post_shutdown").len(), 1, "{outcome:#?}");
    }
}

#[test]
fn a_container_that_somebody_else_ends_while_it_restarts_ends_its_run_named() {
    let home = home();
    let steps = json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ready", "timeout": "30s" },
        { "step": "restart" },
        { "step": "wait", "for": "restarted", "timeout": "30s" },
        { "step": "trigger", "event": "run_sample", "attributes": { "command": "${command}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "120s" },
    ]);
    let file = run_file(&home, &context(&json!({})), &steps);
    let mut live = Live::start(&mut seectl(&home, &file, "sleep 600"));
    let restarts = live.wait_for("restart", RUN, |line| {
        line["event"] == "step_started" && line["attributes"]["step"] == "restart"
    });
    restarts.unwrap_or_else(|| panic!("it ended: {live:#?}"));
    let [identifier] = &home.recorded()[..] else {
        panic!("no run: {live:#?}");
    };
    // In each run that it has until SEE gives up.
    until("the end of the run", RUN, || {
        let _ = virsh(&["destroy", identifier]);
        !live.runs()
    });
    let outcome = live.finish(RUN);
    assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    // What ends it is the guest that is off, or the sample that finds none.
    let result = &outcome.result()["result"];
    let ends = [&result["failure"], &result["sample_result"]["error"]];
    let is_off = |end: &&Value| end.as_str().is_some_and(|end| end.contains("off"));
    assert!(ends.iter().any(is_off), "{ends:?}: {outcome:#?}");
    assert_clean(&home, &outcome);
}

#[test]
fn a_container_whose_owner_was_killed_is_collected_with_its_folders() {
    let home = home();
    let file = run_file(&home, &context(&json!({})), &Value::Null);
    let sample = "mkdir -p /mnt/shared/a/b && ln -s /etc /mnt/shared/a/b/etc && \
        echo x >/mnt/shared/ready; sleep 1000";
    let mut live = Live::start(&mut seectl(&home, &file, sample));
    let shared = home.path("shared");
    until("the sample's file", RUN, || {
        of_the_only(&shared, "ready").is_some() || !live.runs()
    });
    let [identifier] = &home.recorded()[..] else {
        panic!("no run: {live:#?}");
    };
    live.kill();
    let objects = daemon_objects(identifier);
    assert!(!objects.is_empty(), "the container ended with its owner");
    let foreign = home.path("shared/foreign");
    std::fs::create_dir(&foreign).expect("the home is writable");

    let gone = home.run(["gc"], RUN);
    assert_eq!(gone.code, Some(0), "{gone:#?}");
    assert_eq!(home.recorded(), Vec::<String>::new());
    assert_nothing_remains(identifier);
    assert_eq!(listed(&shared), ["foreign"], "only its own folder goes");
}

#[test]
fn of_two_interfaces_a_container_in_a_closed_network_has_the_one_that_was_asked_for() {
    let home = home();
    let token = std::fs::read_to_string(guest("token")).expect("the token is text");
    let domain = DOMAIN
        .replace("ROOT", &guest("container").to_string_lossy())
        .replace(
            "</devices>",
            "  <interface type='network'><source network='default'/></interface>\n  \
             <interface type='bridge'><source bridge='none'/></interface>\n  </devices>",
        );
    home.write("container.xml", domain);
    let context = context(&json!({
        "network": { "mode": "isolated" },
        "agent": { "transport": "tcp", "port": AGENT_PORT, "token": token },
    }));
    let file = run_file(&home, &context, &Value::Null);
    let outcome = run(&home, &file, "grep -c : /proc/net/dev");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(stdout(&outcome), "2\n", "its loopback and one more");
    assert_eq!(told(&outcome, "/isolation/verdict"), "proven");
    assert_clean(&home, &outcome);
}
