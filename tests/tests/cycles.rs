//! Environments in a row in one process: nothing piles up.
//!
//! `SEE_CAMPAIGN_COUNT` says how many. Most of them start a machine and end it at once; each twentieth boots, runs
//! a sample, takes pictures, and shuts down. What libvirt itself keeps of a machine that came and went is measured
//! in the same process, by its bare calls.

#![expect(clippy::print_stdout, reason = "a campaign reads the counts")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use see_context::Native;
use see_core::config::{Configuration, RunFile};
use see_core::ledger::Ledger;
use see_core::{AllocateOptions, Environment, Host, Protocol, Registries, RunLimits, Stop};
use see_libvirt::Alive;
use see_tests::{Home, PrivateDaemon, assert_nothing_remains, finish, rounds, spawn, until};
use serde_json::{Value, json};

/// The longest run of one environment.
const LIMIT: Duration = Duration::from_secs(180);
/// How many cycles there are between two that boot.
const BOOT: u64 = 20;
/// What the first environments may leave in this process: pools of threads and buffers, loaded drivers.
const WARM: u64 = 4;
/// Environments without a start before them: more than libvirt lets a process open its embedded driver.
const UNSTARTED: u64 = 20;
/// What may still come after the first ones, in bytes: the allocator's own business. By `mallinfo2`, what is in use
/// stays near 2.6 MB, while what the arenas of the threads keep free for the next goes up to 12.5 MB.
const SLACK: u64 = 16 << 20;
/// What may come in the second half, in bytes for each cycle and once: a plateau, but for pages that the allocator
/// takes late.
const LATE: (u64, u64) = (8 << 10, 2 << 20);
/// What a cycle may leave beyond what bare calls of libvirt do, in bytes. They start the same domain and end it,
/// but boot no guest and write no record.
const OURS: u64 = 2 << 10;
/// The longest until libvirt's objects are given back, which happens beside what goes on.
const GIVEN_BACK: Duration = Duration::from_secs(20);
/// The threads of the runtimes of this test and of its host: workers, and those that wait for blocking work, which come
/// and go with the load.
const RUNTIMES: [&str; 2] = ["tokio-rt-worker", "see-host"];
/// The workers of both, which stay.
const WORKERS: usize = 4;
/// The longest until a runtime ends the threads that it has no work for, which is after 10 s.
const IDLE: Duration = Duration::from_secs(60);

/// What of the process grows when something is not given back.
#[derive(Debug, Clone, Copy)]
struct Usage {
    files: usize,
    /// Threads that belong to no runtime.
    threads: usize,
    /// Threads of the runtimes.
    pooled: usize,
    memory: u64,
    libvirt: Alive,
}

/// How many places glibc allocates from. By default each new thread may open one, with pages of its own, and
/// what is kept could not be told from that.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

#[test]
fn environments_in_a_row_leave_nothing_in_the_process_or_on_the_host() {
    let name = "environments_in_a_row_leave_nothing_in_the_process_or_on_the_host";
    if std::env::var(ARENAS.0).as_deref() == Ok(ARENAS.1) {
        return in_a_row();
    }
    let mut process = Command::new(std::env::current_exe().expect("a running test has a path"));
    process.args(["--exact", "--nocapture", name]);
    let done = process.env(ARENAS.0, ARENAS.1).output();
    let done = done.expect("it can be started");
    let said = String::from_utf8_lossy(&done.stdout);
    let complained = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success() && said.contains("1 passed"),
        "{said}\n{complained}"
    );
    for line in said.lines().filter(|line| line.contains("cycle")) {
        println!("{line}");
    }
}

