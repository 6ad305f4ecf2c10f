//! What a run left in its results folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::folder::RESULT;
use super::outcome::Artifact;

/// As many as a result names; the rest are counted.
const MOST: usize = 10_000;
/// Folders within folders, beyond which nothing is looked for.
const DEEPEST: usize = 32;

/// The files beneath a folder, sorted by path, and how many more there are. Links are not followed.
pub(super) fn list(folder: &Path) -> (Vec<Artifact>, u64) {
    let mut found = Found::default();
    found.walk(folder, Path::new(""), 0);
    found.listed.sort_by(|a, b| a.path.cmp(&b.path));
    (found.listed, found.more)
}

#[derive(Default)]
struct Found {
    listed: Vec<Artifact>,
    more: u64,
}

impl Found {
    fn walk(&mut self, folder: &Path, beneath: &Path, depth: usize) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!("{} cannot be listed: {error}", folder.display());
                return;
            }
        };
        for entry in entries.flatten() {
            let path: PathBuf = beneath.join(entry.file_name());
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() && depth < DEEPEST {
                self.walk(&entry.path(), &path, depth + 1);
            } else if metadata.is_file() && path != Path::new(RESULT) {
                if self.listed.len() < MOST {
                    let size = metadata.len();
                    self.listed.push(Artifact { path, size });
                } else {
                    self.more += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_with_sizes_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("b")).unwrap();
        fs::write(root.join("b/two"), "22").unwrap();
        fs::write(root.join("one"), "1").unwrap();
        fs::write(root.join(RESULT), "{}").unwrap();
        std::os::unix::fs::symlink("/", root.join("all")).unwrap();
        let (listed, more) = list(root);
        let listed: Vec<_> = listed
            .iter()
            .map(|artifact| (artifact.path.to_str().unwrap(), artifact.size))
            .collect();
        assert_eq!(listed, [("b/two", 2), ("one", 1)]);
        assert_eq!(more, 0);
    }
}
