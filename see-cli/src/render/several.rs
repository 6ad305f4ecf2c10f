//! How the runs of a folder of samples went: a line for each, and their sum.

use std::io;
use std::path::{Path, PathBuf};

use see_core::{RunResult, Verdict};

use super::quantity::seconds;
use super::summary::{isolation, kept};
use super::surface::{Mark, Surface, indented, marked};
use super::{escape, sample, words};

/// Samples that are named of those that were not run.
const MOST_NAMES: usize = 5;

/// Shows how one of several runs went, in one line where it went well.
pub(super) fn one(surface: &mut impl Surface, result: &RunResult) -> io::Result<()> {
    let mark = match result.verdict {
        Verdict::Ok => Mark::Good,
        _ => Mark::Bad,
    };
    let mut told = format!(
        "{} {:>8}  {}: {}",
        result.header.identifier.short(),
        seconds(result.seconds),
        words::of_run(&result.header),
        words::of_verdict(result.verdict),
    );
    if let Some(failure) = result.failure.as_ref().or(result.teardown_errors.first()) {
        told.push_str(&format!(": {}", escape::line(failure)));
    } else if let Some(sample) = result.sample_result.as_ref()
        && result.verdict != Verdict::Ok
    {
        told.push_str(&format!(": it {}", words::of_sample(sample)));
    }
    marked(surface, "", mark, &told)?;
    isolation(surface, &result.isolation, false)?;
    kept(surface, result)?;
    for left in &result.left_behind {
        let told = format!(
            "left behind: {}; `seectl gc` removes it",
            escape::line(left)
        );
        indented(surface, "  ", &told)?;
    }
    Ok(())
}

/// Shows how several runs went, and names what was not run any more.
pub(super) fn all(
    surface: &mut impl Surface,
    results: &[RunResult],
    not_run: &[PathBuf],
) -> io::Result<()> {
    let mut counts: Vec<(Verdict, usize)> = Vec::new();
    for result in results {
        match counts
            .iter_mut()
            .find(|(verdict, _)| *verdict == result.verdict)
        {
            Some((_, count)) => *count += 1,
            None => counts.push((result.verdict, 1)),
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(verdict, count)| format!("{count} {}", words::of_verdicts(*verdict)))
        .collect();
    let total = results.iter().map(|result| result.seconds).sum();
    let heading = match results.len() {
        1 => String::from("1 run"),
        count => format!("{count} runs"),
    };
    let heading = surface.strong(&heading);
    let told = format!(
        "{heading}: {}, {} in all",
        counts.join(", "),
        seconds(total)
    );
    indented(surface, "", &told)?;
    if let Some(folder) = results
        .first()
        .and_then(|result| result.header.results.parent())
    {
        let heading = surface.strong("results");
        let folder = escape::path(&sample::shortest(folder));
        indented(surface, &format!("{heading} "), &folder)?;
    }
    if not_run.is_empty() {
        return Ok(());
    }
    let names = not_run.iter().filter_map(|path| path.file_name());
    let names: Vec<String> = names
        .take(MOST_NAMES)
        .map(|name| escape::path(Path::new(name)))
        .collect();
    let more = match not_run.len().saturating_sub(names.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let told = format!(
        "{} samples were not run: {}{more}",
        not_run.len(),
        names.join(", ")
    );
    marked(surface, "", Mark::Bad, &told)
}
