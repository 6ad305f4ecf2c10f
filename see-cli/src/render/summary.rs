//! The sum of a run: the sample's end and output, artifacts, timeline, teardown, verdict.

use std::io;
use std::path::Path;
use std::time::Duration;

use see_core::IsolationVerdict;
use see_core::ledger::Looked;

use super::escape;
use super::quantity::{age, seconds, size};
use super::sample;
use super::surface::{Mark, Surface};
use crate::outcome::{RunResult, StepResult, Verdict};

/// Artifacts that are listed by name.
const MOST_ARTIFACTS: usize = 50;
/// The width of the timeline's bars.
const BAR: usize = 30;

/// Shows the sum of a run.
pub(super) fn of_run(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    surface.line("")?;
    if let Some(sample) = &result.sample_result {
        let ended = surface.strong(&format!("sample: {}", sample.words()));
        surface.line(&ended)?;
        if let Some(error) = &sample.error {
            surface.line(&format!("  {}", escape::line(error)))?;
        }
        for (name, path) in [("stdout", &sample.stdout), ("stderr", &sample.stderr)] {
            if let Some(path) = path {
                // The hook names it as it likes; beneath the results folder it may be relative.
                sample::output(surface, name, &result.header.results.join(path))?;
            }
        }
    } else {
        gathered(surface, result)?;
    }
    isolation(surface, &result.isolation)?;
    artifacts(surface, result)?;
    timeline(surface, &result.steps)?;
    for mishap in &result.mishaps {
        let mark = surface.mark(Mark::Bad);
        surface.line(&format!("{mark} {}", escape::line(mishap)))?;
    }
    if result.events_not_shown > 0 {
        let count = result.events_not_shown;
        surface.line(&format!(
            "{count} events came faster than they could be shown"
        ))?;
    }
    teardown(surface, result)?;
    let good = result.verdict == Verdict::Ok;
    let mark = surface.mark(if good { Mark::Good } else { Mark::Bad });
    let words = surface.strong(result.verdict.words());
    let total = seconds(result.seconds);
    surface.line(&format!("{mark} {words}, {total} in all"))?;
    match &result.failure {
        Some(failure) => surface.line(&format!("  {}", escape::line(failure))),
        None => Ok(()),
    }
}

/// What is known of the walls around the guest; nothing where it has none.
fn isolation(surface: &mut impl Surface, verdict: &IsolationVerdict) -> io::Result<()> {
    let (mark, words) = match verdict {
        IsolationVerdict::Proven => (Mark::Good, "the network was closed: proven from inside"),
        IsolationVerdict::NotChecked { .. } => (
            Mark::Good,
            "the network's walls stood; no guest tried them from inside",
        ),
        IsolationVerdict::Unproven { .. } => (
            Mark::Bad,
            "the guest did not prove that its network was closed",
        ),
        IsolationVerdict::Broken { .. } => (
            Mark::Bad,
            "the network was not closed: do not trust these results",
        ),
        _ => return Ok(()),
    };
    let mark = surface.mark(mark);
    surface.line(&format!("{mark} {words}"))?;
    match verdict {
        IsolationVerdict::Broken { why, .. }
        | IsolationVerdict::Unproven { why }
        | IsolationVerdict::NotChecked { why } => surface.line(&format!("  {}", escape::line(why))),
        _ => Ok(()),
    }
}

/// What a sample printed whose end nobody saw: the hook's files are there all the same.
fn gathered(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    for artifact in result.artifacts.iter().take(MOST_ARTIFACTS) {
        let ending = artifact.path.extension().and_then(|ending| ending.to_str());
        if let Some(name @ ("stdout" | "stderr")) = ending {
            let name = format!("{name} so far");
            sample::output(surface, &name, &result.header.results.join(&artifact.path))?;
        }
    }
    Ok(())
}

fn artifacts(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    let count = result.artifacts.len() as u64 + result.more_artifacts;
    if count == 0 {
        return Ok(());
    }
    let folder = escape::line(&result.header.results.display().to_string());
    let heading = surface.strong(&format!("artifacts in {folder}"));
    surface.line(&heading)?;
    let shown = result.artifacts.iter().take(MOST_ARTIFACTS);
    for artifact in shown {
        let path = escape::line(&artifact.path.display().to_string());
        surface.line(&format!("  {path} ({})", size(artifact.size)))?;
    }
    let more = count.saturating_sub(MOST_ARTIFACTS as u64);
    if more > 0 {
        surface.line(&format!("  … {more} more"))?;
    }
    Ok(())
}

