//! The terminal as indicatif draws on it: one that may go away.

use std::io;

use console::Term;
use indicatif::TermLike;

/// A terminal whose loss is no error. indicatif panics when it cannot draw, and a person who closes the window
/// must not cost the run its orderly end: lines that cannot be written are reported by who writes them.
#[derive(Debug)]
pub(super) struct Device(Term);

impl Device {
    /// The terminal behind stdout.
    pub(super) fn stdout() -> Self {
        Self(Term::stdout())
    }
}

/// What is left free of each line for the echo of Ctrl-C. indicatif fills its line, and with the echo behind it the
/// cursor would be on the next one: the line that is to be redrawn would stay.
const ECHO: u16 = 8;

/// Not even logged: the log is written while nothing is drawn, so it would wait for itself.
fn drawn(_: io::Result<()>) -> io::Result<()> {
    Ok(())
}

impl TermLike for Device {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(ECHO).max(1)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        drawn(self.0.move_cursor_up(n))
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        drawn(self.0.move_cursor_down(n))
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        drawn(self.0.move_cursor_right(n))
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        drawn(self.0.move_cursor_left(n))
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        drawn(self.0.write_line(line))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        drawn(self.0.write_str(text))
    }

    fn clear_line(&self) -> io::Result<()> {
        drawn(self.0.clear_line())
    }

    fn flush(&self) -> io::Result<()> {
        drawn(self.0.flush())
    }
}
