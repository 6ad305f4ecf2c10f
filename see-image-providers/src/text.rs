//! Text from files and from servers, within bounds.

use std::io::Read as _;
use std::path::Path;

/// As long as a file with logins or profiles may be.
const LONGEST: u64 = 1024 * 1024;
/// The most names that an error lists.
const LISTED: usize = 12;
/// The most characters of such a name.
const WIDEST: usize = 60;

/// The text of a file, if it is as long as one may be.
pub(crate) fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(std::io::Error::other(format!(
            "it has more than {LONGEST} bytes"
        )));
    }
    Ok(text)
}

/// Different names of somebody else's, in their order, and not without end.
pub(crate) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for name in names {
        let name: String = name.chars().take(WIDEST).collect();
        let shown = format!("`{}`", name.escape_debug());
        if seen.contains(&shown) {
            continue;
        }
        if seen.len() == LISTED {
            seen.push("…".to_owned());
            break;
        }
        seen.push(shown);
    }
    match seen.is_empty() {
        true => "nothing at all".to_owned(),
        false => seen.join(", "),
    }
}
