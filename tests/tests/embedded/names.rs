//! Samples reach the guest under their own names, whatever they are.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use see_core::{path_from_text, path_to_text};
use see_tests::Home;
use serde_json::{Value, json};

use crate::support::*;

/// Names that a shell, a terminal or JSON would read as something else.
const NAMES: [&[u8]; 11] = [
    "ö.sh".as_bytes(),
    "Übersicht 1.docx".as_bytes(),
    b"-rf",
    b"$(touch PWNED)`touch PWNED`",
    b"';touch PWNED;'",
    b"\";touch PWNED;\"\\",
    b"a\ntouch PWNED\n",
    b"latin \xf6\xff.sh",
    b"*?[a-z]~#&|;<>{sample}",
    b"con.txt ",
    &[b'n'; 255],
];

/// It prints what it was called by, and whether anything else came of its name.
const SCRIPT: &str = "#!/bin/sh\nprintf '%s' \"${0##*/}\"; [ ! -e PWNED ]\n";

#[test]
fn a_sample_of_any_name_runs_under_it_by_itself_and_as_one_word_in_each_kind_of_quotes() {
    let home = Home::new();
    let folder = home.path("samples");
    std::fs::create_dir(&folder).expect("the home is writable");
    let commands = [
        json!(null),
        json!("sh {sample}"),
        json!("sh \"${sample}\""),
        json!("sh '{sample}'"),
        json!("r=$(sh {sample}; echo x); printf '%s' \"$${r%x}\""),
        json!(["/bin/sh", "{sample}"]),
    ];
    let mut steps = vec![
        json!({ "step": "poweron" }),
        json!({ "step": "wait", "for": "ready", "timeout": "60s" }),
    ];
    let mut wanted = Vec::new();
    for (number, name) in NAMES.into_iter().enumerate() {
        let path = folder.join(OsStr::from_bytes(name));
        std::fs::write(&path, SCRIPT).expect("the home is writable");
        // Every name by itself, and in one of the commands in turn.
        for command in [&commands[0], &commands[1 + number % (commands.len() - 1)]] {
            steps.push(
                json!({ "step": "trigger", "event": "run_sample", "attributes": {
                "sample": path_to_text(&path), "command": command } }),
            );
            steps.push(json!({ "step": "wait", "for": "sample_finished", "timeout": "60s" }));
            wanted.push((name, command.clone()));
        }
    }
    let run_file = home.write(
        "run.json",
        json!({
            "version": 1,
            "context": Home::embedded(),
            "hooks": { "configuration": { "results_folder": "results" }, "hooks": [{ "name": "commands" }] },
            "protocol": steps,
        })
        .to_string(),
    );
    let outcome = run(&home, &run_file, [] as [&str; 0]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let finished = outcome.events("sample_finished");
    assert_eq!(finished.len(), wanted.len(), "{outcome:#?}");
    for (event, (name, command)) in finished.iter().zip(wanted) {
        let attributes = &event["attributes"];
        assert_eq!(attributes["exit_code"], 0, "{command}: {event:#}");
        assert_eq!(attributes["guest_name"], Value::Null, "{event:#}");
        let stdout = attributes["stdout"].as_str().expect("a path");
        let printed = std::fs::read(stdout).expect("it is there");
        assert_eq!(
            OsStr::from_bytes(&printed),
            OsStr::from_bytes(name),
            "{command}"
        );
    }
    assert_clean(&home, &text(&outcome, "/identifier"));
}

#[test]
fn a_sample_whose_name_is_not_utf8_runs_and_its_result_names_it_without_loss() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    let sample = home
        .folder()
        .join(OsStr::from_bytes(b"l\xe4stig '$(id)'\n.sh"));
    std::fs::write(&sample, SCRIPT).expect("the home is writable");
    let arguments = [
        OsStr::new("--sample"),
        sample.as_os_str(),
        OsStr::new("--command"),
        OsStr::new("sh '{sample}'"),
    ];
    let outcome = run(&home, &run_file, arguments);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(path_from_text(&text(&outcome, "/sample")), sample);
    let printed = content(&outcome, "/sample_result/stdout");
    assert_eq!(Some(OsStr::from_bytes(&printed)), sample.file_name());
    // The file on the host is safe whatever the name was.
    let stdout = text(&outcome, "/sample_result/stdout");
    assert!(
        stdout.is_ascii() && !stdout.contains(['\n', '\'', '$']),
        "{stdout}"
    );
    assert_clean(&home, &text(&outcome, "/identifier"));
}
