//! Machines on the embedded driver, with neither a daemon nor rights: real guests, run by `seectl` and by the library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use see_context::Native;
use see_core::{Context, Error, ErrorKind, Event, Hook, Identifier, SandboxState, Value};
use see_tests::{
    Footprint, Home, Lab, Outcome, Picture, assert_nothing_remains, finish, guest, spawn,
};
use serde_json::json;

/// The longest that a run of a small guest may take on a busy host.
const RUN: Duration = Duration::from_secs(180);
/// The longest that the guest may take to boot on a busy host.
const BOOT: Duration = Duration::from_secs(60);
/// The longest that a small command may take in the guest.
const CALL: Duration = Duration::from_secs(30);
/// The documented exit code for a sample that failed.
const SAMPLE_FAILED: i32 = 1;
/// The documented exit code for a sandbox that failed.
const SANDBOX_FAILED: i32 = 4;

const SAMPLE: &str = "\
#!/bin/sh
echo to stdout
echo to stderr >&2
mkdir -p /root/made && echo written >/root/made/file
cat /root/made/file
exit 3
";

/// `seectl run --output json` with these arguments, and with sockets in a folder that only this home has.
fn command<S: AsRef<std::ffi::OsStr>>(
    home: &Home,
    run_file: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = home.seectl();
    command
        .env("TMPDIR", home.runtime())
        .args(["run", "--output", "json"])
        .arg(run_file)
        .args(arguments);
    command
}

fn run<S: AsRef<std::ffi::OsStr>>(
    home: &Home,
    run_file: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    finish(spawn(&mut command(home, run_file, arguments)), RUN)
}

/// A run of the script above.
fn run_sample(home: &Home, run_file: &Path) -> Outcome {
    let sample = home.write("sample.sh", SAMPLE);
    let outcome = run(home, run_file, ["--sample".as_ref(), sample.as_os_str()]);
    assert_eq!(outcome.code, Some(SAMPLE_FAILED), "{outcome:#?}");
    outcome
}

