//! Samples that fight back: the run ends in time, with what was gathered, says how it ended, and leaves nothing.
//!
//! Each has one processor and uses it up; some only wait for the host to lose patience, and leave theirs to others.

use std::path::PathBuf;
use std::time::Duration;

use see_core::Protocol;
use see_tests::{Home, Live, Outcome, assert_nothing_remains};
use serde_json::{Value, json};

/// The longest boot, emulated on a busy machine, with all that comes before and after the sample: also a guest
/// that is too busy to switch itself off.
const AROUND: Duration = Duration::from_secs(180);
/// How long samples may run that do not end.
const RUNTIME: Duration = Duration::from_secs(4);

/// What an agent that does not react gets beyond the sample's time before it counts as lost.
const GRACE: Duration = Duration::from_secs(50);

/// The exit codes that `seectl --help` documents.
const OK: Option<i32> = Some(0);
const SAMPLE_FAILED: Option<i32> = Some(1);
const SAMPLE_UNFINISHED: Option<i32> = Some(3);

/// A finished run of a sample.
struct Ran {
    home: Home,
    outcome: Outcome,
    result: Value,
    /// The most memory that `seectl` had, in bytes.
    memory: u64,
}

#[test]
fn a_sample_that_never_ends_is_ended_at_its_deadline() {
    let ran = run("echo begun; while :; do :; done", RUNTIME);
    ran.assert_ended(SAMPLE_UNFINISHED, "sample_unfinished");
    ran.assert_in_time(RUNTIME);
    ran.assert_timed_out();
    assert_eq!(ran.printed(), b"begun\n");
}

#[test]
fn a_sample_that_prints_for_ever_fills_neither_memory_nor_disk() {
    // No more than an emulated guest prints in that time. The usual limit is met by the gibibyte below.
    let ran = run_keeping("1MiB", "echo begun; yes 0123456789abcdef", RUNTIME);
    ran.assert_ended(SAMPLE_UNFINISHED, "sample_unfinished");
    ran.assert_in_time(RUNTIME);
    ran.assert_timed_out();
    assert_eq!(ran.result["sample_result"]["truncated"], true);
    assert!(ran.printed().starts_with(b"begun\n0123456789abcdef\n"));
    assert_eq!(ran.printed().len(), 1 << 20);
    ran.assert_bounded();
}

#[test]
fn a_gibibyte_of_output_is_cut_and_the_result_says_so() {
    let time = Duration::from_secs(240);
    // Zeros after the first mebibyte: an emulated guest writes them faster than a pattern.
    let sample = "echo begun; yes 0123456789abcdef | head -c 1048576; \
                  dd if=/dev/zero bs=1M count=1023 2>/dev/null; exit 5";
    let ran = run(sample, time);
    ran.assert_ended(SAMPLE_FAILED, "sample_failed");
    assert_eq!(ran.result["sample_result"]["exit_code"], 5);
    assert_eq!(ran.result["sample_result"]["truncated"], true);
    let finished = ran.outcome.events("sample_finished");
    assert_eq!(finished.len(), 1, "{finished:?}");
    let written = finished[0]["attributes"]["stdout_bytes"].as_u64();
    assert_eq!(written, Some(6 + (1 << 30)));
    assert!(ran.printed().starts_with(b"begun\n0123456789abcdef\n"));
    ran.assert_bounded();
}

#[test]
fn a_sample_that_forks_for_ever_is_ended_at_its_deadline() {
    let sample = "echo begun; bomb() { while :; do bomb & done; }; bomb & while :; do :; done";
    let ran = run(sample, RUNTIME);
    ran.assert_ended(SAMPLE_UNFINISHED, "sample_unfinished");
    ran.assert_in_time(RUNTIME);
    // Which comes first depends on whom the guest's kernel starves.
    let sample = &ran.result["sample_result"];
    let told = sample["timed_out"] == true || sample["agent_lost"] == true;
    assert!(told, "{:#}", ran.result);
    assert_eq!(ran.printed(), b"begun\n");
}

#[test]
fn a_sample_that_kills_the_agent_is_told_from_one_that_never_ends() {
    let sample = "echo begun; sleep 1; kill -9 $(pidof see-agent); sleep 600";
    let time = Duration::from_secs(60);
    let ran = run(sample, time);
    ran.assert_ended(SAMPLE_UNFINISHED, "sample_unfinished");
    ran.assert_in_time(time);
    assert_eq!(
        ran.result["sample_result"]["agent_lost"], true,
        "{}",
        ran.result
    );
    assert_eq!(ran.result["sample_result"]["timed_out"], false);
    assert_eq!(ran.printed(), b"begun\n");
}

