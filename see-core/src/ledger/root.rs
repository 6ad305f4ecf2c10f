//! Where the ledger lies when nobody says.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::{Error, ErrorKind, Result};

/// `$SEE_STATE_DIR`, else `$XDG_STATE_HOME/see`, else `$HOME/.local/state/see`.
pub(super) fn default_root(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let path = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(chosen) = path("SEE_STATE_DIR") {
        if chosen.is_absolute() {
            return Ok(chosen);
        }
        return Err(Error::new(
            ErrorKind::Configuration,
            "SEE_STATE_DIR must be an absolute path",
        )
        .subject(chosen.display()));
    }
    // The XDG specification says to ignore a relative one.
    if let Some(state) = path("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
        return Ok(state.join("see"));
    }
    match path("HOME").filter(|path| path.is_absolute()) {
        Some(home) => Ok(home.join(".local/state/see")),
        None => Err(Error::new(
            ErrorKind::Configuration,
            "there is no place for the ledger: none of SEE_STATE_DIR, XDG_STATE_HOME and HOME is set",
        )
        .advice("set SEE_STATE_DIR to an absolute path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(variables: &[(&str, &str)]) -> Result<PathBuf> {
        default_root(|name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.into())
        })
    }

    #[test]
    fn the_nearest_variable_wins() {
        let all = [
            ("SEE_STATE_DIR", "/s"),
            ("XDG_STATE_HOME", "/x"),
            ("HOME", "/h"),
        ];
        assert_eq!(root(&all).unwrap(), PathBuf::from("/s"));
        assert_eq!(root(&all[1..]).unwrap(), PathBuf::from("/x/see"));
        assert_eq!(
            root(&all[2..]).unwrap(),
            PathBuf::from("/h/.local/state/see")
        );
        let relative = [
            ("SEE_STATE_DIR", ""),
            ("XDG_STATE_HOME", "x"),
            ("HOME", "/h"),
        ];
        assert_eq!(
            root(&relative).unwrap(),
            PathBuf::from("/h/.local/state/see")
        );
    }

    #[test]
    fn no_place_and_a_relative_place_are_configuration_errors() {
        for variables in [&[][..], &[("SEE_STATE_DIR", "here"), ("HOME", "/h")]] {
            assert_eq!(
                root(variables).unwrap_err().kind(),
                ErrorKind::Configuration
            );
        }
    }
}
