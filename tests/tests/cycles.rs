//! Environments in a row in one process: nothing piles up.
//!
//! `SEE_CAMPAIGN_COUNT` says how many. Most of them start a machine and end it at once; each twentieth boots, runs
//! a sample, takes pictures, and shuts down.

#![expect(clippy::print_stdout, reason = "a campaign reads the counts")]

use std::path::Path;
use std::time::Duration;

use see_core::config::{Configuration, RunFile};
use see_core::ledger::Ledger;
use see_core::{AllocateOptions, Environment, Host, Protocol, Registries, RunLimits, Stop};
use see_tests::{Home, assert_nothing_remains};
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
/// Threads that wait for blocking work come and go with the load.
const IDLE: usize = 4;

/// What of the process grows when something is not given back.
#[derive(Debug, Clone, Copy)]
struct Usage {
    files: usize,
    threads: usize,
    memory: u64,
}

#[test]
fn environments_in_a_row_leave_nothing_in_the_process_or_on_the_host() {
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
        let mut warm = None;
        let mut middle: Option<(u64, Usage)> = None;
        for cycle in 1..=cycles {
            // The first of all boots, so that what comes with it is warm.
            one(&host, &home, &file, cycle, cycle % BOOT == 1).await;
            let usage = usage();
            println!("cycle {cycle}: {usage:?}");
            if cycle == WARM {
                warm = Some(usage);
            }
            if let Some(warm) = warm {
                assert!(usage.files <= warm.files, "{usage:?}, at first {warm:?}");
                assert!(
                    usage.threads <= warm.threads + IDLE,
                    "{usage:?}, at first {warm:?}"
                );
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
        host.finish(LIMIT).await.expect("nothing is left");
        let (first, half) = (warm.expect("warm"), middle.expect("halfway").1);
        println!(
            "\ncycles: {cycles}, memory when warm {}, halfway {}, at the end {} KiB",
            first.memory >> 10,
            half.memory >> 10,
            usage().memory >> 10
        );
    });
}

/// An environment with results of its own, which are no matter here.
async fn allocate(host: &Host, home: &Home, file: &Path, results: &str) -> Environment {
    let text = std::fs::read_to_string(file).expect("it was written");
    let whole = Configuration::from_str(file, &text).expect("it is JSON");
    let mut json: Value = whole.to_json();
    let results = home.path("results").join(results);
    json["hooks"]["configuration"]["results_folder"] = json!(results);
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
        let sample = report.sample.expect("the sample ended");
        assert_eq!(sample.get("exit_code"), Some(&3.into()), "{sample:?}");
    }
    tear_down(environment).await;
}

/// What this process uses now, once what ended is gone.
fn usage() -> Usage {
    let count = |folder: &str| std::fs::read_dir(folder).expect("/proc is there").count();
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .expect("the kernel counts memory");
    Usage {
        files: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
        memory: resident << 10,
    }
}