/// What the result says, by a JSON pointer.
fn told(outcome: &Outcome, pointer: &str) -> serde_json::Value {
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

/// The file that the result names.
fn content(outcome: &Outcome, pointer: &str) -> Vec<u8> {
    let path = text(outcome, pointer);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails unless a run left its results and nothing else: no record, no process, no socket, no folder.
fn assert_clean(home: &Home, identifier: &str) {
    assert_eq!(home.listed(), Vec::<serde_json::Value>::new());
    assert_eq!(home.recorded(), Vec::<String>::new());
    let left: Vec<_> = std::fs::read_dir(home.runtime())
        .expect("the home is readable")
        .map(|entry| entry.expect("a folder can be read on").path())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "sockets or folders are left");
    assert_nothing_remains(identifier);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("there are threads")
}

#[test]
fn a_sample_runs_and_its_exit_code_and_output_are_told() {
    let home = Home::new();
    let outcome = run_sample(&home, &home.run_file(Home::embedded()));
    assert_eq!(told(&outcome, "/exit_code"), json!(SAMPLE_FAILED));
    assert_eq!(told(&outcome, "/sample_result/exit_code"), json!(3));
    assert_eq!(told(&outcome, "/sample_result/signal"), json!(null));
    assert_eq!(
        String::from_utf8_lossy(&content(&outcome, "/sample_result/stdout")),
        "to stdout\nwritten\n"
    );
    assert_eq!(
        String::from_utf8_lossy(&content(&outcome, "/sample_result/stderr")),
        "to stderr\n"
    );
    assert_eq!(told(&outcome, "/teardown_errors"), json!([]));
    assert_eq!(told(&outcome, "/left_behind"), json!([]));
    assert_eq!(told(&outcome, "/mishaps"), json!([]));
    // The protocol's events came, in their order.
    let wanted = [
        "pre_poweron",
        "post_poweron",
        "ready",
        "run_sample",
        "sample_finished",
        "pre_pause",
        "post_pause",
        "snapshots_capture",
        "post_resume",
        "pre_shutdown",
        "post_shutdown",
        "start_analysis",
        "wait_analysis",
    ];
    let times: Vec<f64> = wanted
        .iter()
        .map(|name| {
            let events = outcome.events(name);
            assert_eq!(events.len(), 1, "{name}: {events:#?}");
            events[0]["timestamp"].as_f64().expect("a number")
        })
        .collect();
    assert!(times.is_sorted(), "{wanted:?}: {times:?}");
    assert_eq!(
        outcome.events("post_shutdown")[0]["attributes"]["forced"],
        json!(false)
    );
}

#[test]
fn pictures_of_the_screen_are_taken_and_show_something() {
    let home = Home::new();
    let outcome = run_sample(&home, &home.run_file(Home::embedded()));
    let results = PathBuf::from(text(&outcome, "/results"));
    let identifier = text(&outcome, "/identifier");
    for event in ["ready", "snapshots_capture"] {
        let picture = Picture::read(&results.join(format!("{identifier}_{event}.png")));
        assert!(picture.width >= 320 && picture.height >= 200, "{picture:?}");
        assert!(picture.colours > 1, "{event}: {picture:?}");
    }
}

#[test]
fn a_run_leaves_nothing_behind_and_the_base_image_as_it_was() {
    let home = Home::new();
    let images = home.path("images");
    std::fs::create_dir(&images).expect("the home is writable");
    std::fs::copy(guest("guest.qcow2"), images.join("guest.qcow2")).expect("the home is writable");
    let before = Footprint::of(&images);
    let run_file = home.run_file(json!({ "disk": { "image": "images/guest.qcow2" } }));
    let outcome = run_sample(&home, &run_file);
    before.assert_unchanged(&images);
    assert_clean(&home, &text(&outcome, "/identifier"));
}

#[test]
fn a_command_runs_without_a_sample() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    let outcome = run(&home, &run_file, ["--command", "echo $((6 * 7)); uname"]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(
        String::from_utf8_lossy(&content(&outcome, "/sample_result/stdout")),
        "42\nLinux\n"
    );
}

#[test]
fn a_sample_of_odd_bytes_arrives_in_the_guest_and_comes_back_as_it_was() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    // Every byte beside every other, and a length that is no multiple of anything.
    let bytes: Vec<u8> = (0..=u8::MAX)
        .flat_map(|first| (0..=u8::MAX).flat_map(move |second| [first, second]))
        .chain([0, b'\r', b'\n', 0x1b, 0xff])
        .collect();
    let sample = home.write("odd $(sample) 'ü\".bin", &bytes);
    let outcome = run(
        &home,
        &run_file,
        [
            "--sample".as_ref(),
            sample.as_os_str(),
            "--command".as_ref(),
            "cat {sample}".as_ref(),
        ],
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert!(
        content(&outcome, "/sample_result/stdout") == bytes,
        "the bytes differ"
    );
}

/// A domain as a user has it: comments, another program's metadata, a cdrom before the disk.
const DOMAIN: &str = "\
<?xml version='1.0'?>
<!-- exported from somewhere -->
<domain type='qemu' xmlns:corp='http://corp.example/ns'>
  <name>analyst-vm</name>
  <metadata>
    <corp:owner xmlns:corp='http://corp.example/ns' team='red &amp; blue'>x</corp:owner>
  </metadata>
  <memory unit='MiB'>160</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  <devices>
    <!-- the tools come first -->
    <disk type='file' device='cdrom'>
      <target dev='hda' bus='ide'/>
      <readonly/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/somewhere/else.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <video><model type='vga'/></video>
    <memballoon model='none'/>
  </devices>
</domain>
";

fn own_domain(home: &Home) -> PathBuf {
    home.write("domain.xml", DOMAIN);
    home.run_file(json!({
        "domain": { "configuration": "domain.xml" },
        "disk": { "image": guest("guest.qcow2") },
    }))
}

#[test]
fn a_domain_of_the_users_own_boots_from_its_disk() {
    let home = Home::new();
    let run_file = own_domain(&home);
    let outcome = run(
        &home,
        &run_file,
        [
            "--command",
            "grep -c . /proc/partitions; grep MemTotal /proc/meminfo",
        ],
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let stdout = content(&outcome, "/sample_result/stdout");
    let stdout = String::from_utf8_lossy(&stdout);
    let memory: u64 = stdout
        .split_whitespace()
        .rev()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no memory in {stdout:?}"));
    // It has the memory of that domain, and not the 256 MiB of the built-in one.
    assert!(memory < 160 << 10, "{stdout}");
    let kept = std::fs::read_to_string(home.path("domain.xml")).expect("it is still there");
    assert_eq!(kept, DOMAIN);
}

#[test]
fn a_domain_of_the_users_own_gets_the_image_on_its_disk_and_keeps_the_rest() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let watched = lab.allocate(&own_domain(&home)).await.expect("a sandbox");
        let identifier = watched.identifier();
        let sandbox = watched.environment.sandbox();
        let native = sandbox
            .native()
            .and_then(|native| native.downcast_ref::<Native>())
            .expect("a libvirt domain");
        let xml = native.domain.xml().await.expect("it is defined");
        let (cdrom, rest) = xml.split_once("</disk>").expect("two disks");
        let (disk, _) = rest.split_once("</disk>").expect("two disks");
        assert!(cdrom.contains("device='cdrom'"), "{xml}");
        assert!(!cdrom.contains(".qcow2"), "the cdrom got an image: {xml}");
        assert!(disk.contains("device='disk'"), "{xml}");
        assert!(disk.contains("disk.qcow2"), "{xml}");
        assert!(!xml.contains("/somewhere/else.img"), "{xml}");
        assert!(xml.contains("http://corp.example/ns"), "{xml}");
        assert!(xml.contains("red &amp; blue"), "{xml}");
        assert!(xml.contains(&format!("<name>{identifier}</name>")), "{xml}");
        watched.end().await;
        lab.finish().await;
        assert_nothing_remains(&identifier);
    });
}

