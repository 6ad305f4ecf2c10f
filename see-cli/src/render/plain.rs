//! Lines without colour: for pipes and files.

use std::io::{self, Write};

use see_core::ImageReport;

use super::surface::{Mark, Surface};

/// Writes each line at once.
pub(super) struct Plain<W>(W);

impl<W: Write> Plain<W> {
    pub(super) fn new(writer: W) -> Self {
        Self(writer)
    }
}

impl<W: Write + Send> Surface for Plain<W> {
    fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.0, "{line}")?;
        self.0.flush()
    }

    fn width(&self) -> Option<usize> {
        None
    }

    fn busy(&mut self, _step: Option<&str>) {}

    fn bar(&mut self, _report: &ImageReport) -> bool {
        false
    }

    fn mark(&self, mark: Mark) -> (&'static str, usize) {
        match mark {
            Mark::Good => ("ok  ", 4),
            Mark::Bad => ("FAIL", 4),
            Mark::Note => ("-   ", 4),
        }
    }

    fn quote(&self) -> &'static str {
        "  | "
    }

    fn strong(&self, text: &str) -> String {
        text.to_owned()
    }
}
