//! What people read, on whatever surface: live lines while a run goes on, then its sum.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use see_core::{Event, ImagePhase, ImageReport, Value};

use super::escape;
use super::quantity::seconds;
use super::summary;
use super::surface::{Mark, Surface};
use super::update::{Renderer, Update};
use super::words;
use crate::outcome::Header;

/// Shows updates in lines.
pub(super) struct Text<S> {
    surface: S,
    /// When the run began, in seconds since 1970.
    started: f64,
    /// Where its results lie: paths beneath it are shown without it.
    results: PathBuf,
    /// The phase of the last line about an image, and its time.
    told: Option<(ImagePhase, Instant)>,
}

/// How often a line tells how far an image is, where no line can change.
const TELL: Duration = Duration::from_secs(10);

impl<S: Surface> Text<S> {
    pub(super) fn new(surface: S) -> Self {
        Self {
            surface,
            started: 0.0,
            results: PathBuf::new(),
            told: None,
        }
    }

    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.started = header.started;
        self.results.clone_from(&header.results);
        let run = self.surface.strong(&format!("run {}", header.identifier));
        self.surface.line(&run)?;
        if let Some(sample) = &header.sample {
            self.surface
                .line(&format!("sample:  {}", escape::path(sample)))?;
        }
        if let Some(command) = &header.command {
            self.surface
                .line(&format!("command: {}", escape::line(command)))?;
        }
        self.surface
            .line(&format!("results: {}", escape::path(&header.results)))
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let text = |name| event.get(name).and_then(Value::as_str);
        match (event.name(), event.said_by()) {
            ("step_started", "protocol") => {
                self.surface.busy(text("step"));
                Ok(())
            }
            ("step_finished", "protocol") => {
                let took = match event.get("seconds") {
                    Some(Value::Float(seconds)) => *seconds,
                    _ => 0.0,
                };
                let at = unix(event.timestamp());
                self.step(at, text("step").unwrap_or_default(), took, text("error"))
            }
            // Their steps are shown already.
            (_, "protocol") => Ok(()),
            (name, "environment") if name.starts_with("pre_") => Ok(()),
            (name, "environment") if name.starts_with("post_") => {
                match (name, event.get("forced")) {
                    ("post_shutdown", Some(Value::Bool(true))) => {
                        let told = "the guest did not shut down in time: its power was cut";
                        self.said(unix(event.timestamp()), told)
                    }
                    _ => Ok(()),
                }
            }
            // The whole output comes at the end.
            ("sample_output", _) => Ok(()),
            _ => {
                let words = words::of(event, &self.results);
                self.said(unix(event.timestamp()), &words)
            }
        }
    }

    fn image(&mut self, report: &ImageReport) -> io::Result<()> {
        if self.surface.bar(report) {
            return Ok(());
        }
        let now = Instant::now();
        let due = self
            .told
            .is_none_or(|(phase, told)| phase != report.phase || now - told >= TELL);
        if !due {
            return Ok(());
        }
        self.told = Some((report.phase, now));
        self.said(unix(SystemTime::now()), &words::of_image(report))
    }

    fn step(&mut self, at: f64, step: &str, took: f64, error: Option<&str>) -> io::Result<()> {
        self.surface.busy(None);
        let at = self.since(at);
        let took = seconds(took);
        let step = escape::line(step);
        match error {
            None => {
                let mark = self.surface.mark(Mark::Good);
                self.surface.line(&format!("{at} {mark} {step} ({took})"))
            }
            Some(error) => {
                let mark = self.surface.mark(Mark::Bad);
                let error = escape::line(error);
                self.surface
                    .line(&format!("{at} {mark} {step} ({took}): {error}"))
            }
        }
    }

    fn said(&mut self, at: f64, what: &str) -> io::Result<()> {
        let mark = self.surface.mark(Mark::Note);
        let what = escape::line(what);
        if self.started == 0.0 {
            // There is no run whose time it could be.
            return self.surface.line(&format!("{mark} {what}"));
        }
        let at = self.since(at);
        self.surface.line(&format!("{at} {mark} {what}"))
    }

    /// A time as the seconds since the run began.
    fn since(&self, at: f64) -> String {
        format!("{:>8}", seconds((at - self.started).max(0.0)))
    }
}

impl<S: Surface> Renderer for Text<S> {
    fn show(&mut self, update: &Update) -> io::Result<()> {
        match update {
            Update::Begin(header) => self.begin(header),
            Update::Started(step) => {
                self.surface.busy(Some(step));
                Ok(())
            }
            Update::Ended(step) => {
                let at = self.started + step.start + step.seconds;
                self.step(at, &step.step, step.seconds, step.error.as_deref())
            }
            Update::Event(event) => self.event(event),
            Update::Image(report) => self.image(report),
            Update::Working(step) => {
                self.told = None;
                self.surface.busy(Some(step));
                Ok(())
            }
            Update::Told { is_good, words, .. } => {
                self.surface.busy(None);
                let words = escape::line(words);
                let mark = match is_good {
                    Some(true) => self.surface.mark(Mark::Good),
                    Some(false) => self.surface.mark(Mark::Bad),
                    None => return self.surface.line(&words),
                };
                self.surface.line(&format!("{mark} {words}"))
            }
            Update::Result(_) => Ok(()),
            Update::Note(note) => self.said(unix(SystemTime::now()), note),
            Update::Finished(result) => {
                self.surface.busy(None);
                summary::of_run(&mut self.surface, result)
            }
            // The whole message is on stderr.
            Update::Failed(_) => {
                self.surface.busy(None);
                Ok(())
            }
            Update::Summary(results) => summary::of_runs(&mut self.surface, results),
        }
    }
}

fn unix(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
