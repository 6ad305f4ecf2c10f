//! What runs print and keep: results, JSON, samples, overrides.

use serde_json::json;

use crate::exit;
use crate::support::{Place, RUN, RUN_JSON};

pub(crate) fn harmless_output() {
    let place = Place::new();
    let prints = "plain\n\u{1b}]0;owned\u{7}\u{202e}gpj.exe\u{1b}[2J\n";
    place.run_file(
        json!({}),
        json!({ "finishes": { "exit_code": 0 }, "prints": prints }),
    );
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("  | plain\n"), "{}", ended.stdout);
    let shown = "  | \\x1b]0;owned\\x07\\u{202e}gpj.exe\\x1b[2J\n";
    assert!(ended.stdout.contains(shown), "{}", ended.stdout);
    assert!(!ended.stdout.chars().any(|c| c != '\n' && c.is_control()));
    assert!(
        ended
            .stdout
            .contains(&format!("output ({} bytes)", prints.len())),
        "{}",
        ended.stdout
    );
}

pub(crate) fn json_lines() {
    let place = Place::new();
    place.run_file(json!({}), exit(3));
    let ended = place.output(RUN_JSON);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines = ended.json();
    assert!(lines[0]["run"]["identifier"].is_string(), "{}", lines[0]);
    let events: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["event"].as_str())
        .collect();
    let position = |name| {
        events
            .iter()
            .position(|event| *event == name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    assert!(position("pre_poweron") < position("post_poweron"));
    assert!(position("post_poweron") < position("ready"));
    assert!(position("ready") < position("run_sample"));
    assert!(position("run_sample") < position("sample_finished"));
    let result = &lines.last().unwrap()["result"];
    assert_eq!(result["verdict"], "sample_failed");
    assert_eq!(result["exit_code"], 1);
    let file = std::fs::read(place.results()[0].join("result.json")).unwrap();
    assert_eq!(
        *result,
        serde_json::from_slice::<serde_json::Value>(&file).unwrap()
    );
}

pub(crate) fn a_folder_of_samples() {
    let place = Place::new();
    place.run_file(json!({}), exit(3));
    std::fs::create_dir(place.path().join("samples")).unwrap();
    for name in ["b", "a"] {
        std::fs::write(place.path().join("samples").join(name), name).unwrap();
    }
    let ended = place.output(["run", "run.json", "--sample", "samples", "--output", "json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines = ended.json();
    let summary = lines.last().unwrap()["summary"].as_array().unwrap();
    let samples: Vec<_> = summary.iter().map(|run| run["sample"].clone()).collect();
    assert_eq!(
        samples,
        ["a", "b"].map(|name| json!(place.path().join("samples").join(name)))
    );
    assert_eq!(place.results().len(), 2);
    let ended = place.output(["run", "run.json", "--sample", "samples"]);
    assert!(ended.stdout.contains("2 runs"), "{}", ended.stdout);
}

pub(crate) fn no_result() {
    let place = Place::new();
    let hook = json!({ "finishes": { "exit_code": 0 }, "forges": true });
    place.run_file(json!({}), hook);
    let ended = place.output(RUN_JSON);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let lines = ended.json();
    let result = &lines.last().unwrap()["result"];
    assert_eq!(result["verdict"], "sandbox_failed");
    assert_eq!(result["exit_code"], 4);
    let failure = result["failure"].as_str().unwrap();
    assert!(failure.contains("result.json"), "{failure}");
    assert_eq!(place.made(), 0);
}

pub(crate) fn one_without_a_folder() {
    let place = Place::new();
    let path = place.run_file(json!({}), exit(0));
    let mut run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    run["hooks"]["configuration"] = json!({ "results_folder": "${sample}.results" });
    std::fs::write(&path, run.to_string()).unwrap();
    let samples = place.path().join("samples");
    std::fs::create_dir(&samples).unwrap();
    // One of them lies where the folder of another one belongs.
    for name in ["a", "b", "b.results", "c"] {
        std::fs::write(samples.join(name), name).unwrap();
    }
    let ended = place.output(["run", "run.json", "--sample", "samples", "--output", "json"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let lines = ended.json();
    let summary = lines.last().unwrap()["summary"].as_array().unwrap();
    let verdicts: Vec<_> = summary.iter().map(|run| run["verdict"].clone()).collect();
    assert_eq!(verdicts, ["ok", "sandbox_failed", "ok", "ok"]);
    let mut results = lines.iter().map(|line| &line["result"]);
    let failed = results.find(|result| result["verdict"] == "sandbox_failed");
    let failure = failed.unwrap()["failure"].as_str().unwrap();
    assert!(failure.contains("b.results"), "{failure}");
    assert_eq!(place.made(), 0);
}

pub(crate) fn results_folder() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    place.run_file(
        json!({}),
        json!({ "finishes": { "exit_code": 0 }, "prints": "x" }),
    );
    let deep = place.path().join("deep/er");
    let ended = place.output([
        "run",
        "run.json",
        "--sample",
        "sample.sh",
        "--results",
        "deep/er",
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let run = std::fs::read_dir(&deep)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert_eq!(std::fs::read(run.join("stdout")).unwrap(), b"x");
    for folder in [place.path().join("deep"), deep, run] {
        assert_eq!(
            std::fs::metadata(&folder).unwrap().mode() & 0o777,
            0o700,
            "{}",
            folder.display()
        );
    }
    let ended = place.output([
        "run",
        "run.json",
        "--set",
        "hooks.configuration.results_folder=there",
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        std::fs::read_dir(place.path().join("there"))
            .unwrap()
            .count(),
        1
    );
    assert!(!place.path().join("results").exists());
}

pub(crate) fn overrides() {
    let place = Place::new();
    let path = place.run_file(json!({}), json!({}));
    let mut run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    run["protocol"] = json!([
        { "step": "trigger", "event": "told", "attributes": {
            "sample": "${sample}", "command": "${command}", "runtime": "${runtime}", "home": "${env:HOME}",
        }},
    ]);
    std::fs::write(&path, run.to_string()).unwrap();
    let ended = place.output([
        "run",
        "run.json",
        "--sample",
        "sample.sh",
        "--command",
        "sh %s",
        "--runtime",
        "90s",
        "--set",
        "context.network=true",
        "--backend",
        "fake",
        "--output",
        "json",
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = ended
        .json()
        .into_iter()
        .find(|line| line["event"] == "told")
        .unwrap();
    assert_eq!(
        told["attributes"],
        json!({
            "sample": place.path().join("sample.sh"), "command": "sh %s", "runtime": "90s",
            "home": place.path().join("home"),
        })
    );
}

pub(crate) fn unused_sample() {
    let place = Place::new();
    let path = place.run_file(json!({}), json!({}));
    let mut run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    run["protocol"] = json!([{ "step": "poweron" }]);
    std::fs::write(&path, run.to_string()).unwrap();
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("expected `${sample}` somewhere"),
        "{}",
        ended.stderr
    );
    assert_eq!(place.output(["run", "run.json"]).code, Some(0));
}
