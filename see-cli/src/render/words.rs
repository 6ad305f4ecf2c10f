//! An event in one line.

use std::fmt::Write;
use std::path::Path;

use see_core::{
    Event, ISOLATION_BROKEN, ISOLATION_NOT_CHECKED, ISOLATION_PROVEN, ImagePhase, ImageReport,
    RunHeader, SAMPLE_FINISHED, SampleResult, Value, Verdict,
};

use super::escape;
use super::quantity::{seconds, size};
use super::surface::Mark;

/// What is shown of one value; a guest may have chosen it.
const LONGEST: usize = 200;

/// The event's name and what it says; not yet harmless for a terminal.
///
/// Paths beneath `results` are shown without it. The time is left out, since each line has one.
pub(super) fn of(event: &Event, results: &Path) -> String {
    if event.name() == SAMPLE_FINISHED {
        return format!("{}: {}", event.name(), of_sample(&SampleResult::of(event)));
    }
    let mut words = event.name().to_owned();
    // A message says in a sentence what the other attributes say to programs.
    if let Some(message) = event.get("message").and_then(Value::as_str) {
        push(&mut words, format_args!(": {}", shortened(message)));
        return words;
    }
    for (name, value) in event.attributes() {
        let shown = match value {
            Value::Null => continue,
            _ if name == "seconds" => continue,
            Value::Float(number) => format!("{number:.3}"),
            Value::Text(text) => shortened(within(text.as_str(), results)),
            _ => shortened(&serde_json::to_string(value).unwrap_or_default()),
        };
        push(&mut words, format_args!(" {name}={shown}"));
    }
    words
}

/// What everybody is told of an event while a run goes on; nothing of those that only some want to know.
pub(super) fn for_all(event: &Event) -> Option<(Mark, String)> {
    let text = |name| event.get(name).and_then(Value::as_str);
    let took = || match event.get("seconds") {
        Some(Value::Float(took)) => format!(" after {}", seconds(*took)),
        _ => String::new(),
    };
    let told = match event.name() {
        "ready" => (Mark::Good, format!("the guest is ready{}", took())),
        ISOLATION_PROVEN => {
            let tried = match event.get("tried") {
                Some(Value::Integer(tried)) => format!(" ({tried} targets tried)"),
                _ => String::new(),
            };
            (Mark::Good, format!("closed network proven{tried}"))
        }
        ISOLATION_BROKEN | ISOLATION_NOT_CHECKED | "waiting_for_guest" | "sample_renamed" => {
            (Mark::Note, shortened(text("message")?))
        }
        // What the guest did by itself.
        name if event.said_by() == "environment" => (Mark::Note, name.replace('_', " ")),
        _ => return None,
    };
    Some(told)
}

/// What runs, in a few harmless words: the sample's name, or else the command.
pub(super) fn of_run(header: &RunHeader) -> String {
    let sample = header.sample.as_deref().and_then(Path::file_name);
    match (sample, &header.command) {
        (Some(name), _) => escape::path(Path::new(name)),
        (None, Some(command)) => escape::line(&shortened(command)),
        (None, None) => String::from("no sample"),
    }
}

/// The sum of a run in words.
pub(super) fn of_verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "all went well",
        Verdict::SampleFailed => "the sample failed",
        Verdict::SampleUnfinished => "the sample did not end by itself",
        Verdict::HookFailed => "a hook failed",
        Verdict::BadConfiguration => "the configuration is wrong",
        Verdict::MissingRights => "rights are missing",
        Verdict::Interrupted => "interrupted",
        _ => "the sandbox failed",
    }
}

/// The same in a few words that follow a count of runs.
pub(super) fn of_verdicts(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "went well",
        Verdict::SampleFailed => "with a sample that failed",
        Verdict::SampleUnfinished => "with a sample that did not end",
        Verdict::HookFailed => "with a hook that failed",
        Verdict::BadConfiguration => "wrongly configured",
        Verdict::MissingRights => "without the rights",
        Verdict::Interrupted => "interrupted",
        _ => "with a sandbox that failed",
    }
}

