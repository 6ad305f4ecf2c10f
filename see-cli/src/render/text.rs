//! What people read, on whatever surface: few lines while a run goes on, then how it went.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use see_core::{Event, ImagePhase, ImageReport, RunHeader, RunUpdate, Value};

use super::quantity::seconds;
use super::surface::{Mark, Surface, indented, marked};
use super::update::{Renderer, Update};
use super::{escape, several, summary, words};

/// Shows updates in lines.
pub(super) struct Text<S> {
    surface: S,
    /// Every step and event is shown, and not only what a person has to know.
    is_verbose: bool,
    /// The machine, in a few words.
    machine: String,
    /// How many runs there will be, and how many there were.
    runs: (usize, usize),
    /// When the run began, in seconds since 1970.
    started: f64,
    /// The time of the last line: none goes back.
    last: f64,
    /// Where its results lie: paths beneath it are shown without it.
    results: PathBuf,
    /// The phase of the last line about an image, and its time.
    told: Option<(ImagePhase, Instant)>,
}

/// How often a line tells how far an image is, where no line can change.
const TELL: Duration = Duration::from_secs(10);

impl<S: Surface> Text<S> {
    pub(super) fn new(surface: S, is_verbose: bool) -> Self {
        Self {
            surface,
            is_verbose,
            machine: String::new(),
            runs: (1, 0),
            started: 0.0,
            last: 0.0,
            results: PathBuf::new(),
            told: None,
        }
    }

    fn begin(&mut self, header: &RunHeader) -> io::Result<()> {
        self.started = header.started;
        self.last = header.started;
        self.results.clone_from(&header.results);
        if self.is_one_of_several() && !self.is_verbose {
            return Ok(());
        }
        let run = self
            .surface
            .strong(&format!("run {}", header.identifier.short()));
        let what = words::of_run(header);
        let machine = escape::line(&self.machine);
        indented(&mut self.surface, "", &format!("{run}: {what}{machine}"))?;
        if !self.is_verbose {
            return Ok(());
        }
        let command = header.command.as_deref().unwrap_or_default();
        let path = |path: Option<&Path>| path.map(escape::path).unwrap_or_default();
        for (key, value) in [
            ("identifier", header.identifier.to_string()),
            ("run file", path(header.run_file.as_deref())),
            ("sample", path(header.sample.as_deref())),
            ("command", escape::line(command)),
            ("results", escape::path(&header.results)),
        ] {
            if !value.is_empty() {
                indented(&mut self.surface, &format!("  {key:<11} "), &value)?;
            }
        }
        Ok(())
    }

    fn is_one_of_several(&self) -> bool {
        self.runs.0 > 1
    }

    /// Shows in the line that changes what is under way.
    fn busy(&mut self, step: Option<&str>) {
        let words = step.map(|step| {
            let words = words::of_step(step);
            match self.runs {
                (all, before) if all > 1 => format!("{} of {all}: {words}", before + 1),
                _ => words,
            }
        });
        self.surface.busy(words.as_deref());
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let text = |name| event.get(name).and_then(Value::as_str);
        let at = unix(event.timestamp());
        match (event.name(), event.said_by()) {
            ("step_started", "protocol") => {
                self.busy(text("step"));
                Ok(())
            }
            ("step_finished", "protocol") => {
                let took = match event.get("seconds") {
                    Some(Value::Float(seconds)) => *seconds,
                    _ => 0.0,
                };
                self.step(at, text("step").unwrap_or_default(), took, text("error"))
            }
            // Their steps are shown already.
            (_, "protocol") => Ok(()),
            ("post_shutdown", "environment") if event.get("forced") == Some(&true.into()) => {
                let told = "the guest did not shut down in time: its power was cut";
                self.said(at, Mark::Note, told)
            }
            (name, "environment") if name.starts_with("pre_") || name.starts_with("post_") => {
                Ok(())
            }
            // The whole output comes at the end.
            ("sample_output", _) => Ok(()),
            _ if self.is_verbose => {
                let words = words::of(event, &self.results);
                self.said(at, Mark::Note, &words)
            }
            _ if self.is_one_of_several() => Ok(()),
            _ => match words::for_all(event) {
                Some((mark, words)) => self.said(at, mark, &words),
                None => Ok(()),
            },
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
        self.said(
            unix(SystemTime::now()),
            Mark::Note,
            &words::of_image(report),
        )
    }

    fn step(&mut self, at: f64, step: &str, took: f64, error: Option<&str>) -> io::Result<()> {
        self.surface.busy(None);
        // What failed is told at the end, whole.
        if !self.is_verbose {
            return Ok(());
        }
        let took = seconds(took);
        match error {
            None => self.said(at, Mark::Good, &format!("{step} ({took})")),
            Some(error) => {
                let error = words::without_twice(step, error);
                self.said(at, Mark::Bad, &format!("{step} ({took}): {error}"))
            }
        }
    }

    fn said(&mut self, at: f64, mark: Mark, what: &str) -> io::Result<()> {
        let what = escape::line(what);
        if self.started == 0.0 {
            // There is no run whose time it could be.
            return marked(&mut self.surface, "", mark, &what);
        }
        self.last = self.last.max(at);
        let at = format!("{:>8}", seconds(self.last - self.started));
        marked(&mut self.surface, &at, mark, &what)
    }
}

impl<S: Surface> Renderer for Text<S> {
    fn show(&mut self, update: &Update) -> io::Result<()> {
        match update {
            Update::Machine { words, runs } => {
                self.machine.clone_from(words);
                self.runs = (*runs, 0);
                let is_told = self.is_one_of_several() && !self.is_verbose;
                match is_told {
                    true => {
                        let words = escape::line(words);
                        indented(&mut self.surface, "", &format!("{runs} samples{words}"))
                    }
                    false => Ok(()),
                }
            }
            Update::Run(update) => match update {
                RunUpdate::Begin(header) => self.begin(header),
                RunUpdate::Started(step) => {
                    self.busy(Some(step));
                    Ok(())
                }
                RunUpdate::Ended(step) => {
                    let at = self.started + step.start + step.seconds;
                    self.step(at, &step.step, step.seconds, step.error.as_deref())
                }
                RunUpdate::Event(event) => self.event(event),
                _ => Ok(()),
            },
            Update::Image(report) => self.image(report),
            Update::Working(step) => {
                self.told = None;
                self.surface.busy(Some(step));
                Ok(())
            }
            Update::Told { is_good, words, .. } => {
                self.surface.busy(None);
                let words = escape::line(words);
                match is_good {
                    Some(true) => marked(&mut self.surface, "", Mark::Good, &words),
                    Some(false) => marked(&mut self.surface, "", Mark::Bad, &words),
                    None => self.surface.line(&words),
                }
            }
            Update::Result(_) => Ok(()),
            Update::Note(note) => self.said(unix(SystemTime::now()), Mark::Note, note),
            Update::Interrupted(note) => {
                // What was under way is no more.
                self.surface.busy(None);
                self.said(unix(SystemTime::now()), Mark::Note, note)
            }
            Update::Finished(result) => {
                self.surface.busy(None);
                self.runs.1 += 1;
                match self.is_one_of_several() && !self.is_verbose {
                    true => several::one(&mut self.surface, result),
                    false => summary::of_run(&mut self.surface, result, self.is_verbose),
                }
            }
            // The whole message is on stderr.
            Update::Failed(_) => {
                self.surface.busy(None);
                Ok(())
            }
            Update::Summary { results, not_run } => {
                self.surface.busy(None);
                several::all(&mut self.surface, results, not_run)
            }
        }
    }
}

fn unix(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
