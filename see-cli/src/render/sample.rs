//! What the sample printed, read from its files: the beginning of it, harmless.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use console::measure_text_width;

use super::escape;
use super::quantity::size;
use super::surface::{Surface, cut, indented};

/// As much of it as is read.
const MOST_BYTES: u64 = 64 * 1024;
/// As many lines as a person reads who asked for more, and who did not.
const MOST_LINES: usize = 200;
const FEW_LINES: usize = 6;
/// As much of one line, in characters.
const WIDEST: usize = 400;

/// Shows a file of output; nothing where it is empty.
pub(super) fn output(
    surface: &mut impl Surface,
    name: &str,
    path: &Path,
    is_verbose: bool,
) -> io::Result<()> {
    let (bytes, length) = match beginning(path) {
        Ok((_, 0)) => return Ok(()),
        Ok(read) => read,
        Err(error) => return surface.line(&format!("{name}: cannot be read: {error}")),
    };
    let heading = surface.strong(name);
    surface.line(&format!("{heading} ({})", size(length)))?;
    let quote = surface.quote();
    let room = surface.width().map_or(usize::MAX, |width| {
        width.saturating_sub(measure_text_width(quote))
    });
    let mut left = if is_verbose { MOST_LINES } else { FEW_LINES };
    let mut shown = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = escape::block(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let begin: String = text.chars().take(WIDEST).collect();
        let pieces = cut(&begin.replace('\t', "    "), room);
        let is_whole = begin.len() == text.len() && pieces.len() <= left;
        for piece in pieces.iter().take(left) {
            surface.line(&format!("{quote}{piece}"))?;
        }
        if !is_whole {
            break;
        }
        left -= pieces.len();
        shown += line.len() as u64;
        if left == 0 {
            break;
        }
    }
    if shown < length {
        let more = size(length - shown);
        let path = escape::path(&shortest(path));
        indented(surface, "  … ", &format!("{more} more in {path}"))?;
    }
    Ok(())
}

/// A path as it can be typed here.
pub(super) fn shortest(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let within = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    within.unwrap_or_else(|| path.to_owned())
}

/// The first bytes, and how many there are in all.
fn beginning(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    // Something else than a file may block for ever.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok((bytes, metadata.len()))
}
