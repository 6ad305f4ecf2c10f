//! How a run went: the sample's end and output first, then what a person has to know of it.

use std::io;
use std::path::Path;
use std::time::Duration;

use console::measure_text_width;
use see_core::ledger::Looked;
use see_core::{IsolationVerdict, RunResult, StepResult, Verdict};

use super::quantity::{age, seconds, size};
use super::surface::{Mark, Surface, indented, marked};
use super::{escape, sample, words};

/// Artifacts that are listed by name.
const MOST_ARTIFACTS: usize = 50;
/// The width of the timeline's names and times, and of the narrowest bars beside them.
const BESIDE: usize = 16;
const NARROWEST: usize = 10;
/// The widest bars of the timeline.
const WIDEST: usize = 60;

/// Shows how a run went.
pub(super) fn of_run(
    surface: &mut impl Surface,
    result: &RunResult,
    is_verbose: bool,
) -> io::Result<()> {
    surface.line("")?;
    if is_verbose {
        timeline(surface, &result.steps)?;
    }
    how_it_ended(surface, result)?;
    output(surface, result, is_verbose)?;
    isolation(surface, &result.isolation, is_verbose)?;
    for mishap in &result.mishaps {
        // The one that decided was told above.
        if !result
            .failure
            .as_ref()
            .is_some_and(|failure| failure.contains(mishap))
        {
            marked(surface, "", Mark::Bad, &escape::line(mishap))?;
        }
    }
    artifacts(surface, result, is_verbose)?;
    teardown(surface, result)
}

/// The sample's end, and what ended the run early.
fn how_it_ended(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    let name = words::of_run(&result.header);
    let mark = match result.verdict {
        Verdict::Ok => Mark::Good,
        _ => Mark::Bad,
    };
    if let Some(sample) = &result.sample_result {
        let ended = surface.strong(&format!("{name} {}", words::of_sample(sample)));
        marked(surface, "", mark, &ended)?;
        if let Some(error) = &sample.error {
            indented(surface, "  ", &escape::line(error))?;
        }
    }
    let is_told = match result.verdict {
        Verdict::Ok | Verdict::SampleFailed | Verdict::SampleUnfinished => {
            result.sample_result.is_some()
        }
        _ => false,
    };
    let verdict = words::of_verdict(result.verdict);
    match &result.failure {
        Some(failure) => {
            let told = format!("{verdict}: {}", escape::line(failure));
            marked(surface, "", mark, &told)?;
            never_answered(surface, result)
        }
        None if is_told => Ok(()),
        None => marked(surface, "", mark, verdict),
    }
}

/// What helps where the guest never answered.
fn never_answered(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    if !result.never_answered {
        return Ok(());
    }
    if let Some(screen) = &result.last_screen {
        let screen = result.header.results.join(screen);
        let screen = escape::path(&sample::shortest(&screen));
        indented(surface, "  last screen  ", &screen)?;
    }
    for (lead, advice) in [
        (
            "  try          ",
            "does the image boot by BIOS? `\"firmware\": \"efi\"` in `context` boots it by UEFI",
        ),
        (
            "               ",
            "is an agent started in it at boot? docs/run-file.md says how it is reached",
        ),
    ] {
        indented(surface, lead, advice)?;
    }
    Ok(())
}

/// What the sample printed; also of one whose end nobody saw: the hook's files are there all the same.
fn output(surface: &mut impl Surface, result: &RunResult, is_verbose: bool) -> io::Result<()> {
    // The hook names them as it likes; beneath the results folder they may be relative.
    let mut show = |name: &str, path: &Path| {
        sample::output(surface, name, &result.header.results.join(path), is_verbose)
    };
    if let Some(sample) = &result.sample_result {
        for (name, path) in [
            ("output", &sample.stdout),
            ("standard error", &sample.stderr),
        ] {
            if let Some(path) = path {
                show(name, path)?;
            }
        }
        return Ok(());
    }
    for artifact in result.artifacts.iter().take(MOST_ARTIFACTS) {
        match artifact.path.extension().and_then(|ending| ending.to_str()) {
            Some("stdout") => show("output so far", &artifact.path)?,
            Some("stderr") => show("standard error so far", &artifact.path)?,
            _ => {}
        }
    }
    Ok(())
}

/// What is known of the network's isolation; what went well was told when it did.
pub(super) fn isolation(
    surface: &mut impl Surface,
    verdict: &IsolationVerdict,
    is_verbose: bool,
) -> io::Result<()> {
    let (mark, words, why) = match verdict {
        IsolationVerdict::Proven if is_verbose => {
            (Mark::Good, "the network was closed: proven from inside", "")
        }
        IsolationVerdict::NotChecked { why } => (
            Mark::Note,
            "the network was closed as far as the host can tell; no guest tried it from inside",
            why.as_str(),
        ),
        IsolationVerdict::Unproven { why } => (
            Mark::Bad,
            "the guest did not prove that its network was closed",
            why.as_str(),
        ),
        IsolationVerdict::Broken { why, .. } => (
            Mark::Bad,
            "the network was not closed: do not trust these results",
            why.as_str(),
        ),
        _ => return Ok(()),
    };
    marked(surface, "", mark, words)?;
    match why {
        "" => Ok(()),
        why => indented(surface, "  ", &escape::line(why)),
    }
}

