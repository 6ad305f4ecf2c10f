//! One JSON object a line: for programs.
//!
//! `docs/output.schema.json` describes those of a run, and a test compares. Commands that are no runs write objects of
//! their own in between.

use std::io::{self, Write};
use std::time::SystemTime;

use see_core::{RunHeader, RunUpdate, path_to_text};
use serde::Serialize;
use serde_json::json;

use super::update::{Renderer, Update};

pub(super) struct Json<W>(W);

impl<W: Write> Json<W> {
    pub(super) fn new(writer: W) -> Self {
        Self(writer)
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        // In one piece: a reader that is killed sees whole lines.
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.0.write_all(&line)?;
        self.0.flush()
    }
}

impl<W: Write + Send> Renderer for Json<W> {
    fn show(&mut self, update: &Update) -> io::Result<()> {
        match update {
            Update::Machine { .. } => Ok(()),
            Update::Run(update) => match update {
                RunUpdate::Begin(header) => self.line(&json!({ "run": header })),
                RunUpdate::Started(step) => {
                    self.line(&own("step_started", json!({ "step": step })))
                }
                RunUpdate::Ended(step) => self.line(&own(
                    "step_finished",
                    json!({ "step": step.step, "seconds": step.seconds, "error": step.error }),
                )),
                RunUpdate::Event(event) => self.line(event),
                _ => Ok(()),
            },
            Update::Image(report) => self.line(&own("image_progress", json!(report))),
            Update::Working(step) => self.line(&own("step_started", json!({ "step": step }))),
            Update::Told { json, .. } => self.line(json),
            Update::Result(result) => self.line(&json!({ "result": result })),
            Update::Note(note) | Update::Interrupted(note) => self.line(&json!({ "note": note })),
            Update::Finished(result) => self.line(&json!({ "result": result })),
            Update::Failed(errors) => {
                self.line(&json!({ "version": RunHeader::VERSION, "errors": errors }))
            }
            Update::Summary { results, not_run } => {
                let runs: Vec<_> = results
                    .iter()
                    .map(|result| {
                        json!({
                            "identifier": result.header.identifier,
                            "sample": result.header.sample.as_deref().map(path_to_text),
                            "results": path_to_text(&result.header.results),
                            "verdict": result.verdict,
                            "exit_code": result.exit_code,
                            "seconds": result.seconds,
                        })
                    })
                    .collect();
                let not_run: Vec<_> = not_run.iter().map(|path| path_to_text(path)).collect();
                self.line(&json!({ "summary": runs, "not_run": not_run }))
            }
        }
    }
}

/// A step of ours in the form of an event.
fn own(event: &str, attributes: serde_json::Value) -> serde_json::Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    json!({
        "event": event,
        "source": "seectl",
        "timestamp": now.unwrap_or_default().as_secs_f64(),
        "attributes": attributes,
    })
}
