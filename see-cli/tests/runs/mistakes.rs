//! What is wrong in a run file is told before anything is made.

use serde_json::json;

use super::exit;
use super::support::Place;

pub(super) fn mistakes() {
    let place = Place::new();
    let folder = place.path().join("made");
    let fake = format!(r#""backend": "fake", "folder": {}"#, json!(folder));
    let cases = [
        (
            "bad_json",
            String::from("{\n  \"version\": 1,\n  \"context\": {\n}"),
        ),
        (
            "unknown_key",
            format!("{{\n  \"version\": 1,\n  \"context\": {{ {fake} }},\n  \"protocl\": []\n}}"),
        ),
        (
            "unknown_context_key",
            format!("{{ \"version\": 1, \"context\": {{\n  {fake},\n  \"defa\": true }} }}"),
        ),
        (
            "wrong_type",
            format!("{{ \"version\": 1, \"context\": {{\n  {fake},\n  \"deaf\": \"yes\" }} }}"),
        ),
        (
            "wrong_version",
            String::from("{ \"version\": 2, \"machine\": {} }"),
        ),
        (
            "unknown_backend",
            String::from("{ \"version\": 1, \"context\": { \"backend\": \"fakee\" } }"),
        ),
        (
            "unknown_hook",
            format!(
                "{{ \"version\": 1, \"context\": {{\n  {fake} }},\n  \"hooks\": {{ \"hooks\": [ {{ \"name\": \"comands\" }} ] }} }}"
            ),
        ),
        (
            "unknown_shared_key",
            format!(
                "{{ \"version\": 1, \"context\": {{\n  {fake} }},\n  \"hooks\": {{ \"configuration\": {{ \"results_foldr\": \"x\" }}, \"hooks\": [ {{ \"name\": \"commands\" }} ] }} }}"
            ),
        ),
        (
            "null_hooks",
            format!("{{ \"version\": 1, \"context\": {{\n  {fake} }},\n  \"hooks\": null }}"),
        ),
        (
            "hooks_as_strings",
            format!(
                "{{ \"version\": 1, \"context\": {{\n  {fake} }},\n  \"hooks\": {{ \"hooks\": [\"commands\", \"screen\"] }} }}"
            ),
        ),
        (
            "unknown_step",
            format!(
                "{{ \"version\": 1, \"context\": {{\n  {fake} }},\n  \"protocol\": [ {{ \"step\": \"powron\" }} ] }}"
            ),
        ),
        (
            "unknown_substitution",
            format!(
                "{{ \"version\": 1, \"context\": {{\n  {fake} }},\n  \"protocol\": [ {{ \"step\": \"wait\", \"for\": \"${{sampel}}\" }} ] }}"
            ),
        ),
        (
            "no_sample_given",
            format!(
                "{{ \"version\": 1, \"context\": {{\n  {fake} }},\n  \"protocol\": [ {{ \"step\": \"trigger\", \"event\": \"x\", \"attributes\": {{ \"sample\": \"${{sample}}\" }} }} ] }}"
            ),
        ),
    ];
    let mut shown = String::new();
    for (name, text) in cases {
        std::fs::write(place.path().join("run.json"), &text).unwrap();
        let before = place.everything();
        let ended = place.output(["run", "run.json"]);
        assert_eq!(ended.code, Some(2), "{name}: {ended:?}");
        assert_eq!(ended.stdout, "", "{name}");
        assert_eq!(place.everything(), before, "{name}");
        shown.push_str(&format!("# {name}\n{}\n", ended.stderr));
    }
    place.run_file(json!({}), exit(0));
    let before = place.everything();
    for arguments in [
        &["run", "none.json"][..],
        &["run", "run.json", "--set", "context.stall"],
        &["run", "run.json", "--set", "context.backend=qmu"],
        &["run", "run.json", "--sample", "none"],
    ] {
        let ended = place.output(arguments.iter().copied());
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        shown.push_str(&format!("# {}\n{}\n", arguments.join(" "), ended.stderr));
    }
    assert_eq!(place.everything(), before);
    let shown = shown.replace(&json!(folder).to_string(), "\"MADE\"");
    insta::assert_snapshot!("mistakes", shown);
}