#[test]
fn a_sample_that_keeps_killing_the_agent_is_ended_in_time() {
    let sample = "echo begun; sleep 1; while :; do kill -9 $(pidof see-agent); done";
    let time = Duration::from_secs(60);
    let ran = run(sample, time);
    ran.assert_ended(SAMPLE_UNFINISHED, "sample_unfinished");
    ran.assert_in_time(time);
    assert_eq!(
        ran.result["sample_result"]["agent_lost"], true,
        "{}",
        ran.result
    );
    assert_eq!(ran.printed(), b"begun\n");
}

#[test]
fn a_sample_that_switches_the_machine_off_ends_the_run_at_once() {
    let time = Duration::from_secs(60);
    let ran = run("echo begun; sleep 1; poweroff -f", time);
    ran.assert_ended(SAMPLE_UNFINISHED, "sample_unfinished");
    ran.assert_in_time(Duration::from_secs(20));
    assert_eq!(
        ran.result["sample_result"]["agent_lost"], true,
        "{}",
        ran.result
    );
    let failure = ran.result["failure"].as_str().unwrap_or_default();
    assert!(failure.contains("shut"), "{:#}", ran.result);
    assert_eq!(ran.printed(), b"begun\n");
}

#[test]
fn a_sample_that_floods_the_console_is_ended_at_its_deadline() {
    let sample = "echo begun; exec yes flood > /dev/ttyS0";
    let ran = run(sample, RUNTIME);
    ran.assert_ended(SAMPLE_UNFINISHED, "sample_unfinished");
    ran.assert_in_time(RUNTIME);
    ran.assert_timed_out();
    assert_eq!(ran.printed(), b"begun\n");
    ran.assert_bounded();
}

#[test]
fn what_a_sample_prints_moves_no_terminal() {
    let home = Home::new();
    // A title, a cleared screen, a cursor at home, the C1 form of an escape, a bell, a backspace, a link.
    let printed = "title \\033]0;owned\\007 clear \\033[2J\\033[H c1 \\302\\233 31m bell \\007 back \\010 \
                   link \\033]8;;http://example.invalid\\033\\134here \\r over \\n";
    home.write("sample\u{1b}[31m.sh", format!("printf '{printed}'\n"));
    home.run_file(context());
    let outcome = home.run(
        [
            "run",
            "run.json",
            "--sample",
            "sample\u{1b}[31m.sh",
            "--command",
            "sh {sample}",
        ],
        AROUND,
    );
    assert_eq!(outcome.code, OK, "{outcome:#?}");
    assert!(outcome.stdout.contains("clear"), "{outcome:#?}");
    for text in [&outcome.stdout, &outcome.stderr] {
        let mut strange = text.chars().filter(|c| c.is_control() && *c != '\n');
        assert_eq!(strange.next(), None, "{text:?}");
    }
}

/// Runs this shell script in an embedded machine, to its end.
fn run(sample: &str, runtime: Duration) -> Ran {
    run_keeping("64MiB", sample, runtime)
}

/// The same where this much of its output is kept.
fn run_keeping(kept: &str, sample: &str, runtime: Duration) -> Ran {
    let home = Home::new();
    home.write("sample.sh", sample);
    write_run_file(&home, kept, runtime);
    let mut command = home.seectl();
    command
        .args([
            "run",
            "run.json",
            "--sample",
            "sample.sh",
            "--command",
            "sh {sample}",
        ])
        .args([
            "--runtime",
            &format!("{}s", runtime.as_secs()),
            "--output",
            "json",
        ]);
    let mut live = Live::start(&mut command);
    let status = format!("/proc/{}/status", live.pid());
    let mut memory = 0;
    see_tests::until("the end of the run", AROUND + runtime, || {
        memory = memory.max(peak(&status));
        !live.runs()
    });
    let outcome = live.finish(AROUND);
    let result = outcome.result()["result"].clone();
    assert!(result.is_object(), "no result: {outcome:#?}");
    let identifier = result["identifier"]
        .as_str()
        .expect("a result names its run");
    assert_nothing_remains(identifier);
    assert_eq!(home.listed(), Vec::<Value>::new());
    assert_eq!(result["left_behind"], json!([]), "{result}");
    Ran {
        home,
        outcome,
        result,
        memory,
    }
}

