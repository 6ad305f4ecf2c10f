//! Files under the results folder: names that are safe, and never one that exists.

use see_core::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio::fs::{self, File, OpenOptions};

/// The longest name that is made of a text.
const MAX_NAME: usize = 120;
/// How many files of one name there may be.
const MAX_SAME: u32 = 10_000;

/// The text as part of a file name, or of a word in a shell: letters, digits, `.`, `_` and `-`
/// stay, everything else becomes `_`; never empty, never hidden, never an option.
pub(crate) fn plain_name(text: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') => c,
        _ => '_',
    };
    let name: String = text.chars().take(MAX_NAME).map(plain).collect();
    match name.chars().next() {
        None => "_".to_owned(),
        Some('.' | '-') => format!("_{name}"),
        Some(_) => name,
    }
}

/// Makes a new file `STEM.EXTENSION` in the results folder, or `STEM_2.EXTENSION` and so on where
/// that exists. The folder is made where it is missing.
pub(crate) async fn create(folder: &Path, stem: &str, extension: &str) -> Result<(PathBuf, File)> {
    let failed = |error, path: &Path| {
        Error::io("the result cannot be written", error).subject(path.display())
    };
    fs::create_dir_all(folder)
        .await
        .map_err(|error| failed(error, folder))?;
    let mut number = 1;
    loop {
        let name = match number {
            1 => format!("{stem}.{extension}"),
            number => format!("{stem}_{number}.{extension}"),
        };
        let path = folder.join(name);
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .await;
        match made {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < MAX_SAME => {
                number += 1;
            }
            Err(error) => return Err(failed(error, &path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_hold_nothing_that_a_shell_or_a_path_knows() {
        assert_eq!(plain_name("sample.exe"), "sample.exe");
        assert_eq!(plain_name("a b;$(c)'d/e"), "a_b___c__d_e");
        assert_eq!(plain_name("../../etc/passwd"), "_.._.._etc_passwd");
        assert_eq!(plain_name("-rf"), "_-rf");
        assert_eq!(plain_name(""), "_");
        assert_eq!(plain_name("übel\n"), "_bel_");
        assert_eq!(plain_name(&"x".repeat(1000)).len(), MAX_NAME);
    }

    #[tokio::test]
    async fn a_name_that_exists_is_never_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("made when missing");
        for expected in ["shot.png", "shot_2.png", "shot_3.png"] {
            let (path, _) = create(&folder, "shot", "png").await.expect("a file");
            assert_eq!(path, folder.join(expected));
        }
    }
}