#[test]
fn environments_of_a_daemon_in_a_row_leave_it_no_object_and_no_open_file() {
    let daemon = PrivateDaemon::start();
    let home = Home::passable();
    std::fs::create_dir(home.path("images")).expect("the home is writable");
    home.write("images/small.img", vec![1; 1 << 20]);
    // A domain and a network.
    let run = json!({
        "version": 1,
        "context": {
            "hypervisor": daemon.uri(),
            "memory": "32MiB",
            "network": { "dynamic_address": {
                "ipv4": "10.216.0.0", "prefix": 16, "subnet_prefix": 24 } },
            "disk": { "image": {
                "provider": "libvirt-pool",
                "name": "small.img",
                "provider_configuration": {
                    "storage_pool_path": home.path("images"),
                    "hypervisor": daemon.uri(),
                },
            } },
        },
        "hooks": { "hooks": [] },
        "protocol": [{ "step": "poweron" }],
    });
    home.write("run.json", run.to_string());
    let mut processes = daemon.processes().into_iter();
    let libvirtd = processes.find(|(_, line)| line.starts_with("libvirtd"));
    let (libvirtd, _) = libvirtd.expect("it runs");
    let files = || {
        let open = std::fs::read_dir(format!("/proc/{libvirtd}/fd"));
        open.expect("it runs, and root looks").count()
    };
    let cycles = WARM as usize + rounds(10);
    let mut warm = 0;
    for cycle in 1..=cycles {
        let mut command = home.seectl();
        command.args(["run", "run.json", "--output", "json"]);
        let outcome = finish(spawn(&mut daemon.beside(command)), LIMIT);
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        let left = [daemon.objects(""), daemon.traces()].concat();
        assert_eq!(left, Vec::<String>::new(), "cycle {cycle}");
        if cycle == WARM as usize {
            warm = files();
        }
        if cycle >= WARM as usize {
            // It closes what a client had a moment after the client.
            until("libvirtd's files to be closed", GIVEN_BACK, || {
                files() <= warm
            });
        }
    }
    println!(
        "\ncycles: {cycles} (of a daemon), its open files when warm {warm}, in the end {}",
        files()
    );
}

fn in_a_row() {
    let cycles = std::env::var("SEE_CAMPAIGN_COUNT")
        .map_or(10, |text| text.parse().expect("a count of environments"));
    let cycles = WARM + u64::max(cycles, 2);
    let home = Home::new();
    home.write("sample.sh", "echo begun; seq 1 10000; exit 3\n");
    let mut context = Home::embedded();
    context["memory"] = json!("128MiB");
    let file = home.run_file(context);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started");
    runtime.block_on(async {
        let mut registries = Registries::new();
        see_context::register(&mut registries).expect("names are free");
        see_hooks_std::register(&mut registries).expect("names are free");
        see_image_providers::register(&mut registries).expect("names are free");
        let ledger = Ledger::open(home.path("state")).await.expect("a ledger");
        let host = Host::new(registries, ledger).expect("a host");
        for cycle in 1..=UNSTARTED {
            let environment = allocate(&host, &home, &file, &format!("unstarted-{cycle}")).await;
            tear_down(environment).await;
        }
        println!("\nunstarted: {:?}", usage());
        let mut warm: Option<Usage> = None;
        let mut middle: Option<(u64, Usage)> = None;
        for cycle in 1..=cycles {
            // The first of all boots, so that what comes with it is warm.
            one(&host, &home, &file, cycle, cycle % BOOT == 1).await;
            if let Some(warm) = &warm {
                until("libvirt's objects and threads to be given back", GIVEN_BACK, || {
                    let usage = usage();
                    usage.libvirt == warm.libvirt && usage.threads <= warm.threads
                });
            }
            let usage = usage();
            println!("cycle {cycle}: {usage:?}");
            if cycle == WARM {
                // The connection, its callbacks, and nothing of an environment.
                assert_eq!((usage.libvirt.references, usage.libvirt.watches), (1, 0));
                warm = Some(usage);
            }
            if let Some(warm) = warm {
                assert!(usage.files <= warm.files, "{usage:?}, at first {warm:?}");
                assert!(
                    usage.memory <= warm.memory + SLACK,
                    "{usage:?}, at first {warm:?}"
                );
            }
            if cycle == WARM + (cycles - WARM) / 2 {
                middle = Some((cycle, usage));
            }
            if let Some((since, middle)) = middle {
                let late = LATE.0 * (cycle - since) + LATE.1;
                assert!(
                    usage.memory <= middle.memory + late,
                    "{usage:?}, halfway {middle:?}"
                );
            }
        }
        until("the runtimes' idle threads to end", IDLE, || {
            usage().pooled <= WORKERS
        });
        let (since, middle) = middle.expect("halfway");
        let own = usage().memory.saturating_sub(middle.memory);
        let bare = bare(&host, &home, &file, cycles - since).await;
        assert!(
            own <= bare + OURS * (cycles - since) + LATE.1,
            "{own} bytes in {} cycles, bare calls of libvirt {bare}",
            cycles - since
        );
        host.finish(LIMIT).await.expect("nothing is left");
        println!(
            "\ncycles: {cycles}, memory when warm {}, halfway {}, since then {} KiB, of which as many machines by \
             bare calls leave {}",
            warm.expect("warm").memory >> 10,
            middle.memory >> 10,
            own >> 10,
            bare >> 10
        );
    });
}

