//! Lines with a spinner beneath them: for a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use see_core::{ImagePhase, ImageReport};

use super::device::Device;
use super::escape;
use super::surface::{Mark, Surface};
use super::words;

/// Makes the cursor visible, ends colours, and clears what is left of the spinner's line.
const RESTORE: &[u8] = b"\r\x1b[0m\x1b[?25h\x1b[K";

/// How often the spinner is drawn at most, in a second: as indicatif does by itself.
const RATE: u8 = 20;

/// A terminal that says it is narrower is not believed.
const NARROWEST: usize = 20;

/// How far an image is: bytes, rate, time left.
const WITH_TOTAL: &str =
    "  {msg} [{bar:24}] {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
const WITHOUT_TOTAL: &str = "  {spinner} {msg} {binary_bytes}, {binary_bytes_per_sec}";

/// Shows lines, and what is under way in the last one.
pub(super) struct Terminal {
    progress: MultiProgress,
    spinner: Option<ProgressBar>,
    /// How far an image is, beneath the spinner.
    bar: Option<(ImagePhase, ProgressBar)>,
    has_colour: bool,
}

impl Terminal {
    /// `progress` is shared with whoever writes to the same terminal: the log.
    pub(super) fn new(progress: MultiProgress) -> Self {
        progress.set_draw_target(ProgressDrawTarget::term_like_with_hz(
            Box::new(Device::stdout()),
            RATE,
        ));
        // https://no-color.org: present and not empty.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            progress,
            spinner: None,
            bar: None,
            has_colour: !refused && !dumb,
        }
    }
}

impl Surface for Terminal {
    fn line(&mut self, line: &str) -> io::Result<()> {
        self.progress.suspend(|| {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{line}")?;
            stdout.flush()
        })
    }

    fn width(&self) -> Option<usize> {
        Some(usize::from(Term::stdout().size().1).max(NARROWEST))
    }

    fn busy(&mut self, step: Option<&str>) {
        let bar = self.bar.take().map(|(_, bar)| bar);
        for shown in self.spinner.take().into_iter().chain(bar) {
            shown.finish_and_clear();
            self.progress.remove(&shown);
        }
        let Some(step) = step else { return };
        let spinner = self.progress.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            spinner.set_style(style);
        }
        spinner.set_message(escape::line(step));
        spinner.enable_steady_tick(Duration::from_millis(120));
        self.spinner = Some(spinner);
    }

    fn bar(&mut self, report: &ImageReport) -> bool {
        let bar = match self.bar.take() {
            // One that counts from the start again has a rate of its own.
            Some((phase, bar)) if phase == report.phase && bar.position() <= report.done => bar,
            old => {
                if let Some((_, old)) = old {
                    old.finish_and_clear();
                    self.progress.remove(&old);
                }
                // Dressed before it is shown, and begun where the fetch is: what was there already is no
                // part of its rate.
                let bar = ProgressBar::with_draw_target(report.total, ProgressDrawTarget::hidden())
                    .with_style(style(report))
                    .with_message(words::of_phase(report))
                    .with_position(report.done);
                bar.reset_eta();
                self.progress.add(bar)
            }
        };
        if bar.length() != report.total {
            bar.set_style(style(report));
            if let Some(total) = report.total {
                bar.set_length(total);
            }
        }
        bar.set_position(report.done);
        self.bar = Some((report.phase, bar));
        true
    }

    fn mark(&self, mark: Mark) -> (&'static str, usize) {
        let sign = match (mark, self.has_colour) {
            (Mark::Good, true) => "\x1b[32m✓\x1b[0m",
            (Mark::Good, false) => "✓",
            (Mark::Bad, true) => "\x1b[31m✗\x1b[0m",
            (Mark::Bad, false) => "✗",
            (Mark::Note, true) => "\x1b[36m·\x1b[0m",
            (Mark::Note, false) => "·",
        };
        (sign, 1)
    }

    fn quote(&self) -> &'static str {
        "  │ "
    }

    fn strong(&self, text: &str) -> String {
        if self.has_colour {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// How a bar looks.
fn style(report: &ImageReport) -> ProgressStyle {
    let template = match report.total {
        Some(_) => WITH_TOTAL,
        None => WITHOUT_TOTAL,
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// Leaves the terminal as it should be, before the process ends on the spot.
pub(crate) fn restore_terminal() {
    let mut stdout = io::stdout();
    if stdout.is_terminal() {
        // There is nothing to do about a terminal that is gone.
        let _ = stdout.write_all(RESTORE).and_then(|()| stdout.flush());
    }
}

/// Restores the terminal before a panic is reported.
pub(crate) fn restore_terminal_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore_terminal();
        report(panic);
    }));
}