#[test]
fn a_full_clone_has_no_backing_file_and_boots() {
    runtime().block_on(async {
        let home = Home::new();
        let pool = home.path("pool");
        std::fs::create_dir(&pool).expect("the home is writable");
        let run_file = home.run_file(json!({
            "disk": {
                "image": guest("guest.qcow2"),
                "clone": { "copy_on_write": false, "storage_pool_path": "pool" },
            },
        }));
        let lab = Lab::new(&home);
        let mut watched = lab.allocate(&run_file).await.expect("a sandbox");
        // python-see's name for the folder.
        let folder = pool.join(watched.identifier());
        let disk = folder.join("disk.qcow2");
        let shown = Command::new("qemu-img")
            .args(["info", "--output=json"])
            .arg(&disk)
            .output()
            .expect("qemu-img is installed");
        let shown: serde_json::Value =
            serde_json::from_slice(&shown.stdout).expect("qemu-img prints JSON");
        assert_eq!(shown["format"], json!("qcow2"), "{shown:#}");
        assert_eq!(shown.get("backing-filename"), None, "{shown:#}");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        let (code, output) = watched.command("cat /etc/see-variant", CALL).await;
        assert_eq!((code, output.trim()), (Some(0), "plain"));
        let identifier = watched.identifier();
        watched.end().await;
        lab.finish().await;
        assert!(!folder.exists(), "the disk is left");
        assert!(pool.is_dir(), "the user's own folder went with it");
        assert_nothing_remains(&identifier);
    });
}

#[test]
fn two_runs_at_once_do_not_disturb_each_other() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    // Each writes what the other must not see, and looks for it after a while in which both run.
    let script = |mine: &str| {
        format!("echo {mine} >>/root/mark; sync; sleep 2; cat /root/mark; ls /root/samples | wc -l")
    };
    let scripts = ["one", "two"].map(script);
    let children: Vec<_> = scripts
        .iter()
        .map(|script| {
            spawn(&mut command(
                &home,
                &run_file,
                ["--command", script.as_str()],
            ))
        })
        .collect();
    let outcomes: Vec<Outcome> = children
        .into_iter()
        .map(|child| finish(child, RUN))
        .collect();
    for (outcome, mine) in outcomes.iter().zip(["one", "two"]) {
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        let stdout = content(outcome, "/sample_result/stdout");
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        assert_eq!(stdout.lines().next(), Some(mine), "{stdout}");
    }
    let identifiers: Vec<String> = outcomes
        .iter()
        .map(|outcome| text(outcome, "/identifier"))
        .collect();
    assert_ne!(identifiers[0], identifiers[1]);
    for identifier in identifiers {
        assert_clean(&home, &identifier);
    }
}

