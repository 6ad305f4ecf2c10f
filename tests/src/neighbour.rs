//! A run beside another one, which must not be disturbed by it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Home, Live, assert_nothing_remains};

/// The longest that its machine takes to run, and the longest that all of it takes, on a busy host.
const RUN: Duration = Duration::from_secs(300);

/// An embedded machine that runs a sample while something happens to another one.
#[derive(Debug)]
pub struct Neighbour {
    home: Home,
    live: Live,
}

impl Neighbour {
    /// Starts it, and waits until its machine runs. Its sample lasts `time`, from the boot on.
    pub fn begin(time: Duration) -> Self {
        let home = Home::new();
        let run = json!({
            "version": 1,
            "context": Home::embedded(),
            "hooks": {
                "configuration": { "results_folder": "results" },
                "hooks": [{ "name": "commands", "configuration": { "ready_timeout": "160s" } }],
            },
            "protocol": [
                { "step": "poweron" },
                { "step": "wait", "for": "ready", "timeout": "170s" },
                { "step": "trigger", "event": "run_sample",
                  "attributes": { "sample": "${sample}", "command": "${command}" } },
                { "step": "wait", "for": "sample_finished", "timeout": "110s" },
            ],
        });
        let file = home.write("run.json", run.to_string());
        let mut command = home.seectl();
        command
            .args(["run", "--output", "json"])
            .arg(file)
            .arg("--command")
            .arg(format!("sleep {}; echo undisturbed", time.as_secs()));
        let mut live = Live::start(&mut command);
        let runs = live.wait_for("machine that runs", RUN, |line| {
            line["event"] == "step_finished" && line["attributes"]["step"] == "poweron"
        });
        assert!(runs.is_some(), "the neighbour ended before: {live:#?}");
        Self { home, live }
    }

    /// Waits for its end, which must be as if it had been alone.
    pub fn assert_finishes(self) {
        let outcome = self.live.finish(RUN);
        assert_eq!(outcome.code, Some(0), "the neighbour: {outcome:#?}");
        let result = &outcome.result()["result"];
        assert_eq!(result["failure"], Value::Null, "the neighbour: {result:#}");
        let printed = result["sample_result"]["stdout"].as_str();
        let printed = printed.and_then(|path| std::fs::read_to_string(path).ok());
        assert_eq!(printed.as_deref(), Some("undisturbed\n"), "{result:#}");
        assert_nothing_remains(result["identifier"].as_str().expect("the run has one"));
        assert_eq!(self.home.listed(), Vec::<Value>::new());
    }
}
