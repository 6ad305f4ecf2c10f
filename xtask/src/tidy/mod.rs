//! `tidy`: the rules of the house that no compiler checks.
//!
//! Each rule is a room of its own and gives findings: a place, the rule's
//! name, and what would be right.

mod arrows;
mod card;
mod circles;
mod docs;
mod modules;
mod names;
mod source;
mod words;

use std::fmt;
use std::time::Instant;

use crate::failure::Failure;
use crate::workspace;

/// One place where a rule of the house is broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            rule,
            message,
        } = self;
        write!(f, "{path}:{line}: {rule}: {message}")
    }
}

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: cargo xtask tidy"));
    }
    let started = Instant::now();
    let files = check()?;
    println!(
        "tidy: {files} files keep the rules of the house ({:.2} s)",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Checks every rule and gives the number of files looked at.
pub(crate) fn check() -> Result<usize, Failure> {
    let root = workspace::root();
    let sources = source::all(&root)?;
    let mut findings = arrows::check(&root)?;
    findings.extend(card::check(&root)?);
    findings.extend(circles::check(&sources));
    findings.extend(docs::check(&sources));
    findings.extend(names::check(&sources, &names::prose(&root)?));
    findings.extend(words::check(&sources));
    findings.sort();
    findings.dedup();
    if findings.is_empty() {
        return Ok(sources.len());
    }
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    Err(Failure::new(format!(
        "{} broken rules of the house:\n{}",
        lines.len(),
        lines.join("\n")
    )))
}
