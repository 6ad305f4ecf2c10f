//! A hypervisor on another host: over SSH, TCP and TLS, to a daemon that shares no file and no network with this one.

mod connections;
mod refusals;
mod transfer;
mod uploads;

use std::process::Command;
use std::time::{Duration, Instant};

use see_core::ErrorKind;
use see_tests::{
    DaemonOptions, Home, Lab, Live, Outcome, Picture, PrivateDaemon, Transport, finish, spawn,
    until,
};
use serde_json::{Value, json};

/// The longest wait for anything that a run does; the guest boots emulated, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// The documented exit codes.
const OK: Option<i32> = Some(0);
const SANDBOX_FAILED: Option<i32> = Some(4);
const CONFIGURATION: Option<i32> = Some(2);

/// Where images lie on the other host unless the configuration says otherwise.
const IMAGES: &str = "/var/lib/libvirt/images";

fn other_host(transport: Transport) -> PrivateDaemon {
    let options = DaemonOptions {
        transports: vec![transport],
        apart: true,
        ..DaemonOptions::default()
    };
    PrivateDaemon::with(&options)
}

fn context(home: &Home, uri: &str) -> Value {
    json!({
        "acceleration": "tcg",
        "hypervisor": uri,
        "memory": "128MiB",
        "disk": { "image": home.guest("guest.qcow2") },
    })
}

/// The default protocol, but for a wait for the address that the other host's network gives.
fn write_run(home: &Home, context: &Value) -> std::path::PathBuf {
    let run = json!({
        "version": 1,
        "context": context,
        "hooks": { "hooks": [
            { "name": "commands" },
            { "name": "screen", "configuration": { "screenshot_on_event": ["snapshots_capture"] } },
        ] },
        "protocol": [
            { "step": "poweron" },
            { "step": "wait", "for": "ip_address", "timeout": "120s" },
            { "step": "wait", "for": "ready", "timeout": "120s" },
            { "step": "trigger", "event": "run_sample",
              "attributes": { "sample": "${sample}", "command": "${command}" } },
            { "step": "wait", "for": "sample_finished", "timeout": "120s" },
            { "step": "pause" },
            { "step": "trigger", "event": "snapshots_capture" },
            { "step": "resume" },
            { "step": "shutdown", "timeout": "60s" },
        ],
    });
    home.write("run.json", run.to_string())
}

fn run_command(home: &Home, run_file: &std::path::Path, sample: &str, command: &str) -> Command {
    let mut seectl = home.seectl();
    seectl
        .args(["run", "--output", "json"])
        .arg(run_file)
        .args(["--sample", sample, "--command", command]);
    seectl
}

fn told(outcome: &Outcome, pointer: &str) -> Value {
    let result = outcome.result();
    let found = result.pointer(&format!("/result{pointer}"));
    found
        .unwrap_or_else(|| panic!("no {pointer} in {result:#}"))
        .clone()
}

/// Everything that a sandbox could have left on the other host.
fn left_there(daemon: &PrivateDaemon) -> Vec<String> {
    let mut found = daemon.objects("");
    let folders = [
        IMAGES,
        "/var/lib/libvirt/qemu/channel/target",
        "/etc/libvirt/qemu",
        "/etc/libvirt/storage",
        "/tmp",
        "/var/tmp",
    ];
    for folder in folders {
        let listed = daemon
            .inside("find")
            .args([folder, "-not", "-type", "d"])
            .output();
        let listed = listed.expect("find is installed").stdout;
        found.extend(String::from_utf8_lossy(&listed).lines().map(str::to_owned));
    }
    let folders = daemon
        .inside("find")
        .args([IMAGES, "-mindepth", "1"])
        .output();
    let folders = folders.expect("find is installed").stdout;
    found.extend(String::from_utf8_lossy(&folders).lines().map(str::to_owned));
    for (_, line) in daemon.processes() {
        if line.contains("qemu-system") || line.contains("dnsmasq") {
            found.push(line);
        }
    }
    found
}

/// The storage pools that run there.
fn running_pools(daemon: &PrivateDaemon) -> String {
    let uri = "qemu+unix:///system?socket=/run/libvirt/libvirt-sock";
    daemon.told("virsh", &["-q", "-c", uri, "pool-list", "--name"])
}