/// How a sample ended, in words that follow its name.
pub(super) fn of_sample(sample: &SampleResult) -> String {
    let mut words = match (sample.exit_code, sample.signal) {
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some(code), None) => format!("ended with exit code {code}"),
        (None, None) => String::from("ended without an exit code"),
    };
    if let Some(took) = sample.seconds {
        push(&mut words, format_args!(" after {}", seconds(took)));
    }
    for (is_so, told) in [
        (sample.timed_out, ", its time ran out"),
        (sample.agent_lost, ", the agent in the guest was lost"),
        (sample.truncated, ", it printed more than was kept"),
    ] {
        if is_so {
            words.push_str(told);
        }
    }
    words
}

/// A step in the words of people, for the line that says what is under way.
pub(super) fn of_step(step: &str) -> String {
    let words = match step {
        "allocate" => "making the machine",
        "poweron" => "starting the machine",
        "wait for ready" => "waiting for the guest",
        "trigger run_sample" | "wait for sample_finished" => "running the sample",
        "trigger snapshots_capture" => "taking snapshots",
        "shutdown" => "shutting the guest down",
        "trigger start_analysis" | "trigger wait_analysis" => "analysing",
        "teardown" => "removing the machine",
        step => step,
    };
    words.to_owned()
}

/// An error without the step that stands before it already.
pub(super) fn without_twice<'a>(step: &str, error: &'a str) -> &'a str {
    let rest = error.strip_prefix(step);
    rest.and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(error)
}

/// What a provider or a backend is busy with: `fetching the image (http)`.
pub(super) fn of_phase(report: &ImageReport) -> String {
    let phase = match report.phase {
        ImagePhase::Waiting => {
            "waiting for the image, which another process is fetching or uploading".to_owned()
        }
        ImagePhase::Uploading => return "uploading the image to the hypervisor's host".to_owned(),
        phase => format!("{} the image", phase.words()),
    };
    match report.provider {
        "" => phase,
        provider => format!("{phase} ({provider})"),
    }
}

/// How far it is: `fetching the image (http): 1.0 MiB of 4.0 MiB, 25 %`.
pub(super) fn of_image(report: &ImageReport) -> String {
    let (phase, done) = (of_phase(report), size(report.done));
    match report.total {
        Some(total) if total > 0 => {
            let percent = report.done.min(total) as f64 / total as f64 * 100.0;
            format!("{phase}: {done} of {}, {percent:.0} %", size(total))
        }
        _ => format!("{phase}: {done}"),
    }
}

fn within<'a>(text: &'a str, results: &Path) -> &'a str {
    let inside = Path::new(text).strip_prefix(results).ok();
    match inside.and_then(Path::to_str) {
        Some(inside) if !results.as_os_str().is_empty() && !inside.is_empty() => inside,
        _ => text,
    }
}

fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn push(words: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = words.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_an_image_is_says_bytes_and_percents() {
        let progress = see_core::ImageProgress::new();
        let told = || of_image(&progress.listen().borrow());
        progress.phase(ImagePhase::Fetching, Some(4 << 20));
        progress.report(1 << 20, Some(4 << 20));
        assert_eq!(told(), "fetching the image: 1.0 MiB of 4.0 MiB, 25 %");
        progress.phase(ImagePhase::Waiting, None);
        progress.report(2048, None);
        assert_eq!(
            told(),
            "waiting for the image, which another process is fetching or uploading: 2.0 KiB"
        );
    }

    #[test]
    fn events_are_short() {
        let results = Path::new("/r/run");
        let words = |event: Event| of(&event, results);
        assert_eq!(words(Event::new("ready").with("seconds", 3.5)), "ready");
        assert_eq!(
            words(Event::new("ip_address").with("address", "192.0.2.1")),
            "ip_address address=192.0.2.1"
        );
        assert_eq!(
            words(Event::new("screenshot_taken").with("path", "/r/run/a/b.png")),
            "screenshot_taken path=a/b.png"
        );
        assert_eq!(
            words(
                Event::new("waiting_for_guest")
                    .with("cause", "no_lease")
                    .with("message", "no lease yet")
            ),
            "waiting_for_guest: no lease yet"
        );
        assert_eq!(
            words(
                Event::new("sample_finished")
                    .with("exit_code", 3)
                    .with("stdout", "/r/run/x")
            ),
            "sample_finished: ended with exit code 3"
        );
        assert_eq!(
            words(Event::new("x").with("y", "z".repeat(300)))
                .chars()
                .count(),
            4 + 201
        );
    }
}