fn artifacts(surface: &mut impl Surface, result: &RunResult, is_verbose: bool) -> io::Result<()> {
    let count = result.artifacts.len() as u64 + result.more_artifacts;
    let bytes = result.artifacts.iter().map(|artifact| artifact.size).sum();
    let files = match count {
        0 => return Ok(()),
        1 => String::from("1 file"),
        count => format!("{count} files"),
    };
    let heading = surface.strong("results");
    let folder = escape::path(&sample::shortest(&result.header.results));
    let told = format!("{folder} ({files}, {})", size(bytes));
    indented(surface, &format!("{heading} "), &told)?;
    if !is_verbose {
        return Ok(());
    }
    for artifact in result.artifacts.iter().take(MOST_ARTIFACTS) {
        let told = format!("{} ({})", escape::path(&artifact.path), size(artifact.size));
        indented(surface, "  ", &told)?;
    }
    match count.saturating_sub(MOST_ARTIFACTS as u64) {
        0 => Ok(()),
        more => surface.line(&format!("  … {more} more")),
    }
}

/// The steps with their times, as bars where there is room for them.
fn timeline(surface: &mut impl Surface, steps: &[StepResult]) -> io::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let heading = surface.strong("timeline");
    surface.line(&heading)?;
    let ends = steps.iter().map(|step| step.start + step.seconds);
    let end = ends.fold(f64::MIN_POSITIVE, f64::max);
    let names: Vec<String> = steps.iter().map(|step| escape::line(&step.step)).collect();
    let longest = names.iter().map(|name| measure_text_width(name)).max();
    let width = longest.unwrap_or(0).min(40);
    let columns = surface.width().unwrap_or(usize::MAX);
    let room = columns.saturating_sub(width + BESIDE).min(WIDEST);
    for (step, name) in steps.iter().zip(names) {
        let took = seconds(step.seconds);
        let failed = if step.error.is_some() { " failed" } else { "" };
        if room < NARROWEST {
            indented(surface, "  ", &format!("{took:>8} {name}{failed}"))?;
            continue;
        }
        let column = |seconds: f64| (seconds / end * room as f64).round() as usize;
        let from = column(step.start).min(room - 1);
        let to = column(step.start + step.seconds).clamp(from + 1, room);
        let bar = format!("{:from$}{}", "", "=".repeat(to - from));
        let bar = format!("{bar:room$}");
        let name: String = name.chars().take(width).collect();
        let failed = if step.error.is_some() { "!" } else { "" };
        surface.line(&format!("  {name:width$} |{bar}| {took:>8}{failed}"))?;
    }
    Ok(())
}

/// How long the machine is kept, if it is.
pub(super) fn kept(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    let Some(until) = result.kept_until else {
        return Ok(());
    };
    let kept = Duration::from_secs_f64((until - result.header.started - result.seconds).max(0.0));
    let told = format!(
        "the machine is kept for {}: `seectl gc {} --include-kept` removes it",
        age(kept),
        result.header.identifier.short()
    );
    marked(surface, "", Mark::Good, &told)
}

fn teardown(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    kept(surface, result)?;
    if result.teardown_errors.is_empty() && result.left_behind.is_empty() {
        return looked_for(surface, result);
    }
    for error in &result.teardown_errors {
        marked(
            surface,
            "",
            Mark::Bad,
            &format!("teardown: {}", escape::line(error)),
        )?;
    }
    for left in &result.left_behind {
        marked(
            surface,
            "",
            Mark::Bad,
            &format!("left behind: {}", escape::line(left)),
        )?;
    }
    if !result.left_behind.is_empty() {
        surface.line("  run `seectl gc` to remove it")?;
    }
    Ok(())
}

/// What a look at the host gave where nothing was found that the run should have removed: nothing is claimed of what
/// this user could not look at, or may not remove.
fn looked_for(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    let looked: &[Looked] = &result.looked_for;
    // Before an allocation there was nothing to look for.
    if looked.is_empty() {
        return Ok(());
    }
    let total = seconds(result.seconds);
    let count = looked.iter().filter(|looked| looked.is_clear()).count();
    if count == looked.len() {
        let told = format!("nothing left on this host: {count} things looked for, {total} in all");
        return marked(surface, "", Mark::Good, &told);
    }
    let told = format!(
        "of {} things looked for on this host, {count} are gone; {total} in all",
        looked.len()
    );
    marked(surface, "", Mark::Bad, &told)?;
    for looked in looked.iter().filter(|looked| !looked.is_clear()) {
        let why = looked.denied.as_deref().or(looked.failed.as_deref());
        let why = why.unwrap_or_default();
        if looked.found.is_empty() {
            let told = format!("not looked at: {} ({why})", looked.what);
            indented(surface, "  ", &escape::line(&told))?;
        }
        for found in &looked.found {
            indented(
                surface,
                "  ",
                &escape::line(&format!("left: {found} ({why})")),
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use see_core::Identifier;

    use std::path::PathBuf;

    use super::*;
    use crate::render::plain::Plain;
    use crate::render::several;
    use see_core::{Artifact, RunHeader, SampleResult};

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
            header: RunHeader {
                version: RunHeader::VERSION,
                identifier: identifier.parse::<Identifier>().unwrap(),
                run_file: Some(PathBuf::from("/home/run.json")),
                sample: Some(PathBuf::from("/home/sample\x1b.sh")),
                command: None,
                results: folder,
                started: 0.0,
            },
            seconds: 7.5,
            verdict: Verdict::SampleFailed,
            exit_code: 1,
            failure: None,
            errors: Vec::new(),
            never_answered: false,
            last_screen: None,
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
        }
    }

    /// What is shown, with the folder's name replaced.
    fn shown(result: &RunResult) -> String {
        let mut bytes = Vec::new();
        of_run(&mut Plain::new(&mut bytes), result, true).unwrap();
        several::one(&mut Plain::new(&mut bytes), result).unwrap();
        several::all(
            &mut Plain::new(&mut bytes),
            std::slice::from_ref(result),
            &[],
        )
        .unwrap();
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
            "of 3 things looked for on this host, 1 are gone; 7.50 s in all",
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
