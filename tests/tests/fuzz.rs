//! Everything that reads what others wrote, under a fuzzer that sees where each input leads: no crash, no hang,
//! no broken promise, no memory without bounds. The targets are in `tests/fuzz`, with their corpora.
//!
//! Here each target gets some seconds. As a campaign it gets `SEE_CAMPAIGN_COUNT` inputs, with the seed
//! `SEE_CAMPAIGN_SEED`, and what it learns is kept for the next chunk.
#![expect(clippy::print_stdout, reason = "a campaign reads the sums")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use see_tests::{finish, spawn, target_folder};

/// How long a target is tried where nobody says how often: a minute for all.
const SECONDS: u64 = 9;
/// The longest that a chunk of a campaign takes.
const CHUNK: Duration = Duration::from_secs(3500);
/// The fewest inputs of which one can say that something was tried, also on a host that is busy.
const FEWEST: u64 = 200;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn program() -> PathBuf {
    let program = target_folder().join("fuzz-program/see-fuzz");
    assert!(
        program.exists(),
        "{} is missing: `cargo xtask fuzz` makes it, and `cargo xtask test` all",
        program.display()
    );
    program
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// The last number behind this word in what the fuzzer said.
fn told(said: &str, word: &str) -> u64 {
    let mut numbers = said.rmatch_indices(word).filter_map(|(at, _)| {
        let rest = said[at + word.len()..].trim_start();
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    });
    numbers
        .next()
        .unwrap_or_else(|| panic!("no {word} in {said}"))
}

fn fuzz(target: &str) {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let count = number("SEE_CAMPAIGN_COUNT");
    let folder = match count {
        None => scratch.path().join(target),
        Some(_) => target_folder().join("fuzz-corpus").join(target),
    };
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let found = target_folder().join("fuzz-found");
    std::fs::create_dir_all(&found).expect("the target folder is writable");
    let mut fuzzer = Command::new(program());
    fuzzer
        .env("SEE_FUZZ_TARGET", target)
        .env("RUST_BACKTRACE", "0")
        .args([
            "-max_len=4096",
            "-timeout=60",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
        ])
        .arg(format!("-artifact_prefix={}/{target}-", found.display()));
    match count {
        None => fuzzer.arg(format!("-max_total_time={SECONDS}")),
        Some(count) => fuzzer.arg(format!("-runs={count}")),
    };
    // New inputs are a campaign's: what fails here fails again. Zero would mean a seed of the fuzzer's own.
    let seed = number("SEE_CAMPAIGN_SEED").unwrap_or(1);
    fuzzer.arg(format!("-seed={}", seed as u32 | 1));
    fuzzer.arg(&folder).arg(corpus().join(target));
    let deadline = count.map_or(Duration::from_secs(SECONDS + 120), |_| CHUNK);
    let outcome = finish(spawn(&mut fuzzer), deadline);
    let said = &outcome.stderr;
    let tail: Vec<&str> = said.lines().rev().take(40).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    assert_eq!(
        outcome.code,
        Some(0),
        "{tail}\n`cargo xtask fuzz {target} FILE` repeats it; add the file to the corpus with the repair"
    );
    let (inputs, places) = (
        told(said, "stat::number_of_executed_units:"),
        told(said, " cov: "),
    );
    let fewest = count.unwrap_or(FEWEST);
    assert!(
        inputs >= fewest,
        "only {inputs} inputs were tried, not {fewest}: {tail}"
    );
    assert!(
        places > 100,
        "the fuzzer is blind, it sees {places} places: {tail}"
    );
    println!("inputs tried: {inputs} at {target}, crashes: 0, places reached: {places}");
}

#[test]
fn a_host_survives_whatever_a_guests_agent_answers() {
    fuzz("agent_replies");
}

#[test]
fn an_agent_finds_each_frame_in_whatever_comes_over_its_serial_port() {
    fuzz("agent_serial");
}

#[test]
fn an_agent_serves_nobody_over_tcp_without_the_token() {
    fuzz("agent_tcp");
}

#[test]
fn a_broken_domain_xml_is_an_error_and_a_whole_one_survives_its_edits() {
    fuzz("domain_xml");
}

#[test]
fn a_broken_ledger_record_is_reported_and_never_followed() {
    fuzz("ledger_record");
}

#[test]
fn a_broken_network_xml_is_an_error_and_a_whole_one_survives_its_edits() {
    fuzz("network_xml");
}

#[test]
fn a_broken_run_file_is_an_error_of_one_line_with_a_place() {
    fuzz("run_file");
}

#[test]
fn every_target_has_a_corpus_and_a_test() {
    let this = include_str!("fuzz.rs");
    let mut corpora: Vec<String> = std::fs::read_dir(corpus())
        .expect("the corpora are committed")
        .map(|entry| {
            entry
                .expect("a folder")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    corpora.sort();
    assert_eq!(corpora, see_fuzz::TARGETS.map(|target| target.name));
    for target in see_fuzz::TARGETS {
        let call = format!("fuzz({:?});", target.name);
        assert!(this.contains(&call), "{} is not tested", target.name);
    }
}
