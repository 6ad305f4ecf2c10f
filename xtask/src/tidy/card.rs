//! The top level of the checkout: a card with few entries.

use std::fs;
use std::path::Path;

use super::Finding;
use crate::failure::{Failure, While};

const RULE: &str = "card";
/// What may lie on the top level, besides dotfiles.
const CARD: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "docs",
    "see-cli",
    "see-context",
    "see-core",
    "see-hooks-std",
    "see-image-providers",
    "tests",
    "xtask",
];
/// Made by cargo and ignored by git.
const BUILT: &str = "target";

pub(super) fn check(root: &Path) -> Result<Vec<Finding>, Failure> {
    let entries = fs::read_dir(root).doing(format_args!("cannot list {}", root.display()))?;
    let names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    Ok(findings(&names))
}

fn findings(names: &[String]) -> Vec<Finding> {
    let finding = |path: &str, message: &str| Finding {
        path: path.to_owned(),
        line: 1,
        rule: RULE,
        message: message.to_owned(),
    };
    let mut findings = Vec::new();
    for name in names {
        if !name.starts_with('.') && name != BUILT && !CARD.contains(&name.as_str()) {
            findings.push(finding(name, "this top-level entry is not on the card"));
        }
    }
    for name in CARD {
        // The book may come later; everything else belongs to the house.
        if *name != "docs" && !names.iter().any(|it| it == name) {
            findings.push(finding(name, "the card names it, but it is not there"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Vec<String> {
        CARD.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_folder_that_is_not_on_the_card_is_found() {
        let mut names = card();
        names.push("scripts".to_owned());
        let found = findings(&names);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "scripts");
    }

    #[test]
    fn a_missing_licence_is_found() {
        let mut names = card();
        names.retain(|name| name != "LICENSE-MIT");
        assert_eq!(findings(&names)[0].path, "LICENSE-MIT");
    }

    #[test]
    fn the_card_dotfiles_and_the_target_folder_are_fine() {
        let mut names = card();
        names.extend([".git".to_owned(), "target".to_owned()]);
        assert!(findings(&names).is_empty());
    }
}
