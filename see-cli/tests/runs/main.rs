//! The whole program with the fake backend.
//!
//! The fake backend is no part of the shipped program. So this test has no harness: told so by its
//! environment it plays `seectl` itself, with registries of its own, and each test starts it that way.

mod ending;
mod images;
mod interrupts;
mod mistakes;
mod python_see;
mod results;
mod samples;
mod schema;
mod seen;
mod support;
mod told;
mod verdicts;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use serde_json::json;

use support::{PLAY, Place, RUN, play};

fn main() -> ExitCode {
    if std::env::var_os(PLAY).is_some() {
        return play();
    }
    let tests: [(&str, fn()); 52] = [
        ("json_of_runs_is_as_the_schema_says", schema::runs),
        (
            "json_of_an_interrupted_folder_is_as_the_schema_says_and_names_what_was_not_run",
            schema::several_and_interrupted,
        ),
        (
            "json_of_a_mistake_has_its_place_in_parts_and_no_drawing",
            schema::mistakes,
        ),
        (
            "a_run_ends_well_and_leaves_nothing_but_its_results",
            a_run_ends_well,
        ),
        ("a_samples_exit_code_is_a_failed_sample", a_failed_sample),
        ("a_sample_that_never_ends_is_told_apart", an_endless_sample),
        ("a_failed_step_is_a_failed_sandbox", a_failed_step),
        (
            "a_terminal_of_any_width_shows_a_run_in_few_lines_with_the_samples_end_last",
            seen::widths,
        ),
        (
            "a_pipe_gets_the_same_lines_without_colour_and_redrawing",
            seen::pipe,
        ),
        (
            "an_interrupted_terminal_shows_no_spinner_and_what_was_not_run",
            seen::interrupted,
        ),
        (
            "a_guest_that_never_answers_is_told_with_its_last_screen_and_advice",
            seen::silent,
        ),
        ("a_folder_of_samples_is_one_line_for_each", seen::folder),
        (
            "a_failed_allocation_is_undone_and_recorded",
            a_failed_allocation,
        ),
        (
            "a_teardown_that_fails_is_a_failed_sandbox_and_names_what_is_left",
            a_failed_teardown,
        ),
        (
            "a_required_hook_that_fails_is_not_all_well_and_another_only_warns",
            verdicts::a_failed_hook,
        ),
        (
            "what_takes_longer_than_the_whole_run_may_is_refused_before_anything_is_made",
            verdicts::too_long,
        ),
        (
            "a_result_that_cannot_be_written_is_not_all_well",
            results::no_result,
        ),
        (
            "a_run_that_cannot_begin_stops_no_other_samples",
            results::one_without_a_folder,
        ),
        ("what_a_guest_prints_is_harmless", results::harmless_output),
        (
            "json_has_a_line_for_each_event_and_then_the_result",
            results::json_lines,
        ),
        (
            "an_interrupt_at_a_stalled_allocation_undoes_it",
            interrupts::an_interrupted_allocation,
        ),
        (
            "an_interrupt_during_a_run_ends_it_in_order",
            interrupts::an_interrupted_run,
        ),
        (
            "termination_and_hang_up_have_codes_of_their_own",
            interrupts::other_signals,
        ),
        (
            "a_second_interrupt_leaves_at_once_and_gc_collects",
            interrupts::a_second_interrupt,
        ),
        (
            "each_sample_of_a_folder_has_a_run_and_the_gravest_counts",
            results::a_folder_of_samples,
        ),
        (
            "a_file_of_python_sees_is_told_for_what_it_is_with_the_command_that_makes_it_a_run_file",
            python_see::its_files_alone,
        ),
        (
            "a_hook_that_is_not_there_is_left_out_and_told_where_it_is_not_required",
            python_see::hooks_that_are_not_there,
        ),
        (
            "one_bad_file_in_a_folder_of_samples_stops_no_other_and_is_told",
            samples::one_bad_file_stops_no_other,
        ),
        (
            "odd_names_of_samples_are_told_and_harmless",
            samples::odd_names_are_told_and_harmless,
        ),
        (
            "a_sample_that_is_no_file_makes_nothing",
            samples::a_single_bad_sample_makes_nothing,
        ),
        (
            "a_reference_to_the_sample_in_a_command_is_the_file_in_the_guest",
            samples::the_guests_sample_in_a_command,
        ),
        (
            "results_go_where_they_are_wanted_and_are_private",
            results::results_folder,
        ),
        (
            "a_mistake_is_one_message_and_makes_nothing",
            mistakes::mistakes,
        ),
        (
            "overrides_and_substitutions_reach_the_run",
            results::overrides,
        ),
        (
            "a_sample_that_nothing_uses_is_a_mistake",
            results::unused_sample,
        ),
        ("ls_and_gc_tell_the_living_from_the_dead", ls_and_gc),
        (
            "a_reader_that_goes_away_stops_no_run",
            interrupts::a_closed_pipe,
        ),
        ("a_kept_machine_stays_until_it_is_asked_for", ending::kept),
        (
            "an_interrupted_run_keeps_nothing",
            ending::an_interrupted_run_keeps_nothing,
        ),
        (
            "a_run_removes_first_what_dead_ones_left_unless_told_not_to",
            ending::a_run_tidies_first,
        ),
        (
            "what_cannot_be_removed_fails_no_later_run",
            ending::what_cannot_be_removed_fails_no_run,
        ),
        (
            "a_foreign_file_in_the_ledger_is_told_and_is_no_failure",
            ending::a_foreign_file,
        ),
        (
            "a_run_that_loses_its_terminal_ends_in_order",
            ending::a_lost_terminal,
        ),
        (
            "an_image_that_was_pulled_is_listed_used_offline_kept_while_in_use_and_removed",
            images::pulled_used_and_removed,
        ),
        (
            "an_image_that_changed_on_disk_is_told_by_verify_and_fetched_anew",
            images::verified,
        ),
        (
            "a_slow_image_shows_how_far_it_is_in_lines_and_events",
            images::slow,
        ),
        (
            "an_interrupted_pull_ends_in_order_and_is_in_nobodys_way",
            images::stopped,
        ),
        (
            "an_image_that_is_not_to_be_had_has_a_code_and_advice",
            images::not_to_be_had,
        ),
        (
            "a_warning_of_an_image_is_told_once_and_without_being_asked",
            told::warnings,
        ),
        (
            "a_terminal_shows_bytes_rate_and_time_left_of_an_image_and_nothing_else_does",
            told::bar,
        ),
        ("dates_mean_the_same_in_every_time_zone", told::time_zones),
        (
            "no_secret_of_a_provider_is_in_a_log_an_error_json_or_a_process_list",
            images::secrets,
        ),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

pub(crate) fn exit(code: i64) -> serde_json::Value {
    json!({ "finishes": { "exit_code": code } })
}

fn a_run_ends_well() {
    let place = Place::new();
    place.run_file(json!({}), exit(0));
    let ended = place.output(RUN.into_iter().chain(["-v"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for expected in [
        "ok   poweron (",
        "ok   wait for ready (",
        "-    ready",
        "-    weather sky=\\x1b[31mred",
        "ok   sample.sh ended with exit code 0\n",
        "ok   nothing left on this host: ",
    ] {
        assert!(
            ended.stdout.contains(expected),
            "no {expected:?} in {}",
            ended.stdout
        );
    }
    assert!(!ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
    assert_eq!(place.made(), 0);
    let results = place.results();
    let result = std::fs::read(results[0].join("result.json")).unwrap();
    let result: serde_json::Value = serde_json::from_slice(&result).unwrap();
    assert_eq!(result["verdict"], "ok");
    assert_eq!(result["sample"], json!(place.path().join("sample.sh")));
    assert_eq!(result["sample_result"]["exit_code"], 0);
    let steps: Vec<&str> = result["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(steps.first(), Some(&"allocate"));
    assert_eq!(steps.last(), Some(&"teardown"));
}

fn a_failed_sample() {
    let place = Place::new();
    place.run_file(json!({}), exit(3));
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("FAIL sample.sh ended with exit code 3"),
        "{}",
        ended.stdout
    );
}

fn an_endless_sample() {
    let place = Place::new();
    // Nobody tells of its end: the step that waits for it gives up.
    let path = place.run_file(json!({}), json!({ "prints_and_hangs": "so far" }));
    let mut run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    run["protocol"] = json!([
        { "step": "poweron" },
        { "step": "trigger", "event": "run_sample", "attributes": { "sample": "${sample}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "${runtime}" },
        { "step": "shutdown" },
        { "step": "trigger", "event": "start_analysis", "always": true },
    ]);
    std::fs::write(&path, run.to_string()).unwrap();
    let line = RUN.into_iter().chain(["--runtime", "200ms", "-v"]);
    let ended = place.output(line);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for expected in [
        "FAIL wait for sample_finished",
        "ok   trigger start_analysis",
        "output so far (6 bytes)\n  | so far\n",
        "the sample did not end by itself: ",
    ] {
        assert!(
            ended.stdout.contains(expected),
            "no {expected:?} in {}",
            ended.stdout
        );
    }
    assert!(!ended.stdout.contains("ok   shutdown"), "{}", ended.stdout);

    let finishes = json!({ "finishes": { "signal": 9, "timed_out": true } });
    place.run_file(json!({}), finishes);
    let ended = place.output(["run", "run.json", "--command", "sleep 60"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("was ended by signal 9, its time ran out"),
        "{}",
        ended.stdout
    );
}

fn a_failed_step() {
    let place = Place::new();
    place.run_file(json!({ "faults": { "start": "fail" } }), exit(0));
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let told = "FAIL the sandbox failed: poweron: ";
    assert!(ended.stdout.contains(told), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("the fault injected at Start"),
        "{}",
        ended.stdout
    );
    assert_eq!(place.made(), 0);
}

fn a_failed_allocation() {
    let place = Place::new();
    place.run_file(json!({ "faults": { "domain": "fail" } }), exit(0));
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let told = "FAIL the sandbox failed: ";
    assert!(ended.stdout.contains(told), "{}", ended.stdout);
    assert_eq!(place.made(), 0);
    assert!(place.results()[0].join("result.json").is_file());
}

fn a_failed_teardown() {
    let place = Place::new();
    place.run_file(
        json!({}),
        json!({ "finishes": { "exit_code": 0 }, "untidy": true }),
    );
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("teardown: cleanup: hook commands: it is a mess"),
        "{}",
        ended.stdout
    );

    place.run_file(json!({ "faults": { "removal": "fail" } }), exit(0));
    let ended = place.output(RUN);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let mut lines = ended.stdout.lines();
    assert!(
        lines.any(|line| line.contains("left behind: folder disk-")),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("seectl gc"), "{}", ended.stdout);
    assert_eq!(place.made(), 1);
    place.remove_made();
    let ended = place.output(["gc"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(place.made(), 0);
}

fn ls_and_gc() {
    let place = Place::new();
    place.run_file(json!({}), json!({}));
    assert_eq!(place.output(["ls"]).stdout, "no environments\n");
    assert_eq!(place.output(["gc"]).stdout, "nothing to remove\n");
    let mut running = place.running();
    running.wait_for("\"wait for sample_finished\"");

    let alive = place.output(["ls", "--output", "json"]).json();
    assert_eq!(alive[0]["state"], "alive");
    assert_eq!(alive[0]["holdings"].as_array().unwrap().len(), 3);
    let ended = place.output(["gc"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("alive: left alone"),
        "{}",
        ended.stdout
    );
    assert_eq!(place.made(), 3);

    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let listed = place.output(["ls"]);
    assert!(listed.stdout.contains("  orphaned, "), "{}", listed.stdout);
    assert!(listed.stdout.contains("sample.sh"), "{}", listed.stdout);
    assert!(
        place
            .output(["gc", "--older-than", "1h"])
            .stdout
            .contains("left alone")
    );
    assert!(
        place
            .output(["gc", "--dry-run"])
            .stdout
            .contains("would be removed")
    );
    assert_eq!(place.made(), 3);
    // What is not as it was recorded is refused, and said.
    let disk = std::fs::read_dir(place.path().join("made"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let disk = disk
        .into_iter()
        .find(|path| path.to_str().unwrap().contains("disk-"))
        .unwrap();
    let aside = place.path().join("aside");
    std::fs::rename(&disk, &aside).unwrap();
    std::fs::create_dir(&disk).unwrap();
    let ended = place.output(["gc"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.stdout.contains("refused: "), "{}", ended.stdout);
    std::fs::remove_dir(&disk).unwrap();
    std::fs::rename(&aside, &disk).unwrap();
    let identifier = alive[0]["identifier"].as_str().unwrap();
    let beginning = &identifier[..8];
    let listed = place.output(["ls", beginning, "--output", "json"]).json();
    assert_eq!(listed[0]["identifier"], json!(identifier));
    let ended = place.output(["gc", beginning]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(place.made(), 0);
    assert_eq!(place.output(["gc", identifier]).code, Some(4));
}
