//! Runs of `seectl` in file systems of their own.

use std::process::Command;
use std::time::Duration;

use see_tests::{Home, Outcome, assert_nothing_remains};
use serde_json::{Value, json};

/// The longest that a run of a small guest may take on a busy host.
pub(crate) const RUN: Duration = Duration::from_secs(180);
/// The documented exit code for a sandbox that failed.
pub(crate) const SANDBOX_FAILED: i32 = 4;

/// Writes a run file with this context, and a protocol where one is given.
pub(crate) fn write_run(home: &Home, context: &Value, protocol: Option<Value>) {
    let mut run = json!({
        "version": 1,
        "context": context,
        "hooks": {
            "configuration": { "results_folder": "results" },
            "hooks": [{ "name": "commands" }],
        },
    });
    if let Some(protocol) = protocol {
        run["protocol"] = protocol;
    }
    home.write("run.json", run.to_string());
}

/// A protocol for a busy host: the guest may take its time to boot, and runs a sample.
pub(crate) fn sampling() -> Value {
    json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ready", "timeout": "150s" },
        { "step": "trigger", "event": "run_sample",
          "attributes": { "sample": "${sample}", "command": "${command}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "150s" },
    ])
}

/// `seectl run run.json` with these arguments, after a shell prepared the mounts, which nobody else sees.
pub(crate) fn with_mounts(home: &Home, mounts: &str, arguments: &[&str]) -> Command {
    assert!(
        rustix::process::geteuid().is_root(),
        "the tests of file systems need root: run `sudo -E cargo xtask test`"
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec"])
        .arg(format!("{mounts}\nexec \"$0\" \"$@\""))
        .arg(see_tests::seectl())
        .args(["run", "--output", "json", "run.json"])
        .args(arguments);
    home.furnish(&mut command);
    command
}

/// What went wrong, by the result of a run; fails unless nothing of it is left.
pub(crate) fn failure(home: &Home, outcome: &Outcome) -> String {
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let result = outcome.result();
    let result = result.get("result").unwrap_or(&result).clone();
    let identifier = result["identifier"].as_str().expect("the run has one");
    assert_nothing_remains(identifier);
    assert_eq!(home.listed(), Vec::<Value>::new());
    result["failure"].to_string()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("there are threads")
}

/// What `virsh` prints of the system daemon.
pub(crate) fn virsh(words: &[&str]) -> String {
    see_tests::virsh("qemu:///system", words.iter().copied())
        .expect("`cargo xtask setup --daemon` starts libvirtd")
}