fn timeline(surface: &mut impl Surface, steps: &[StepResult]) -> io::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let heading = surface.strong("timeline");
    surface.line(&heading)?;
    let end = steps
        .iter()
        .map(|step| step.start + step.seconds)
        .fold(f64::MIN_POSITIVE, f64::max);
    let names: Vec<String> = steps.iter().map(|step| escape::line(&step.step)).collect();
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        .min(40);
    for (step, name) in steps.iter().zip(names) {
        let column = |seconds: f64| (seconds / end * BAR as f64).round() as usize;
        let from = column(step.start).min(BAR - 1);
        let to = column(step.start + step.seconds).clamp(from + 1, BAR);
        let bar = format!(
            "{}{}{}",
            " ".repeat(from),
            "=".repeat(to - from),
            " ".repeat(BAR - to)
        );
        let took = seconds(step.seconds);
        let failed = if step.error.is_some() { "  failed" } else { "" };
        surface.line(&format!("  {name:<width$} |{bar}| {took:>8}{failed}"))?;
    }
    Ok(())
}

fn teardown(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    if let Some(until) = result.kept_until {
        let mark = surface.mark(Mark::Good);
        let kept =
            Duration::from_secs_f64((until - result.header.started - result.seconds).max(0.0));
        surface.line(&format!(
            "{mark} the machine is kept for {}: `seectl gc {} --include-kept` removes it",
            age(kept),
            result.header.identifier
        ))?;
    }
    if result.teardown_errors.is_empty() && result.left_behind.is_empty() {
        return looked_for(surface, &result.looked_for);
    }
    let mark = surface.mark(Mark::Bad);
    for error in &result.teardown_errors {
        surface.line(&format!("{mark} teardown: {}", escape::line(error)))?;
    }
    for left in &result.left_behind {
        surface.line(&format!("{mark} left behind: {}", escape::line(left)))?;
    }
    if !result.left_behind.is_empty() {
        surface.line("  run `seectl gc` to remove it")?;
    }
    Ok(())
}

/// What a look at the host gave where nothing was found that the run should have removed: nothing is claimed of what
/// this user could not look at, or may not remove.
fn looked_for(surface: &mut impl Surface, looked: &[Looked]) -> io::Result<()> {
    // Before an allocation there was nothing to look for.
    if looked.is_empty() {
        return Ok(());
    }
    let count = looked.iter().filter(|looked| looked.is_clear()).count();
    if count == looked.len() {
        let mark = surface.mark(Mark::Good);
        return surface.line(&format!(
            "{mark} nothing left on this host: {count} things looked for"
        ));
    }
    let mark = surface.mark(Mark::Bad);
    surface.line(&format!(
        "{mark} of {} things looked for on this host, {count} are gone",
        looked.len()
    ))?;
    for looked in looked.iter().filter(|looked| !looked.is_clear()) {
        let why = looked.denied.as_deref().or(looked.failed.as_deref());
        let why = why.unwrap_or_default();
        if looked.found.is_empty() {
            let line = format!("  not looked at: {} ({why})", looked.what);
            surface.line(&escape::line(&line))?;
        }
        for found in &looked.found {
            surface.line(&escape::line(&format!("  left: {found} ({why})")))?;
        }
    }
    Ok(())
}

