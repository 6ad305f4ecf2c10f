//! The result of a sample of several for which no run could begin.

use std::path::Path;
use std::time::SystemTime;

use see_core::{Error, Identifier, IsolationVerdict};

use super::folder;
use super::once::{Once, since_1970};
use super::plan::Plan;
use crate::outcome::{Header, RunResult, Verdict};
use crate::render::Update;

impl Once<'_> {
    /// Tells of a sample that cannot be run, and why, as of one whose run failed: the others go on.
    pub(super) async fn refused(
        &self,
        plan: &Plan,
        sample: Option<&Path>,
        error: &Error,
    ) -> RunResult {
        let (identifier, settled) = (
            Identifier::random(),
            plan.settle(sample, self.host.registries()).ok(),
        );
        let root = settled.as_ref().map(|settled| settled.results_root.clone());
        let header = Header {
            identifier,
            run_file: plan.file().to_owned(),
            sample: sample.map(Path::to_owned),
            command: settled.and_then(|settled| settled.command),
            results: root
                .unwrap_or_else(|| plan.file().with_file_name("results"))
                .join(identifier.to_string()),
            started: since_1970(SystemTime::now()),
        };
        self.feed
            .send(Update::Begin(Box::new(header.clone())))
            .await;
        let verdict = Verdict::of_error(error);
        let mut result = RunResult {
            header,
            seconds: 0.0,
            verdict,
            exit_code: verdict.exit_code(None),
            failure: Some(error.chain()),
            never_answered: false,
            last_screen: None,
            sample_result: None,
            isolation: IsolationVerdict::NoWalls,
            steps: Vec::new(),
            artifacts: Vec::new(),
            more_artifacts: 0,
            teardown_errors: Vec::new(),
            left_behind: Vec::new(),
            looked_for: Vec::new(),
            kept_until: None,
            mishaps: Vec::new(),
            notes: self.notes.clone(),
            events_not_shown: 0,
        };
        let written = match folder::make(result.header.results.clone()).await {
            Ok(()) => folder::write(&result).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            result.mishaps.push(error.chain());
        }
        self.feed
            .send(Update::Finished(Box::new(result.clone())))
            .await;
        result
    }
}