#[test]
fn a_guest_whose_agent_never_answers_fails_the_run_and_names_the_cause() {
    let home = Home::new();
    let run_file = home.write(
        "run.json",
        json!({
            "version": 1,
            "context": { "disk": { "image": guest("guest-mute.qcow2") } },
            "hooks": { "hooks": [
                { "name": "commands", "configuration": { "ready_timeout": "20s" } },
            ] },
            "protocol": [
                { "step": "poweron" },
                { "step": "wait", "for": "ready", "timeout": "21s" },
            ],
        })
        .to_string(),
    );
    let outcome = run(&home, &run_file, ["--command", "true"]);
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let failure = text(&outcome, "/failure");
    assert!(failure.contains("ready"), "{failure}");
    let events = outcome.events("not_ready");
    let causes: Vec<&serde_json::Value> = events
        .iter()
        .map(|event| &event["attributes"]["cause"])
        .collect();
    assert_eq!(causes, [&json!("no_agent")], "{outcome:#?}");
    assert_clean(&home, &text(&outcome, "/identifier"));
}

/// A hook that cannot be attached.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Hook for Broken {
    const NAME: &'static str = "broken";
    type Configuration = see_core::config::Configuration;

    async fn attach(_: Self::Configuration, _: &Context) -> see_core::Result<Self> {
        Err(Error::new(ErrorKind::Hook, "the tool it needs is missing"))
    }
}

fn with_a_broken_hook(home: &Home, required: bool) -> PathBuf {
    home.write(
        "run.json",
        json!({
            "version": 1,
            "context": Home::embedded(),
            "hooks": { "hooks": [{ "name": "commands" }, { "name": "broken", "required": required }] },
        })
        .to_string(),
    )
}

#[test]
fn a_required_hook_that_cannot_be_attached_undoes_the_sandbox() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::with(&home, |registries| registries.hooks.add::<Broken>());
        let identifier = Identifier::random();
        let error = lab
            .allocate_as(&with_a_broken_hook(&home, true), identifier)
            .await
            .expect_err("the hook is required");
        assert!(
            error.chain().contains("the tool it needs is missing"),
            "{error}"
        );
        assert!(error.chain().contains("broken"), "{error}");
        lab.finish().await;
        assert_eq!(home.recorded(), Vec::<String>::new());
        assert_nothing_remains(&identifier.to_string());
    });
}

#[test]
fn a_hook_that_is_not_required_may_fail() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::with(&home, |registries| registries.hooks.add::<Broken>());
        let watched = lab
            .allocate(&with_a_broken_hook(&home, false))
            .await
            .expect("the hook is not required");
        watched.end().await;
        lab.finish().await;
    });
}