fn assert_nothing_left(daemon: &PrivateDaemon, when: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let left = left_there(daemon);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{when}: {left:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_sample_runs_on_another_host_over_ssh_and_its_results_come_here() {
    run_a_sample_over(Transport::Ssh);
}

#[test]
fn a_sample_runs_on_another_host_over_tcp_and_its_results_come_here() {
    run_a_sample_over(Transport::Tcp);
}

#[test]
fn a_sample_runs_on_another_host_over_tls_and_its_results_come_here() {
    run_a_sample_over(Transport::Tls);
}

fn run_a_sample_over(transport: Transport) {
    let daemon = other_host(transport);
    let before = left_there(&daemon);
    assert_eq!(before, Vec::<String>::new());
    let home = Home::new();
    let mut context = context(&home, &daemon.remote_uri(transport));
    context["network"] =
        json!({ "dynamic_address": { "ipv4": "10.77.0.0", "prefix": 16, "subnet_prefix": 24 } });
    let run_file = write_run(&home, &context);
    // More than what one message of libvirt, or one buffer on the way, holds; and no two parts alike.
    let sample: String = (0..150_000).map(|number| format!("{number:x}\n")).collect();
    let sample = home.write("sample.txt", sample);
    let sums = Command::new("md5sum")
        .arg(&sample)
        .output()
        .expect("it is installed");
    let sum = String::from_utf8_lossy(&sums.stdout)[..32].to_owned();

    let command = "md5sum {sample}; cat {sample}; ip -4 addr show eth0";
    let sample_path = sample.to_str().expect("it is UTF-8");
    let mut seectl = run_command(&home, &run_file, sample_path, command);
    let outcome = finish(spawn(&mut seectl), PATIENCE);
    assert_eq!(outcome.code, OK, "{outcome:#?}");
    let output = std::fs::read_to_string(
        told(&outcome, "/sample_result/stdout")
            .as_str()
            .expect("a path"),
    )
    .expect("the output is here");
    let (first, rest) = output.split_once('\n').expect("lines");
    assert!(first.starts_with(&sum), "{first}");
    let sent = std::fs::read_to_string(&sample).expect("it is ours");
    assert!(
        rest.starts_with(&sent),
        "{} of {} bytes",
        rest.len(),
        sent.len()
    );
    assert!(rest.contains("inet 10.77."), "{}", &rest[sent.len()..]);
    let results = std::path::PathBuf::from(told(&outcome, "/results").as_str().expect("a path"));
    let identifier = told(&outcome, "/identifier");
    let identifier = identifier.as_str().expect("a text");
    let picture = Picture::read(&results.join(format!("{identifier}_snapshots_capture.png")));
    assert!(picture.colours > 1, "{picture:?}");

    assert_eq!(told(&outcome, "/teardown_errors"), json!([]));
    assert_eq!(told(&outcome, "/left_behind"), json!([]));
    assert_eq!(home.recorded(), Vec::<String>::new());
    assert_nothing_left(&daemon, "after the run");
}

#[test]
fn a_killed_run_on_another_host_is_collected_from_here() {
    let mut daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let run_file = home.run_file(context(&home, &daemon.remote_uri(Transport::Tcp)));
    let sample = home.write("sample.sh", "echo here; sleep 600\n");
    let sample = sample.to_str().expect("it is UTF-8").to_owned();

    // As soon as its pool is there, and once more with a restart of the daemon, which forgets which pools ran;
    // then as soon as the machine runs.
    for when in ["the pool", "the pool, restarted", "the machine"] {
        let mut live = Live::start(&mut run_command(&home, &run_file, &sample, "sh {sample}"));
        until(when, PATIENCE, || {
            assert!(live.runs(), "{}", live.stderr());
            if when == "the machine" {
                let mut processes = daemon.processes().into_iter();
                processes
                    .any(|(_, line)| line.contains("qemu-system") && line.contains("disk.qcow2"))
            } else {
                let pools = ["/etc/libvirt", "-path", "*/storage/*.xml"];
                daemon.told("find", &pools).contains(".xml")
            }
        });
        live.kill();
        let [identifier] = &home.recorded()[..] else {
            panic!("one record: {:?}", home.recorded());
        };
        if when.ends_with("restarted") {
            daemon.kill();
            daemon.restart();
            let before = running_pools(&daemon);
            let dry = home.run(["gc", "--dry-run", identifier], PATIENCE);
            assert_eq!(dry.code, OK, "{dry:#?}");
            assert_eq!(running_pools(&daemon), before, "a dry run started a pool");
        }
        let gc = home.run(["gc", identifier], PATIENCE);
        assert_eq!(gc.code, OK, "{when}: {gc:#?}");
        assert_eq!(home.recorded(), Vec::<String>::new(), "{when}: {gc:#?}");
        assert_nothing_left(&daemon, when);
    }
}

#[test]
fn a_folder_on_another_host_that_holds_something_stops_the_allocation_and_stays() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let run_file = home.run_file(context(&home, &daemon.remote_uri(Transport::Tcp)));
    let identifier = see_core::Identifier::random();
    let folder = format!("{IMAGES}/see-{identifier}");
    let file = format!("{folder}/thesis");
    daemon.told("mkdir", &["-p", &folder]);
    daemon.told("cp", &["/etc/hostname", &file]);
    let before = left_there(&daemon);
    let runtime = tokio::runtime::Runtime::new().expect("there are threads");
    let refused = runtime.block_on(async {
        let lab = Lab::new(&home);
        let refused = lab.allocate_as(&run_file, identifier).await;
        lab.finish().await;
        refused.expect_err("the folder is somebody else's")
    });
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused:?}");
    assert_eq!(left_there(&daemon), before);
    assert_eq!(home.recorded(), Vec::<String>::new());
}

#[test]
fn a_guest_that_fills_its_disk_on_another_host_reaches_the_limit_of_the_disk() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let mut context = context(&home, &daemon.remote_uri(Transport::Tcp));
    context["limits"] = json!({ "disk": "8MiB" });
    let run_file = home.run_file(context);
    let sample = "dd if=/dev/urandom of=/large bs=64k count=512; sync; sleep 600";
    let sample = home.write("sample.sh", sample);
    let sample = sample.to_str().expect("it is UTF-8");
    let outcome = finish(
        spawn(&mut run_command(&home, &run_file, sample, "sh {sample}")),
        PATIENCE,
    );
    assert_eq!(outcome.code, SANDBOX_FAILED, "{outcome:#?}");
    let failure = told(&outcome, "/failure").to_string();
    assert!(failure.contains("context.limits.disk"), "{outcome:#?}");
    assert_eq!(told(&outcome, "/left_behind"), json!([]));
    assert_nothing_left(&daemon, "after the limit");
}
