//! Runs of `seectl`, and what they tell.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use see_tests::{Home, Outcome, assert_nothing_remains, finish, spawn};

/// The longest that a run of a small guest may take on a busy host.
pub(crate) const RUN: Duration = Duration::from_secs(180);
/// The longest that the guest may take to boot on a busy host.
pub(crate) const BOOT: Duration = Duration::from_secs(60);
/// The longest that a small command may take in the guest.
pub(crate) const CALL: Duration = Duration::from_secs(30);
/// The longest that an event may take which libvirt tells at once, on a busy host.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(30);
/// The longest that cutting the power may take past a hypervisor that hangs, on a busy host. Without overtaking,
/// it would wait for the call that hangs: a minute.
pub(crate) const HANGS: Duration = Duration::from_secs(25);
/// The documented exit code for a sample that failed.
pub(crate) const SAMPLE_FAILED: i32 = 1;
/// The documented exit code for a sandbox that failed.
pub(crate) const SANDBOX_FAILED: i32 = 4;

pub(crate) const SAMPLE: &str = "\
#!/bin/sh
echo to stdout
echo to stderr >&2
mkdir -p /root/made && echo written >/root/made/file
cat /root/made/file
exit 3
";

/// `seectl run --output json` with these arguments, and with sockets in a folder that only this home has.
pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(
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

pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(
    home: &Home,
    run_file: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    finish(spawn(&mut command(home, run_file, arguments)), RUN)
}

/// A run of the script above.
pub(crate) fn run_sample(home: &Home, run_file: &Path) -> Outcome {
    let sample = home.write("sample.sh", SAMPLE);
    let outcome = run(home, run_file, ["--sample".as_ref(), sample.as_os_str()]);
    assert_eq!(outcome.code, Some(SAMPLE_FAILED), "{outcome:#?}");
    outcome
}

/// What the result says, by a JSON pointer.
pub(crate) fn told(outcome: &Outcome, pointer: &str) -> serde_json::Value {
    let result = outcome.result();
    result
        .pointer(&format!("/result{pointer}"))
        .unwrap_or_else(|| panic!("no {pointer} in {result:#}"))
        .clone()
}

pub(crate) fn text(outcome: &Outcome, pointer: &str) -> String {
    let value = told(outcome, pointer);
    value
        .as_str()
        .unwrap_or_else(|| panic!("{pointer} is {value}"))
        .to_owned()
}

/// The file that the result names.
pub(crate) fn content(outcome: &Outcome, pointer: &str) -> Vec<u8> {
    let path = text(outcome, pointer);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails unless a run left its results and nothing else: no record, no process, no socket, no folder.
pub(crate) fn assert_clean(home: &Home, identifier: &str) {
    assert_eq!(home.listed(), Vec::<serde_json::Value>::new());
    assert_eq!(home.recorded(), Vec::<String>::new());
    let left: Vec<_> = std::fs::read_dir(home.runtime())
        .expect("the home is readable")
        .map(|entry| entry.expect("a folder can be read on").path())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "sockets or folders are left");
    assert_nothing_remains(identifier);
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("there are threads")
}