/// Shows one line for each of several runs.
pub(super) fn of_runs(surface: &mut impl Surface, results: &[RunResult]) -> io::Result<()> {
    surface.line("")?;
    let heading = surface.strong(&format!("{} runs", results.len()));
    surface.line(&heading)?;
    for result in results {
        let good = result.verdict == Verdict::Ok;
        let mark = surface.mark(if good { Mark::Good } else { Mark::Bad });
        let sample = result
            .header
            .sample
            .as_deref()
            .and_then(|path| path.file_name());
        let sample = Path::new(sample.unwrap_or_default());
        let took = seconds(result.seconds);
        let short = result.header.identifier.short();
        surface.line(&format!(
            "{mark} {short} {took:>8}  {}: {}",
            escape::path(sample),
            result.verdict.words(),
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use see_core::Identifier;

    use super::*;
    use crate::outcome::{Artifact, Header, SampleResult};
    use crate::render::plain::Plain;

    fn step(step: &str, start: f64, seconds: f64, error: Option<&str>) -> StepResult {
        StepResult {
            step: step.to_owned(),
            start,
            seconds,
            error: error.map(str::to_owned),
        }
    }

    fn result(folder: PathBuf) -> RunResult {
        let identifier = "7f0c1a52-4a3e-4d0b-9f53-1f2f64c0a9de";
        RunResult {
            header: Header {
                identifier: identifier.parse::<Identifier>().unwrap(),
                run_file: PathBuf::from("/home/run.json"),
                sample: Some(PathBuf::from("/home/sample\x1b.sh")),
                command: None,
                results: folder,
                started: 0.0,
            },
            seconds: 7.5,
            verdict: Verdict::SampleFailed,
            exit_code: 1,
            failure: None,
            sample_result: Some(SampleResult {
                exit_code: Some(3),
                stdout: Some(PathBuf::from("sample.stdout")),
                truncated: true,
                ..SampleResult::default()
            }),
            isolation: IsolationVerdict::NoWalls,
            steps: vec![
                step("allocate", 0.0, 0.5, None),
                step("poweron", 0.5, 0.25, None),
                step("wait for ready", 0.75, 4.0, None),
                step("teardown", 7.25, 0.25, None),
            ],
            artifacts: vec![Artifact {
                path: PathBuf::from("sample.stdout"),
                size: 70_000,
            }],
            more_artifacts: 0,
            teardown_errors: Vec::new(),
            left_behind: Vec::new(),
            looked_for: vec![Looked::clear("its processes"), Looked::clear("its sockets")],
            kept_until: None,
            mishaps: vec![String::from("hook screen: ready: it failed")],
            notes: Vec::new(),
            events_not_shown: 0,
        }
    }

    /// What is shown, with the folder's name replaced.
    fn shown(result: &RunResult) -> String {
        let mut bytes = Vec::new();
        of_run(&mut Plain::new(&mut bytes), result).unwrap();
        of_runs(&mut Plain::new(&mut bytes), std::slice::from_ref(result)).unwrap();
        let folder = result.header.results.display().to_string();
        String::from_utf8(bytes)
            .unwrap()
            .replace(&folder, "RESULTS")
    }

    #[test]
    fn the_sum_of_a_run_is_told_whole() {
        let folder = tempfile::tempdir().unwrap();
        let printed = format!("one\r\ntwo\x1b[2J\n{}", "x".repeat(70_000));
        std::fs::write(folder.path().join("sample.stdout"), printed).unwrap();
        let text = shown(&result(folder.path().to_owned()));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_this_user_could_not_look_at_or_remove_is_told_and_nothing_is_claimed() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Looked::clear("libvirt's logs").denied("it is root's");
        let log = String::from("/var/log/libvirt/qemu/7f0c1a52.log");
        let result = RunResult {
            looked_for: vec![
                Looked::clear("its processes"),
                roots.clone(),
                roots.with([log]),
            ],
            ..result(folder.path().to_owned())
        };
        let text = shown(&result);
        assert!(!text.contains("nothing left"), "{text}");
        for line in [
            "of 3 things looked for on this host, 1 are gone",
            "  not looked at: libvirt's logs (it is root's)",
            "  left: /var/log/libvirt/qemu/7f0c1a52.log (it is root's)",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn what_is_left_behind_is_named_with_the_way_to_remove_it() {
        let folder = tempfile::tempdir().unwrap();
        let failed = RunResult {
            verdict: Verdict::SandboxFailed,
            sample_result: None,
            failure: Some(String::from("poweron: no\nway")),
            steps: vec![
                step("allocate", 0.0, 0.5, None),
                step("poweron", 0.5, 0.1, Some("no way")),
            ],
            teardown_errors: vec![String::from("deallocate: 1 resources could not be removed")],
            left_behind: vec![String::from("domain 7f0c1a52")],
            mishaps: Vec::new(),
            notes: Vec::new(),
            artifacts: Vec::new(),
            ..result(folder.path().to_owned())
        };
        insta::assert_snapshot!(shown(&failed));
    }
}