impl Ran {
    fn assert_ended(&self, code: Option<i32>, verdict: &str) {
        assert_eq!(
            self.outcome.code, code,
            "{:#}\n{}",
            self.result, self.outcome.stderr
        );
        assert_eq!(self.result["verdict"], verdict, "{:#}", self.result);
        assert_eq!(
            self.result["exit_code"].as_i64().map(|code| code as i32),
            code
        );
    }

    /// The sample had its own time, and what an agent gets that a starved guest keeps from its work.
    fn assert_in_time(&self, runtime: Duration) {
        let limit = (runtime + GRACE).as_secs_f64();
        let steps = self.result["steps"].as_array().expect("a list");
        let wait = steps
            .iter()
            .find(|step| step["step"] == "wait for sample_finished");
        let seconds = wait.and_then(|step| step["seconds"].as_f64());
        let seconds = seconds.unwrap_or_else(|| panic!("no such step: {:#}", self.result));
        assert!(seconds < limit, "{seconds} s, at most {limit}");
    }

    /// The sample's time ran out, and the rest of the run took place all the same.
    fn assert_timed_out(&self) {
        let sample = &self.result["sample_result"];
        assert_eq!(sample["timed_out"], true, "{:#}", self.result);
        assert_eq!(sample["agent_lost"], false, "{:#}", self.result);
        assert_eq!(self.result["failure"], Value::Null, "{:#}", self.result);
        let pictures = self
            .artifacts()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "png"));
        assert_eq!(pictures.count(), 2, "{:#}", self.result);
    }

    /// Whatever the sample writes, the host keeps little of it.
    fn assert_bounded(&self) {
        assert!(self.memory > 0, "the memory was never measured");
        assert!(
            self.memory < 200 << 20,
            "{} MiB of memory",
            self.memory >> 20
        );
        let shown = self.outcome.stdout.len();
        assert!(shown < 4 << 20, "{shown} bytes of events");
        let kept: u64 = self.artifacts().map(|(_, size)| size).sum();
        assert!(kept < 80 << 20, "{kept} bytes of results");
    }

    /// What is kept of the sample's standard output.
    fn printed(&self) -> Vec<u8> {
        let mut files: Vec<PathBuf> = self
            .artifacts()
            .map(|(path, _)| path)
            .filter(|path| path.extension().is_some_and(|end| end == "stdout"))
            .collect();
        assert_eq!(files.len(), 1, "{:#}", self.result);
        let path = files.pop().expect("there is one");
        assert!(path.starts_with(self.home.path("results")), "{path:?}");
        std::fs::read(path).expect("an artifact can be read")
    }

    fn artifacts(&self) -> impl Iterator<Item = (PathBuf, u64)> {
        let folder = PathBuf::from(self.result["results"].as_str().expect("a results folder"));
        let listed = self.result["artifacts"].as_array().expect("a list").clone();
        listed.into_iter().map(move |artifact| {
            let path = artifact["path"].as_str().expect("an artifact has a path");
            let size = artifact["size"].as_u64().expect("an artifact has a size");
            (folder.join(path), size)
        })
    }
}

/// The standard run, but for its end: a guest that its sample keeps busy does not switch itself off, and to wait
/// for that shows nothing of the sample.
fn write_run_file(home: &Home, kept: &str, runtime: Duration) {
    let path = home.run_file(context());
    let text = std::fs::read(&path).expect("it was written");
    let mut run: Value = serde_json::from_slice(&text).expect("it is JSON");
    run["hooks"]["hooks"][0]["configuration"] = json!({ "output_limit": kept });
    let mut steps = Protocol::standard(Some(runtime));
    let steps_list = steps.as_array_mut().expect("a list of steps");
    let last = steps_list
        .iter_mut()
        .find(|step| step["step"] == "shutdown")
        .expect("the standard run ends with a shutdown");
    *last = json!({ "step": "poweroff" });
    run["protocol"] = steps;
    home.write("run.json", run.to_string());
}

fn context() -> Value {
    let mut context = Home::embedded();
    context["memory"] = json!("128MiB");
    context
}

/// The most memory that a process had so far, in bytes; 0 when it is gone.
fn peak(status: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB"));
    number
        .and_then(|number| number.trim().parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}