/// Starts and ends so many machines of libvirt by bare calls; by how much this process grew.
async fn bare(host: &Host, home: &Home, file: &Path, count: u64) -> u64 {
    // It holds the root of the driver, and the files that the domain names.
    let environment = allocate(host, home, file, "bare").await;
    let machine = environment.machine().clone();
    let native = machine.native().and_then(|native| native.downcast_ref());
    let native: &Native = native.expect("a libvirt domain");
    let xml = native.domain.xml().await.expect("it is defined");
    let own = environment.identifier().to_string();
    let before = usage().memory;
    for _ in 0..count {
        let other = see_core::Identifier::random().to_string();
        let mut xml = xml.clone();
        for tag in ["name", "uuid"] {
            let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
            let from = xml.find(&begin).expect("it has one") + begin.len();
            let to = from + xml[from..].find(&end).expect("it ends");
            let text = xml[from..to].replace(&own, &other);
            xml.replace_range(from..to, &text);
        }
        let domain = native.connection.define_domain(&xml).await;
        let domain = domain.expect("the same as the environment's");
        let started = domain.start().await;
        started.expect("it starts");
        domain.destroy().await.expect("it ends");
        domain.undefine().await.expect("it is defined");
    }
    let grown = usage().memory.saturating_sub(before);
    drop(machine);
    tear_down(environment).await;
    grown
}

/// An environment with results of its own, which are no matter here.
async fn allocate(host: &Host, home: &Home, file: &Path, results: &str) -> Environment {
    let text = std::fs::read_to_string(file).expect("it was written");
    let whole = Configuration::from_str(file, &text).expect("it is JSON");
    let mut json: Value = whole.to_json();
    let results = home.path("results").join(results);
    json["hooks"]["configuration"]["results_folder"] = json!(results);
    // As long as the step that waits for it: a busy host boots slowly.
    json["hooks"]["configuration"]["ready_timeout"] = json!("120s");
    let whole = Configuration::from_str(file, &json.to_string()).expect("it is JSON");
    let run = RunFile::read(&whole).expect("a run file");
    let prepared = host.prepare(&run.context, &run.hooks).await;
    let prepared = prepared.expect("a good configuration");
    let allocated = host
        .allocate(prepared, AllocateOptions::default(), Stop::new())
        .await;
    allocated.expect("an environment")
}

async fn tear_down(environment: Environment) {
    let identifier = environment.identifier().to_string();
    let teardown = environment.deallocate().await;
    assert!(teardown.is_clean(), "{teardown:#?}");
    assert_nothing_remains(&identifier);
}

/// A whole environment: allocated, started, torn down; where it boots, its sample is run in between.
async fn one(host: &Host, home: &Home, file: &Path, cycle: u64, boots: bool) {
    let steps = match boots {
        false => json!([{ "step": "poweron" }, { "step": "poweroff" }]),
        true => json!([
            { "step": "poweron" },
            { "step": "wait", "for": "ready", "timeout": "120s" },
            { "step": "trigger", "event": "run_sample",
              "attributes": { "sample": home.path("sample.sh").to_str(), "command": "sh {sample}" } },
            { "step": "wait", "for": "sample_finished", "timeout": "60s" },
            { "step": "pause" },
            { "step": "trigger", "event": "snapshots_capture" },
            { "step": "resume" },
            { "step": "shutdown", "timeout": "60s" },
        ]),
    };
    let protocol = Protocol::from_configuration(&Configuration::from_json(steps));
    let protocol = protocol.expect("known steps");
    let mut environment = allocate(host, home, file, &cycle.to_string()).await;
    let limits = RunLimits::time(LIMIT);
    let report = environment.run(&protocol, &limits).await;
    let report = report.expect("a report");
    assert!(report.failure.is_none(), "{report:#?}");
    if boots {
        let sample = report.samples.last().expect("the sample ended");
        assert_eq!(sample.get("exit_code"), Some(&3.into()), "{sample:?}");
    }
    tear_down(environment).await;
}

/// What this process uses now, once what ended is gone.
fn usage() -> Usage {
    let entries = |folder: &str| std::fs::read_dir(folder).expect("/proc is there").flatten();
    // One that ended meanwhile has no name.
    let threads: Vec<String> = entries("/proc/self/task")
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok())
        .collect();
    let of_runtime = |name: &&String| RUNTIMES.contains(&name.trim_end());
    let pooled = threads.iter().filter(of_runtime).count();
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .expect("the kernel counts memory");
    Usage {
        files: entries("/proc/self/fd").count(),
        threads: threads.len() - pooled,
        pooled,
        memory: resident << 10,
        libvirt: see_libvirt::alive(),
    }
}
