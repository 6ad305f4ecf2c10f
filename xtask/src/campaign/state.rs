//! Where a campaign stands, kept between its chunks, and its report.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// How the lines begin that name instants and what was left after them.
pub(super) const INSTANTS: &str = "instants tried:";

/// Where a campaign stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) commit: String,
    pub(super) seed: u64,
    pub(super) host: String,
    pub(super) wanted: u64,
    pub(super) done: u64,
    /// The rounds of the chunks that passed.
    pub(super) passed: u64,
    pub(super) failed_chunks: Vec<String>,
    pub(super) leaks: Vec<String>,
    /// What the program says of each chunk.
    pub(super) told: Vec<String>,
    pub(super) seconds: u64,
}

impl State {
    /// The next chunk's count and seed; none when everything is done.
    pub(super) fn next(&self, chunk: u64) -> Option<(u64, u64)> {
        let left = self.wanted.saturating_sub(self.done);
        (left > 0).then(|| (left.min(chunk), self.seed.wrapping_add(self.done)))
    }

    /// How many instants the rounds have tried, and how many leaks they have found.
    fn tried(&self) -> (u64, u64) {
        let number = |line: &str, key: &str| -> u64 {
            let rest = line
                .split_once(key)
                .map_or("", |(_, rest)| rest.trim_start());
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        let lines = self.told.iter().filter(|line| line.contains(INSTANTS));
        lines.fold((0, 0), |(instants, leaks), line| {
            let more = (number(line, INSTANTS), number(line, "leaks:"));
            (instants + more.0, leaks + more.1)
        })
    }

    pub(super) fn report(&self, name: &str) -> String {
        let mut text = format!("# Campaign {name}\n\n");
        let _ = writeln!(text, "- commit: {}", self.commit);
        let _ = writeln!(text, "- seed: {}", self.seed);
        let _ = writeln!(text, "- host: {}", self.host);
        let _ = writeln!(text, "- rounds: {} of {}", self.done, self.wanted);
        let _ = writeln!(text, "- rounds in chunks that passed: {}", self.passed);
        let _ = writeln!(text, "- time: {} s", self.seconds);
        let _ = writeln!(text, "- chunks that failed: {}", self.failed_chunks.len());
        let (instants, leaks) = self.tried();
        match instants {
            // Not every campaign cuts something off.
            0 => drop(writeln!(text, "- leaks: {}", self.leaks.len())),
            _ => drop(writeln!(
                text,
                "- instants tried: {instants}, leaks: {}",
                leaks + self.leaks.len() as u64
            )),
        }
        for line in self.failed_chunks.iter().chain(&self.leaks) {
            let _ = writeln!(text, "  - {line}");
        }
        if !self.told.is_empty() {
            text.push_str("\nWhat the rounds said:\n");
        }
        for line in &self.told {
            let _ = writeln!(text, "- {line}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            commit: "c0ffee".to_owned(),
            seed: 7,
            host: "host".to_owned(),
            wanted: 25,
            done: 0,
            passed: 0,
            failed_chunks: Vec::new(),
            leaks: vec!["process 1".to_owned()],
            told: vec!["seed 7: instants tried: 10, leaks: 0".to_owned()],
            seconds: 3,
        }
    }

    #[test]
    fn chunks_go_on_where_they_were_with_seeds_of_their_own() {
        let mut state = state();
        assert_eq!(state.next(10), Some((10, 7)));
        state.done = 20;
        assert_eq!(state.next(10), Some((5, 27)));
        state.done = 25;
        assert_eq!(state.next(10), None);
    }

    #[test]
    fn the_reports_head_adds_up_instants_and_the_leaks_of_rounds_and_host() {
        let mut state = state();
        state.told = vec![
            "seed 7: instants tried: 10 (System, ledger steps), inside: 9, leaks: 0".to_owned(),
            "seed 7: instants tried: 6 (Lxc, PowerOn), inside: 5, leaks: 2".to_owned(),
            "seed 7: cycles: 3".to_owned(),
        ];
        let report = state.report("kills");
        assert!(
            report.contains("- instants tried: 16, leaks: 3\n"),
            "{report}"
        );
    }

    #[test]
    fn the_report_names_commit_seed_counts_host_and_leaks() {
        let report = state().report("kills");
        for part in [
            "c0ffee",
            "seed: 7",
            "0 of 25",
            "host: host",
            "process 1",
            "instants tried: 10",
        ] {
            assert!(report.contains(part), "{part} in {report}");
        }
    }
}
