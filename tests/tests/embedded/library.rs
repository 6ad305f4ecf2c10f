//! Runs by a program of one's own: the examples of see-cli, as they stand.

use std::process::Command;

use see_tests::{Home, example};
use serde_json::{Value, json};

use crate::support::*;

/// The text between two others.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let rest = text.split_once(begin).expect(begin).1;
    rest.split_once(end).expect(end).0
}

#[test]
fn a_program_of_fifteen_lines_runs_the_readmes_run_file() {
    let source = include_str!("../../../see-cli/examples/embed.rs");
    let is_code = |line: &&str| !line.trim().is_empty() && !line.starts_with("//");
    assert!(source.lines().filter(is_code).count() <= 15, "{source}");

    let home = Home::new();
    home.guest("guest.qcow2");
    let readme = include_str!("../../../README.md");
    let run_file = between(readme, "$ cat run.json\n", "$ seectl");
    home.write("run.json", run_file);
    home.write("suspicious.sh", "#!/bin/sh\nexit 3\n");
    let mut embed = Command::new(example("embed"));
    home.furnish(&mut embed);
    let done = embed.output().expect("it starts");
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(
        told.contains("SampleFailed: Some(SampleResult { exit_code: Some(3)"),
        "{told}"
    );
    let mut results = std::fs::read_dir(home.path("results")).expect("it made one");
    let result = results
        .next()
        .expect("one run")
        .expect("it can be read")
        .path();
    let result = std::fs::read(result.join("result.json")).expect("it is written");
    let result: Value = serde_json::from_slice(&result).expect("it is JSON");
    assert_eq!(result["verdict"], json!("sample_failed"));
    assert_clean(&home, result["identifier"].as_str().expect("a text"));
}

#[test]
fn a_seectl_of_ones_own_is_ten_lines_and_knows_one_more_hook() {
    let source = include_str!("../../../see-cli/examples/own_seectl/main.rs");
    let code = source.split_once("\n\n").expect("it begins with a word").1;
    let readme = include_str!("../../../README.md");
    assert!(
        readme.contains(code),
        "README shows another one than:\n{code}"
    );
    assert!(code.lines().count() <= 10);

    let home = Home::new();
    home.guest("guest.qcow2");
    home.write(
        "run.json",
        json!({ "version": 1, "context": { "disk": { "image": "guest.qcow2" } },
            "hooks": { "hooks": [{ "name": "commands" }, { "name": "greeter" }] } })
        .to_string(),
    );
    let mut seectl = Command::new(example("own_seectl"));
    home.furnish(&mut seectl);
    let words = ["run", "run.json", "--command", "true", "-v"];
    let done = seectl.args(words).output().expect("it starts");
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(told.contains("-    greeted\n"), "{told}");
}
