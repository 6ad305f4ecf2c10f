//! What the suite found.

use std::fmt;

use crate::Error;

/// What a check found, in words; nothing where there is nothing to add.
pub(super) type Outcome<T = String> = Result<T, Stumble>;

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum Stumble {
    Failed(String),
    NotApplicable(String),
}

impl Stumble {
    /// The same, told with what was being done.
    pub(super) fn during(self, what: impl fmt::Display) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{what}: {why}")),
            other => other,
        }
    }
}

impl From<Error> for Stumble {
    fn from(error: Error) -> Self {
        Self::Failed(error.chain())
    }
}

/// Goes on where the fact holds, and otherwise fails the check.
pub(super) fn ensure(fact: bool, otherwise: impl FnOnce() -> String) -> Outcome<()> {
    if fact {
        return Ok(());
    }
    Err(Stumble::Failed(otherwise()))
}

/// One line for each check.
#[derive(Debug, Clone, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

/// What one check found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The check's name, which stays the same between versions.
    pub name: &'static str,
    /// The fact that it shows.
    pub fact: &'static str,
    /// Whether it does.
    pub verdict: Verdict,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The fact holds; the text says how it was seen, where that is worth a word.
    Passed(String),
    /// It does not, and this was found instead.
    Failed(String),
    /// It cannot be tried, for this reason.
    NotApplicable(String),
}

impl Report {
    pub(super) fn add(&mut self, name: &'static str, fact: &'static str, verdict: Verdict) {
        self.findings.push(Finding {
            name,
            fact,
            verdict,
        });
    }

    /// All findings, in the order of the checks.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The verdict of the check of this name; `None` where it was not run.
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.findings
            .iter()
            .find(|finding| finding.name == name)
            .map(|finding| &finding.verdict)
    }

    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| matches!(finding.verdict, Verdict::Failed(_)))
    }

    /// Fails the test that calls it unless every check passed or cannot be tried.
    ///
    /// # Panics
    /// Where a check failed, with the whole report.
    pub fn assert_passed(&self) {
        assert!(
            !self.findings.is_empty() && self.failed().next().is_none(),
            "it does not conform:\n{self}"
        );
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding {
            name,
            fact,
            verdict,
        } in &self.findings
        {
            let (word, told) = match verdict {
                Verdict::Passed(told) => ("passed", told),
                Verdict::Failed(told) => ("FAILED", told),
                Verdict::NotApplicable(told) => ("not applicable", told),
            };
            write!(f, "{word:<14} {name:<20} {fact}")?;
            if !told.is_empty() {
                write!(f, ": {told}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
