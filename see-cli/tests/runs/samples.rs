//! Samples with any name, and samples that are none.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use see_core::path_from_text;
use serde_json::{Value, json};

use crate::support::Place;

/// A folder with a good sample before, between and after what is none.
fn folder(place: &Place) -> PathBuf {
    let folder = place.path().join("samples");
    std::fs::create_dir(&folder).unwrap();
    let path = |name: &[u8]| folder.join(OsStr::from_bytes(name));
    for name in [
        &b"a"[..],
        b"f \xff\n\x1b[31m",
        "ö $(x)".as_bytes(),
        b"vanishes",
    ] {
        std::fs::write(path(name), "exit 0").unwrap();
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path(b"b pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    drop(UnixListener::bind(path(b"c socket")).unwrap());
    symlink("nowhere", path(b"d dangling")).unwrap();
    symlink("e loop", path(b"e loop")).unwrap();
    std::fs::create_dir(path(b"folder")).unwrap();
    folder
}

pub(crate) fn one_bad_file_stops_no_other() {
    let place = Place::new();
    let folder = folder(&place);
    let vanishes = folder.join("vanishes");
    place.run_file(
        json!({}),
        json!({ "finishes": { "exit_code": 0 }, "removes": vanishes }),
    );
    let ended = place.output(["run", "run.json", "--sample", "samples", "--output", "json"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let lines = ended.json();
    let runs: Vec<(PathBuf, &str)> = lines.last().unwrap()["summary"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            let sample = path_from_text(run["sample"].as_str().unwrap());
            (sample, run["verdict"].as_str().unwrap())
        })
        .collect();
    let expected = [
        (&b"a"[..], "ok"),
        (b"b pipe", "bad_configuration"),
        (b"c socket", "bad_configuration"),
        (b"d dangling", "bad_configuration"),
        (b"e loop", "bad_configuration"),
        (b"f \xff\n\x1b[31m", "ok"),
        (b"vanishes", "bad_configuration"),
        ("ö $(x)".as_bytes(), "ok"),
    ];
    let expected = expected.map(|(name, verdict)| (folder.join(OsStr::from_bytes(name)), verdict));
    assert_eq!(runs, expected);
    // Each has a folder of its own, with a result that names the sample without loss and says what is wrong with it.
    let mut recorded: Vec<(PathBuf, String)> = place
        .results()
        .into_iter()
        .map(|results| {
            let result = std::fs::read(results.join("result.json")).unwrap();
            let result: Value = serde_json::from_slice(&result).unwrap();
            let sample = path_from_text(result["sample"].as_str().unwrap());
            (
                sample,
                result["failure"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    recorded.sort();
    let causes = [
        "",
        "found a named pipe",
        "found a socket",
        "No such file",
        "Too many levels of symbolic links",
        "",
        "No such file",
        "",
    ];
    assert_eq!(recorded.len(), causes.len());
    for (((sample, failure), (expected, _)), cause) in recorded.iter().zip(&expected).zip(causes) {
        assert_eq!(sample, expected);
        assert!(failure.contains(cause), "{failure}");
        assert_eq!(failure.is_empty(), cause.is_empty(), "{failure}");
    }
    assert_eq!(place.made(), 0);
}

pub(crate) fn odd_names_are_told_and_harmless() {
    let place = Place::new();
    folder(&place);
    place.run_file(json!({}), json!({ "finishes": { "exit_code": 0 } }));
    let ended = place.output(["run", "run.json", "--sample", "samples"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for told in [
        "samples/b pipe",
        "expected a file, found a named pipe",
        "f \\xff\\n\\x1b[31m: all went well",
        "ö $(x): all went well",
        "b pipe: the configuration is wrong",
    ] {
        assert!(
            ended.stdout.contains(told),
            "no {told:?} in {}",
            ended.stdout
        );
    }
    assert!(!ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
}

pub(crate) fn a_single_bad_sample_makes_nothing() {
    let place = Place::new();
    folder(&place);
    place.run_file(json!({}), json!({ "finishes": { "exit_code": 0 } }));
    let before = place.everything();
    for sample in ["samples/b pipe", "samples/c socket", "samples/d dangling"] {
        let ended = place.output(["run", "run.json", "--sample", sample]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert_eq!(ended.stdout, "");
        assert!(ended.stderr.contains(sample), "{}", ended.stderr);
    }
    assert_eq!(place.everything(), before);
}

pub(crate) fn the_guests_sample_in_a_command() {
    let place = Place::new();
    let path = place.run_file(json!({}), json!({ "finishes": { "exit_code": 0 } }));
    let mut run: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let step = |event: &str| {
        json!([{ "step": "trigger", "event": event, "attributes": {
            "sample": "${sample}", "command": "sh ${sample}; echo ${env:HOME}" } }])
    };
    run["protocol"] = step("run_sample");
    std::fs::write(&path, run.to_string()).unwrap();
    let arguments = [
        "run",
        "run.json",
        "--sample",
        "sample.sh",
        "--output",
        "json",
    ];
    let ended = place.output(arguments);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.json();
    let told = lines.iter().find(|line| line["event"] == "run_sample");
    let home = place.path().join("home");
    assert_eq!(
        told.unwrap()["attributes"]["command"],
        json!(format!("sh {{sample}}; echo {}", home.display()))
    );
    run["protocol"] = step("run_command");
    std::fs::write(&path, run.to_string()).unwrap();
    let ended = place.output(arguments);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("`run_sample`"), "{}", ended.stderr);
}
