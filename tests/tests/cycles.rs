//! Environments in a row in one process: nothing piles up.
//!
//! `SEE_CYCLES` says how many.

#![expect(clippy::print_stdout, reason = "a campaign reads the counts")]

use std::path::Path;
use std::time::Duration;

use see_core::config::{Configuration, RunFile};
use see_core::ledger::Ledger;
use see_core::{AllocateOptions, Host, Protocol, Registries, Stop};
use see_tests::{Home, assert_nothing_remains};
use serde_json::json;

/// The longest run of one environment.
const LIMIT: Duration = Duration::from_secs(180);
/// What the first environments may leave in this process: pools of threads and buffers, loaded drivers.
const WARM: u64 = 2;
/// What may still come later, in bytes: the allocator's own business.
const SLACK: u64 = 16 << 20;
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
    let cycles = ["SEE_CYCLES", "SEE_CAMPAIGN_COUNT"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .map_or(3, |text| text.parse().expect("a count of environments"));
    let cycles = WARM + u64::max(cycles, 1);
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
        let mut warm = None;
        for cycle in 1..=cycles {
            one(&host, &home, &file, cycle).await;
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
        }
        host.finish(LIMIT).await.expect("nothing is left");
    });
    println!("cycles: {cycles}");
}

/// A whole environment: allocated, its sample run, torn down.
async fn one(host: &Host, home: &Home, file: &Path, cycle: u64) {
    let text = std::fs::read_to_string(file).expect("it was written");
    let mut whole = Configuration::from_str(file, &text).expect("it is JSON");
    // Each has results of its own, which are no matter here.
    let results = home.path(&format!("results/{cycle}"));
    let shared = json!(results.to_str().expect("a plain path"));
    let steps = json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ready", "timeout": "120s" },
        { "step": "trigger", "event": "run_sample",
          "attributes": { "sample": home.path("sample.sh").to_str(), "command": "sh {sample}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "60s" },
        { "step": "pause" },
        { "step": "trigger", "event": "snapshots_capture" },
        { "step": "resume" },
        { "step": "shutdown", "timeout": "60s" },
    ]);
    let mut json: serde_json::Value = whole.to_json();
    json["hooks"]["configuration"]["results_folder"] = shared;
    json["protocol"] = steps;
    whole = Configuration::from_str(file, &json.to_string()).expect("it is JSON");
    let run = RunFile::read(&whole).expect("a run file");
    let protocol = Protocol::from_configuration(run.protocol.as_ref().expect("it has steps"))
        .expect("known steps");
    let prepared = host.prepare(&run.context, &run.hooks).await;
    let prepared = prepared.expect("a good configuration");
    let allocated = host
        .allocate(prepared, AllocateOptions::default(), Stop::new())
        .await;
    let mut environment = allocated.expect("an environment");
    let identifier = environment.identifier().to_string();
    let report = environment.run(&protocol, &see_core::RunLimits::time(LIMIT)).await.expect("a report");
    assert!(report.failure.is_none(), "{report:#?}");
    let sample = report.sample.expect("the sample ended");
    assert_eq!(sample.get("exit_code"), Some(&3.into()), "{sample:?}");
    let teardown = environment.deallocate().await;
    assert!(teardown.is_clean(), "{teardown:#?}");
    assert_nothing_remains(&identifier);
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
