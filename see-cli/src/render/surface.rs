//! What lines for people are written on.

use std::io;

use see_core::ImageReport;

/// Something that lines can be written on.
pub(super) trait Surface: Send {
    /// Writes a line.
    fn line(&mut self, line: &str) -> io::Result<()>;
    /// Shows that a step is under way, or that none is.
    fn busy(&mut self, step: Option<&str>);
    /// Shows how far an image is, in the last line; `false` where there is no line that changes.
    fn bar(&mut self, report: &ImageReport) -> bool;
    /// The sign before a line.
    fn mark(&self, mark: Mark) -> &'static str;
    /// The text so that it stands out.
    fn strong(&self, text: &str) -> String;
}

/// What a line tells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mark {
    Good,
    Bad,
    Note,
}
