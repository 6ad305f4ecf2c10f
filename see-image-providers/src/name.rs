//! What an image may be called.

use see_core::config::Located;
use see_core::{Error, Result};

/// Longer ones are no names of files, nor of objects.
const LONGEST: usize = 1024;
/// How much of a name an error shows.
const SHOWN: usize = 80;

/// Looks whether a name stays beneath what `whole` says: no name that leads elsewhere is asked for anywhere.
///
/// # Errors
/// [`ErrorKind::Configuration`](see_core::ErrorKind::Configuration), with the place of the name.
pub(crate) fn beneath(name: &Located<String>, whole: &str) -> Result<()> {
    // Both strokes: the name may come from, or go to, a host where the other one is meant.
    let is_step = |part: &str| matches!(part, "." | "..");
    let is_elsewhere = name.starts_with('/') || name.split(['/', '\\']).any(is_step);
    plain(name)?;
    if !is_elsewhere {
        return Ok(());
    }
    let message = format!(
        "found the name `{}`, expected one beneath {whole}",
        shown(name)
    );
    Err(Error::configuration(name.place().clone(), message)
        .advice("a name has no parts `.` and `..`, and does not begin with `/`"))
}

/// Looks whether it can be a name at all.
///
/// # Errors
/// [`ErrorKind::Configuration`](see_core::ErrorKind::Configuration), with the place of the name.
pub(crate) fn plain(name: &Located<String>) -> Result<()> {
    let found = match name.len() {
        0 => "an empty name".to_owned(),
        length if length > LONGEST => format!("a name of {length} bytes"),
        _ if name.chars().any(char::is_control) => {
            format!("a control character in the name `{}`", shown(name))
        }
        _ => return Ok(()),
    };
    let message = format!("found {found}, expected the image's name");
    Err(Error::configuration(name.place().clone(), message))
}

fn shown(name: &str) -> String {
    let begin: String = name.chars().take(SHOWN).collect();
    begin.escape_debug().to_string()
}
