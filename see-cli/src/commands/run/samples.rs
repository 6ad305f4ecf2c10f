//! Which samples there are to run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use see_core::{Error, ErrorKind, Result};

/// More than this in one folder is a slip: each takes seconds at the least.
const MOST: usize = 100_000;

/// One absolute path for each run: `None` for the one run without a sample.
///
/// What is in a folder is not looked at: the check of each run does that, so that one bad file stops no other.
/// Folders in it are left out, and names that begin with a dot.
///
/// # Errors
/// [`ErrorKind::Configuration`] where there is nothing, or a folder without anything to run.
pub(super) fn of(sample: Option<&Path>) -> Result<Vec<Option<PathBuf>>> {
    let Some(sample) = sample else {
        return Ok(vec![None]);
    };
    let wrong = |message: String| {
        Error::new(ErrorKind::Configuration, message)
            .subject(format!("--sample {}", sample.display()))
    };
    let unreadable =
        |error: io::Error| wrong(format!("it cannot be read: {error}")).caused_by(error);
    let absolute = std::path::absolute(sample).map_err(unreadable)?;
    if !fs::metadata(&absolute).map_err(unreadable)?.is_dir() {
        return Ok(vec![Some(absolute)]);
    }
    let mut samples = Vec::new();
    for entry in fs::read_dir(&absolute).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // Through links: a folder of links to samples is a folder of samples.
        if !hidden && !fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            samples.push(path);
        }
        if samples.len() > MOST {
            return Err(wrong(format!("expected at most {MOST} samples")));
        }
    }
    if samples.is_empty() {
        return Err(wrong(String::from(
            "expected samples, found a folder without files",
        )));
    }
    samples.sort();
    Ok(samples.into_iter().map(Some).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_what_is_in_it_in_order_but_for_folders_and_hidden_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", ".hidden"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("c")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("d")).unwrap();
        let found = of(Some(folder.path())).unwrap();
        let expected = ["a", "b", "d"].map(|name| Some(folder.path().join(name)));
        assert_eq!(found, expected);
        assert_eq!(of(Some(&folder.path().join("b"))).unwrap().len(), 1);
        assert_eq!(of(None).unwrap(), [None]);
    }

    #[test]
    fn nothing_to_run_is_a_configuration_error() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("none")] {
            let error = of(Some(&path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{}", path.display());
        }
    }
}