#[test]
fn a_suspended_guest_stands_still_and_goes_on_where_it_stood() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let mut watched = lab
            .allocate(&home.run_file(Home::embedded()))
            .await
            .expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        let (code, _) = watched.command("echo here >/tmp/mark", CALL).await;
        assert_eq!(code, Some(0));

        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.pause().await.expect("it is suspended");
        let sandbox = turn.sandbox().clone();
        assert_eq!(
            sandbox.state().await.expect("a state"),
            SandboxState::Paused
        );
        let refused = turn.pause().await.expect_err("it stands already");
        assert_eq!(refused.kind(), ErrorKind::IllegalTransition);
        let first = picture(&sandbox).await;
        let second = picture(&sandbox).await;
        assert!(first == second, "a suspended screen changed");
        turn.resume().await.expect("it goes on");
        assert_eq!(
            sandbox.state().await.expect("a state"),
            SandboxState::Running
        );
        drop(turn);

        let (code, output) = watched.command("cat /tmp/mark", CALL).await;
        assert_eq!((code, output.trim()), (Some(0), "here"));
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweroff().await.expect("its power is cut");
        drop(turn);
        assert_eq!(
            sandbox.state().await.expect("a state"),
            SandboxState::Shutoff
        );
        let power: Vec<String> = watched
            .names()
            .into_iter()
            .filter(|name| name.starts_with("pre_") || name.starts_with("post_"))
            .collect();
        assert_eq!(
            power,
            [
                "pre_poweron",
                "post_poweron",
                "pre_pause",
                "post_pause",
                "pre_resume",
                "post_resume",
                "pre_poweroff",
                "post_poweroff"
            ]
        );
        assert_eq!(watched.all("guest_poweroff").len(), 0);
        drop(sandbox);
        watched.end().await;
        lab.finish().await;
    });
}

async fn picture(sandbox: &std::sync::Arc<dyn see_core::Sandbox>) -> Vec<u8> {
    let screen = sandbox.screenshot().expect("it has a screen");
    screen.take().await.expect("a picture").bytes
}

#[test]
fn a_guest_that_switches_itself_off_is_told() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let mut watched = lab
            .allocate(&home.run_file(Home::embedded()))
            .await
            .expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        watched
            .trigger(Event::new("run_command").with("command", "poweroff"))
            .await;
        watched.event("guest_poweroff", 0, BOOT).await;
        let state = watched
            .environment
            .sandbox()
            .state()
            .await
            .expect("a state");
        assert_eq!(state, SandboxState::Shutoff);
        // A machine that is off can be started again.
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts again");
        drop(turn);
        watched.event("ready", 1, BOOT).await;
        let identifier = watched.identifier();
        watched.end().await;
        lab.finish().await;
        assert_nothing_remains(&identifier);
    });
}

#[test]
fn a_run_whose_guest_switches_itself_off_ends_at_once_and_says_so() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    let outcome = run(
        &home,
        &run_file,
        ["--command", "poweroff -f; sleep 1000", "--runtime", "100s"],
    );
    assert_eq!(told(&outcome, "/sample_result/agent_lost"), json!(true));
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    let failure = text(&outcome, "/failure");
    assert!(failure.contains("shut"), "{failure}");
    let seconds = told(&outcome, "/seconds").as_f64().expect("a number");
    assert!(
        seconds < 90.0,
        "it waited for the sample's deadline: {seconds}"
    );
    assert_clean(&home, &text(&outcome, "/identifier"));
}

#[test]
fn a_guest_that_is_restarted_becomes_ready_again() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let mut watched = lab
            .allocate(&home.run_file(Home::embedded()))
            .await
            .expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        // What is in memory goes with the restart.
        let (code, _) = watched.command("echo here >/tmp/mark", CALL).await;
        assert_eq!(code, Some(0));
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.restart().await.expect("it is asked");
        drop(turn);
        watched.event("ready", 1, BOOT).await;
        let (code, output) = watched
            .command("test -e /tmp/mark && echo same || echo fresh", CALL)
            .await;
        assert_eq!((code, output.trim()), (Some(0), "fresh"));
        assert_eq!(
            watched.all("guest_reboot").len(),
            0,
            "it was the host's wish"
        );
        watched.end().await;
        lab.finish().await;
    });
}

#[test]
fn a_guest_that_restarts_by_itself_is_told() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let mut watched = lab
            .allocate(&home.run_file(Home::embedded()))
            .await
            .expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        watched
            .trigger(Event::new("run_command").with("command", "reboot -f"))
            .await;
        watched.event("guest_reboot", 0, BOOT).await;
        assert_eq!(watched.all("guest_poweroff").len(), 0);
        let finished = watched.event("command_finished", 0, BOOT).await;
        assert_eq!(
            finished.get("agent_lost").and_then(Value::as_bool),
            Some(true),
            "{finished:?}"
        );
        watched.end().await;
        lab.finish().await;
    });
}
