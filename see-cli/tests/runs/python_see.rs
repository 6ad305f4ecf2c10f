//! What python-see's users meet who bring their files.

use std::process::Command;

use serde_json::{Value, json};

use crate::exit;
use crate::support::{Place, RUN};

/// Runs the command that the message proposes, and gives the run file that it writes.
fn follow(place: &Place, stderr: &str) -> Value {
    let advice = stderr
        .lines()
        .find(|line| line.contains("= help: "))
        .unwrap();
    let command = advice.split('`').nth(1).unwrap();
    let status = Command::new("sh")
        .args(["-c", command])
        .current_dir(place.path())
        .status()
        .unwrap();
    assert!(status.success(), "{command}");
    let written = std::fs::read(place.path().join("run.json")).unwrap();
    serde_json::from_slice(&written).unwrap()
}

pub(crate) fn its_files_alone() {
    let place = Place::new();
    let context =
        json!({ "domain": { "configuration": "domain.xml" }, "disk": { "image": "a.qcow2" } });
    let hooks =
        json!({ "configuration": { "results_folder": "r" }, "hooks": [{ "name": "commands" }] });
    let write = |name: &str, value: &Value| {
        std::fs::write(place.path().join(name), value.to_string()).unwrap();
    };
    write("my 'context'.json", &context);
    write("context.json", &context);
    write("hooks.json", &hooks);
    write("wrapped.json", &json!({ "hooks": hooks }));
    let before = place.everything();
    let told = |file: &str| {
        let ended = place.output(["run", file]);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{ended:?}"
        );
        ended.stderr
    };
    let (odd, plain) = (told("my 'context'.json"), told("context.json"));
    let (list, wrapped) = (told("hooks.json"), told("wrapped.json"));
    assert_eq!(place.everything(), before);
    for stderr in [&odd, &plain] {
        assert!(
            stderr.contains("this is a context, as python-see has it"),
            "{stderr}"
        );
        assert!(stderr.contains("hypervisor=qemu:///system"), "{stderr}");
        assert_eq!(
            follow(&place, stderr),
            json!({ "version": 1, "context": context })
        );
    }
    assert!(
        list.contains("this is a list of hooks, as python-see has it"),
        "{list}"
    );
    let run = json!({ "version": 1, "context": context, "hooks": hooks });
    assert_eq!(follow(&place, &list), run);
    let run = json!({ "version": 1, "context": context, "hooks": { "hooks": hooks } });
    assert_eq!(follow(&place, &wrapped), run);
    // A run file whose context lacks its key.
    write(
        "run.json",
        &json!({ "version": 1, "disk": { "image": "a.qcow2" } }),
    );
    let stderr = told("run.json");
    assert!(stderr.contains("`disk` describes the machine"), "{stderr}");
}

pub(crate) fn hooks_that_are_not_there() {
    let place = Place::new();
    let path = place.run_file(json!({}), exit(0));
    let mut run: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let with = |run: &mut Value, name: &str, required: bool| {
        let commands = run["hooks"]["hooks"][0].clone();
        let other = json!({ "name": name, "required": required });
        run["hooks"]["hooks"] = json!([commands, other]);
        std::fs::write(&path, run.to_string()).unwrap();
    };
    // Its keys may be among the shared ones.
    run["hooks"]["configuration"] = json!({ "profile": "Win7" });
    let missing = "python-see's hook `plugins.memory.VolatilityHook` is not in this version";
    with(&mut run, "plugins.memory.VolatilityHook", false);
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(missing), "{}", ended.stdout);
    let result = std::fs::read(place.results()[0].join("result.json")).unwrap();
    let result: Value = serde_json::from_slice(&result).unwrap();
    let notes = result["notes"].as_array().unwrap();
    assert!(notes[0].as_str().unwrap().contains(missing), "{notes:?}");
    assert_eq!(result["verdict"], "ok");
    // The defaults that differ are told once however many samples there are.
    assert_eq!(
        ended.stdout.matches("the default protocol").count(),
        1,
        "{}",
        ended.stdout
    );

    with(&mut run, "plugins.memory.VolatilityHook", true);
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains(missing), "{}", ended.stderr);
    assert!(
        ended.stderr.contains(r#""required": false"#),
        "{}",
        ended.stderr
    );

    with(&mut run, "comands", false);
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("the run goes on without it"),
        "{}",
        ended.stdout
    );
    with(&mut run, "comands", true);
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("did you mean `commands`?"),
        "{}",
        ended.stderr
    );
}
