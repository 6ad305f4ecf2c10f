//! A sandbox that cannot be measured: when that has lasted too long, and what follows.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, ErrorKind};

/// Measurements in a row that may fail.
const BLIND: u32 = 3;
/// How long they may: a machine that starts, or a daemon that restarts, is not measured for a while.
const WHILE: Duration = Duration::from_secs(15);

/// The measurements in a row that failed.
#[derive(Debug)]
pub(super) struct Blindness {
    /// The limits that somebody wrote: without a measurement nobody keeps them.
    written: Vec<&'static str>,
    failures: u32,
    since: Option<Instant>,
    told: bool,
}

/// What follows of measurements that fail for too long, once in a run.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The run ends: a limit that somebody wrote cannot be kept.
    Ends(Error),
    /// Nobody wrote a limit: it is told.
    Told(Error),
}

impl Blindness {
    pub(super) fn new(written: Vec<&'static str>) -> Self {
        Self {
            written,
            failures: 0,
            since: None,
            told: false,
        }
    }

    /// It was measured.
    pub(super) fn sees(&mut self) {
        self.failures = 0;
        self.since = None;
    }

    /// It could not be measured.
    pub(super) fn failed(&mut self, error: Error, now: Instant) -> Option<Verdict> {
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        if self.failures < BLIND || now.duration_since(since) < WHILE || self.told {
            return None;
        }
        self.told = true;
        let keys: Vec<String> = self
            .written
            .iter()
            .map(|key| format!("`context.limits.{key}`"))
            .collect();
        let what = "what the sandbox takes of the host cannot be measured";
        if keys.is_empty() {
            let message = format!("{what}, and the limits that hold by default are not kept");
            return Some(Verdict::Told(
                Error::new(ErrorKind::Unavailable, message).caused_by(error),
            ));
        }
        let message = format!("{what}, and nothing keeps {}", keys.join(", "));
        let ends = Error::new(ErrorKind::Unavailable, message).caused_by(error);
        Some(Verdict::Ends(
            ends.advice("without the key the run goes on, and only says so"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows when a measurement fails every quarter of a second for so long.
    fn after(blindness: &mut Blindness, begin: Instant, time: Duration) -> Vec<Verdict> {
        let tick = Duration::from_millis(250);
        let ticks = u32::try_from(time.as_millis() / tick.as_millis()).unwrap();
        let failed = |_: u32| Error::new(ErrorKind::Unavailable, "injected");
        let verdicts = (0..=ticks).filter_map(|n| blindness.failed(failed(n), begin + tick * n));
        verdicts.collect()
    }

    #[test]
    fn a_written_limit_that_nothing_measures_any_more_ends_the_run_once_and_is_named() {
        let mut blindness = Blindness::new(vec!["cpu", "pids"]);
        let verdicts = after(&mut blindness, Instant::now(), WHILE * 3);
        let [Verdict::Ends(error)] = &verdicts[..] else {
            panic!("{verdicts:?}");
        };
        for part in ["`context.limits.cpu`", "`context.limits.pids`", "injected"] {
            assert!(error.chain().contains(part), "no {part} in {error:?}");
        }
    }

    #[test]
    fn limits_that_nobody_wrote_end_no_run() {
        let mut blindness = Blindness::new(Vec::new());
        let verdicts = after(&mut blindness, Instant::now(), WHILE * 3);
        assert!(matches!(verdicts[..], [Verdict::Told(_)]), "{verdicts:?}");
    }

    #[test]
    fn a_machine_that_cannot_be_measured_for_a_moment_now_and_then_ends_no_run() {
        let mut blindness = Blindness::new(vec!["cpu"]);
        let mut begin = Instant::now();
        for _ in 0..10 {
            let verdicts = after(&mut blindness, begin, WHILE - Duration::from_secs(1));
            assert!(verdicts.is_empty(), "{verdicts:?}");
            blindness.sees();
            begin += WHILE;
        }
        // Two measurements that took long are no proof.
        let late = || Error::new(ErrorKind::Timeout, "injected");
        assert!(blindness.failed(late(), begin).is_none());
        assert!(blindness.failed(late(), begin + WHILE).is_none());
        assert!(blindness.failed(late(), begin + WHILE).is_some());
    }
}
