//! The limits of a container.

use super::*;

#[test]
fn a_container_that_uses_up_its_memory_ends_its_run_named() {
    let home = home();
    let file = run_file(&home, &context(&json!({})), &Value::Null);
    // The shell that eats is killed, and the one that started it goes on.
    let sample = "sh -c 'a=x; while :; do a=$a$a; done'; sleep 600";
    let outcome = run(&home, &file, sample);
    assert_eq!(outcome.code, Some(4), "{outcome:#?}");
    let failure = told(&outcome, "/failure").to_string();
    assert!(
        failure.contains("used up its 128MiB of memory"),
        "{failure}"
    );
    assert_clean(&home, &outcome);
}

/// A container's console that nobody reads would fill, and stop its first process.
#[test]
fn a_container_that_writes_much_to_its_console_goes_on_and_is_ended_at_the_limit() {
    let home = home();
    let context = context(&json!({ "limits": { "console": "2MiB" } }));
    let file = run_file(&home, &context, &Value::Null);
    let begin = Instant::now();
    let outcome = run(&home, &file, "yes 'a line of the console' >/dev/console");
    assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains("context.limits.console"), "{said}");
    assert!(begin.elapsed() < RUN, "{:?}", begin.elapsed());
    assert_clean(&home, &outcome);
}

#[test]
fn a_container_of_too_many_processes_or_too_much_processor_time_ends_and_the_limit_is_named() {
    let crowd = "i=0; while [ $i -lt 60 ]; do sleep 600 & i=$((i+1)); done; wait";
    for (key, limit, command) in [
        ("pids", json!(40), crowd),
        ("cpu", json!("1s"), "while :; do :; done"),
    ] {
        let home = home();
        let context = context(&json!({ "limits": { key: limit } }));
        let file = run_file(&home, &context, &Value::Null);
        let outcome = run(&home, &file, command);
        assert_ne!(outcome.code, Some(0), "{outcome:#?}");
        let failure = told(&outcome, "/failure").to_string();
        assert!(
            failure.contains(&format!("context.limits.{key}")),
            "{failure}"
        );
        assert_clean(&home, &outcome);
    }
}
