//! What the sample printed, read from its files: the beginning of it, harmless.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::escape;
use super::quantity::size;
use super::surface::Surface;

/// As much of it as a person reads.
const MOST_BYTES: u64 = 64 * 1024;
const MOST_LINES: usize = 200;
const WIDEST: usize = 400;

/// Shows a file of output; nothing where it is empty.
pub(super) fn output(surface: &mut impl Surface, name: &str, path: &Path) -> io::Result<()> {
    let (bytes, length) = match beginning(path) {
        Ok((_, 0)) => return Ok(()),
        Ok(read) => read,
        Err(error) => return surface.line(&format!("{name}: cannot be read: {error}")),
    };
    let heading = surface.strong(&format!("{name} ({})", size(length)));
    surface.line(&heading)?;
    let mut shown = 0;
    for line in bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(MOST_LINES)
    {
        shown += line.len() as u64;
        let text = escape::block(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let mut cut: String = text.chars().take(WIDEST).collect();
        if cut.len() < text.len() {
            cut.push('…');
        }
        surface.line(&format!("  | {cut}"))?;
    }
    if shown < length {
        let more = size(length - shown);
        let path = escape::line(&path.display().to_string());
        surface.line(&format!("  … {more} more in {path}"))?;
    }
    Ok(())
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
