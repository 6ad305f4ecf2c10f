//! Runs that did not go well although their steps did, and runs that cannot go well.

use serde_json::json;

use crate::exit;
use crate::support::{Place, RUN};

pub(crate) fn a_failed_hook() {
    let place = Place::new();
    // During the run, and after its last step.
    for fails_at in ["ready", "post_shutdown", "wait_analysis"] {
        let hook = json!({ "finishes": { "exit_code": 0 }, "fails_at": fails_at });
        let path = place.run_file(json!({}), hook);
        let ended = place.output(RUN);
        assert_eq!(ended.code, Some(4), "{ended:?}");
        let expected = format!("hook commands on {fails_at}: failed: it is a mess");
        let expected = format!("FAIL a hook failed: {expected}");
        assert_eq!(
            ended.stdout.matches(&expected).count(),
            1,
            "{}",
            ended.stdout
        );
        let run = std::fs::read_to_string(&path).unwrap();
        let mut run: serde_json::Value = serde_json::from_str(&run).unwrap();
        run["hooks"]["hooks"][0]["required"] = json!(false);
        run["hooks"]["hooks"][0]["configuration"]["untidy"] = json!(true);
        std::fs::write(&path, run.to_string()).unwrap();
        let ended = place.output(RUN);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for expected in [&format!("on {fails_at}: failed"), "on cleanup: failed"] {
            assert!(ended.stdout.contains(expected), "{}", ended.stdout);
        }
    }
    let hook = json!({ "finishes": { "signal": 9, "timed_out": true }, "fails_at": "ready" });
    place.run_file(json!({}), hook);
    assert_eq!(place.output(RUN).code, Some(3));
}

pub(crate) fn too_long() {
    let place = Place::new();
    place.run_file(json!({}), exit(0));
    let before = place.everything();
    let with = |more: &[&str]| {
        let line: Vec<&str> = RUN.iter().chain(more).copied().collect();
        place.output(line)
    };
    let long_wait = json!([
        { "step": "wait", "timeout": "11m" },
        { "step": "trigger", "event": "run_sample", "attributes": { "sample": "${sample}" } },
    ]);
    let long_wait = format!("protocol={long_wait}");
    for (more, expected) in [
        (
            &["--runtime", "20m"][..],
            "run.json:2:14: context: `--runtime 20m`",
        ),
        (&["--set", &long_wait], "a wait of 660s"),
    ] {
        let ended = with(more);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        for expected in [
            expected,
            "`context.limits.run` is 600s",
            "`--set context.limits.run=",
        ] {
            assert!(
                ended.stdout.contains(expected) || ended.stderr.contains(expected),
                "{ended:?}"
            );
        }
    }
    assert_eq!(place.everything(), before);
    // As long as the run itself is not too long.
    assert_eq!(with(&["--runtime", "10m"]).code, Some(0));
}
