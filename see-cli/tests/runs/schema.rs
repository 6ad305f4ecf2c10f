//! What is printed for programs is as `docs/output.schema.json` says.

use boon::{Compiler, Schemas};
use serde_json::{Value, json};

use crate::exit;
use crate::support::{Ended, Place, RUN_JSON, Running};

/// Any address: nothing is fetched.
const HERE: &str = "http://localhost/output.schema.json";

/// Fails where a line of the output, or a `result.json` of the place, is not as the schema says.
fn assert_as_described(place: &Place, ended: &Ended) {
    let schema: Value =
        serde_json::from_str(include_str!("../../../docs/output.schema.json")).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource(HERE, schema).unwrap();
    let line = compiler.compile(HERE, &mut schemas).unwrap();
    let result = format!("{HERE}#/$defs/result");
    let result = compiler.compile(&result, &mut schemas).unwrap();
    let lines = ended.json();
    assert!(!lines.is_empty(), "{ended:?}");
    for printed in &lines {
        if let Err(error) = schemas.validate(printed, line) {
            panic!("{error:#}\n{printed:#}");
        }
    }
    let Ok(results) = std::fs::read_dir(place.path().join("results")) else {
        return;
    };
    for folder in results {
        let file = std::fs::read(folder.unwrap().path().join("result.json")).unwrap();
        let written: Value = serde_json::from_slice(&file).unwrap();
        if let Err(error) = schemas.validate(&written, result) {
            panic!("{error:#}\n{written:#}");
        }
    }
}

pub(crate) fn runs() {
    let finished = json!({ "finishes": { "exit_code": 3, "seconds": 0.5 }, "prints": "x" });
    let hook = json!({ "finishes": { "exit_code": 0 }, "fails_at": "ready", "untidy": true });
    for (context, hook, code) in [
        (json!({}), finished, 1),
        (json!({ "faults": { "start": "fail" } }), exit(0), 4),
        (json!({ "faults": { "domain": "fail" } }), exit(0), 4),
        (json!({}), hook, 4),
    ] {
        let place = Place::new();
        place.run_file(context, hook);
        let ended = place.output(RUN_JSON);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_as_described(&place, &ended);
    }
    let place = Place::new();
    place.run_file(json!({}), exit(0));
    let ended = place.output(RUN_JSON.into_iter().chain(["--keep", "1h"]));
    assert_as_described(&place, &ended);
}

pub(crate) fn several_and_interrupted() {
    let place = Place::new();
    place.run_file(json!({}), json!({}));
    let samples = place.path().join("samples");
    std::fs::create_dir(&samples).unwrap();
    for name in ["a", "b"] {
        std::fs::write(samples.join(name), name).unwrap();
    }
    let line = ["run", "run.json", "--sample", "samples", "--output", "json"];
    let running = Running::start(place.seectl(line));
    running.wait_for("\"wait for sample_finished\"");
    running.signal(rustix::process::Signal::INT);
    let ended = running.end();
    assert_eq!(
        ended.json().last().unwrap()["not_run"],
        json!([samples.join("b")])
    );
    assert_as_described(&place, &ended);
}

pub(crate) fn mistakes() {
    let place = Place::new();
    let path = place.run_file(json!({}), exit(0));
    let text = "{\n  \"version\": 1,\n  \"context\": { \"backend\": \"fakee\" } }";
    std::fs::write(path, text).unwrap();
    let ended = place.output(RUN_JSON);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_as_described(&place, &ended);
    let told = &ended.json()[0];
    assert_eq!(told["version"], 1);
    let error = &told["errors"][0];
    assert_eq!(error["kind"], "configuration");
    assert_eq!(error["file"], "run.json");
    assert_eq!((&error["line"], &error["column"]), (&json!(3), &json!(27)));
    assert_eq!(error["key"], "context.backend");
    assert!(
        error["advice"].as_str().unwrap().contains("`fake`"),
        "{error}"
    );
    assert!(!ended.stdout.contains('^'), "{}", ended.stdout);
}
