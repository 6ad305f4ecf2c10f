//! What lines for people are written on.

use std::io;

use console::measure_text_width;
use see_core::ImageReport;

/// Something that lines can be written on.
pub(super) trait Surface: Send {
    /// Writes a line.
    fn line(&mut self, line: &str) -> io::Result<()>;
    /// How many columns there are; `None` where lines may be of any length.
    fn width(&self) -> Option<usize>;
    /// Shows what is under way, or that nothing is.
    fn busy(&mut self, step: Option<&str>);
    /// Shows how far an image is, in the last line; `false` where there is no line that changes.
    fn bar(&mut self, report: &ImageReport) -> bool;
    /// The sign before a line, and its width.
    fn mark(&self, mark: Mark) -> (&'static str, usize);
    /// What stands before a line of the sample's output.
    fn quote(&self) -> &'static str;
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

/// Writes a harmless text after a mark, and what does not fit into the line beneath its beginning.
pub(super) fn marked(
    surface: &mut impl Surface,
    at: &str,
    mark: Mark,
    text: &str,
) -> io::Result<()> {
    let (sign, width) = surface.mark(mark);
    let gap = if at.is_empty() { "" } else { " " };
    let lead = measure_text_width(at) + gap.len() + width + 1;
    write(surface, &format!("{at}{gap}{sign} "), lead, text)
}

/// Writes a harmless text with an indent, and what does not fit into the line beneath its beginning.
pub(super) fn indented(surface: &mut impl Surface, lead: &str, text: &str) -> io::Result<()> {
    write(surface, lead, measure_text_width(lead), text)
}

fn write(surface: &mut impl Surface, lead: &str, width: usize, text: &str) -> io::Result<()> {
    let Some(columns) = surface.width() else {
        return surface.line(&format!("{lead}{text}"));
    };
    // On a narrow terminal what is told is worth more than that it stands beneath its beginning.
    let indent = if width * 3 > columns { 2 } else { width };
    for (index, line) in wrapped(text, columns, width, indent).iter().enumerate() {
        match index {
            0 => surface.line(&format!("{lead}{line}"))?,
            _ => surface.line(&format!("{:indent$}{line}", ""))?,
        }
    }
    Ok(())
}

/// The text in lines of so many columns, broken between words where that is possible; the first line and the others
/// have something before them.
fn wrapped(text: &str, columns: usize, first: usize, others: usize) -> Vec<String> {
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), first);
    for (index, word) in text.split(' ').enumerate() {
        let width = measure_text_width(word);
        let fits = used + usize::from(index > 0) + width <= columns;
        if index > 0 && (fits || used + 1 < columns && others + width > columns) {
            line.push(' ');
            used += 1;
        } else if index > 0 {
            lines.push(std::mem::take(&mut line));
            used = others;
        }
        let mut pieces = pieces(
            word,
            columns.saturating_sub(used),
            columns.saturating_sub(others),
        )
        .into_iter();
        let piece = pieces.next().unwrap_or_default();
        used += measure_text_width(&piece);
        line.push_str(&piece);
        for piece in pieces {
            lines.push(std::mem::replace(&mut line, piece));
            used = others + measure_text_width(&line);
        }
    }
    lines.push(line);
    lines
}

/// The text in lines of so many columns.
pub(super) fn cut(text: &str, columns: usize) -> Vec<String> {
    pieces(text, columns, columns)
}

/// The text cut into pieces that fit into the rest of a line and the lines after it.
fn pieces(text: &str, first: usize, others: usize) -> Vec<String> {
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    let (mut left, mut buffer) = (first, [0; 4]);
    // Within a sequence that changes the style: it takes no column, and is ours, since all that others wrote is escaped.
    let mut styles = false;
    for character in text.chars() {
        styles |= character == '\u{1b}';
        let width = match styles {
            true => 0,
            false => measure_text_width(character.encode_utf8(&mut buffer)),
        };
        styles &= character != 'm';
        if width > left {
            pieces.push(std::mem::take(&mut piece));
            left = others.max(width);
        }
        left -= width;
        piece.push(character);
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_within_a_word_that_is_longer_than_a_line() {
        assert_eq!(wrapped("one two three", 9, 2, 2), ["one two", "three"]);
        assert_eq!(wrapped("a bcdefghij", 6, 2, 2), ["a bc", "defg", "hij"]);
        assert_eq!(wrapped("漢字漢字", 5, 0, 0), ["漢字", "漢字"]);
        assert_eq!(wrapped("", 5, 0, 0), [""]);
        let bold = "\u{1b}[1mone two\u{1b}[0m";
        assert_eq!(wrapped(bold, 3, 0, 0), ["\u{1b}[1mone", "two\u{1b}[0m"]);
        assert_eq!(cut("abcde", 2), ["ab", "cd", "e"]);
    }
}
