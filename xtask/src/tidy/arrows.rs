//! The arrows between our crates, and what see-core may stand on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::Finding;
use crate::command;
use crate::failure::{Failure, While};
use crate::workspace;

const RULE: &str = "arrows";
const DEADLINE: Duration = Duration::from_secs(120);

/// The crates and what of ours each may stand on.
const ARROWS: &[(&str, &[&str])] = &[
    ("see-agent", &[]),
    (
        "see-cli",
        &[
            "see-context",
            "see-core",
            "see-hooks-std",
            "see-image-providers",
        ],
    ),
    ("see-context", &["see-core", "see-libvirt"]),
    ("see-core", &[]),
    (
        "see-fuzz",
        &["see-agent", "see-core", "see-hooks-std", "see-libvirt"],
    ),
    ("see-hooks-std", &["see-agent", "see-core"]),
    ("see-image-providers", &["see-core", "see-libvirt"]),
    ("see-libvirt", &[]),
    ("see-namespaces", &["see-core"]),
    (
        "see-tests",
        &[
            "see-agent",
            "see-cli",
            "see-context",
            "see-core",
            "see-fuzz",
            "see-hooks-std",
            "see-image-providers",
            "see-libvirt",
        ],
    ),
    ("xtask", &[]),
];
/// An arrow that exists only with a feature switched on.
const OPTIONAL: (&str, &str) = ("see-image-providers", "see-libvirt");

/// How many crates see-core's tree may hold, itself included.
const CORE_LIMIT: usize = 40;
/// Crates by which libvirt or HTTP would come into see-core's tree.
const CORE_FORBIDDEN: &[&str] = &[
    "curl",
    "h2",
    "http",
    "http-body",
    "httparse",
    "hyper",
    "isahc",
    "reqwest",
    "surf",
    "ureq",
    "virt",
    "virt-sys",
];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// Only a dependency on a folder has one, and the folders are ours.
    path: Option<String>,
    optional: bool,
}

pub(super) fn check(root: &Path) -> Result<Vec<Finding>, Failure> {
    let mut metadata = Command::new(workspace::cargo());
    metadata
        .current_dir(root)
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let metadata: Metadata = serde_json::from_str(&command::output(&mut metadata, DEADLINE)?)
        .doing("cannot read what cargo metadata says")?;
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let manifest = fs::read_to_string(&package.manifest_path)
            .doing(format_args!("cannot read {}", package.manifest_path))?;
        let path = Path::new(&package.manifest_path);
        let path = path.strip_prefix(root).unwrap_or(path);
        findings.extend(broken(package, &path.to_string_lossy(), &manifest));
    }

    let mut tree = Command::new(workspace::cargo());
    tree.current_dir(root)
        .args(["tree", "--package", "see-core", "--locked"])
        .args(["--edges", "normal,build", "--prefix", "none"]);
    findings.extend(core_tree(&command::output(&mut tree, DEADLINE)?));
    Ok(findings)
}

/// The arrows of one crate that are not drawn in the house.
fn broken(package: &Package, path: &str, manifest: &str) -> Vec<Finding> {
    let finding = |line, message| Finding {
        path: path.to_owned(),
        line,
        rule: RULE,
        message,
    };
    let name = &package.name;
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| known == name) else {
        return vec![finding(
            1,
            format!("the crate {name} is not one of the house"),
        )];
    };
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        let to = &dependency.name;
        // A crate may name itself for its tests, to switch a feature on.
        if dependency.path.is_none() || to == name {
            continue;
        }
        let line = manifest
            .lines()
            .position(|line| line.trim_start().starts_with(to.as_str()))
            .map_or(1, |at| at + 1);
        if !allowed.contains(&to.as_str()) {
            let right = if allowed.is_empty() {
                "nothing of ours".to_owned()
            } else {
                allowed.join(", ")
            };
            findings.push(finding(
                line,
                format!("{name} must not depend on {to}; it may depend on {right}"),
            ));
        } else if (name.as_str(), to.as_str()) == OPTIONAL && !dependency.optional {
            findings.push(finding(
                line,
                format!("{name} depends on {to} only behind a feature: make it optional"),
            ));
        }
    }
    findings
}

/// What is wrong with the tree of see-core, as `cargo tree` prints it.
fn core_tree(tree: &str) -> Vec<Finding> {
    let crates: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?))
        })
        .collect();
    let finding = |message| Finding {
        path: "see-core/Cargo.toml".to_owned(),
        line: 1,
        rule: RULE,
        message,
    };
    let mut findings = Vec::new();
    if crates.len() > CORE_LIMIT {
        findings.push(finding(format!(
            "the tree of see-core holds {} crates; at most {CORE_LIMIT} are allowed",
            crates.len()
        )));
    }
    for (name, version) in &crates {
        let ours = name.starts_with("see-") && *name != "see-core";
        if ours || CORE_FORBIDDEN.contains(name) {
            findings.push(finding(format!(
                "the tree of see-core holds {name} {version}; it must be free of libvirt, \
                 HTTP and our other crates"
            )));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, to: &str, optional: bool) -> Package {
        Package {
            name: name.to_owned(),
            manifest_path: "Cargo.toml".to_owned(),
            dependencies: vec![Dependency {
                name: to.to_owned(),
                path: Some("somewhere".to_owned()),
                optional,
            }],
        }
    }

    #[test]
    fn a_broken_arrow_is_found_with_its_line() {
        let manifest = "[dependencies]\nserde.workspace = true\nsee-context.workspace = true\n";
        let found = broken(
            &package("see-hooks-std", "see-context", false),
            "see-hooks-std/Cargo.toml",
            manifest,
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 3);
        assert!(found[0].message.contains("must not depend"), "{found:?}");
    }

    #[test]
    fn an_arrow_that_must_be_optional_is_found_when_it_is_not() {
        let always = package("see-image-providers", "see-libvirt", false);
        assert_eq!(broken(&always, "Cargo.toml", "").len(), 1);
        let behind_a_feature = package("see-image-providers", "see-libvirt", true);
        assert!(broken(&behind_a_feature, "Cargo.toml", "").is_empty());
    }

    #[test]
    fn a_crate_that_is_not_of_the_house_is_found() {
        let found = broken(&package("see-extra", "see-core", false), "Cargo.toml", "");
        assert!(found[0].message.contains("not one of the house"));
    }

    #[test]
    fn a_core_with_http_or_libvirt_is_found() {
        let found = core_tree("see-core v0.1.0\nhyper v1.0.0\nvirt v0.5.0 (*)\nserde v1.0.0\n");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_core_with_too_many_crates_is_found() {
        let tree: String = (0..=CORE_LIMIT).map(|n| format!("c{n} v1.0.0\n")).collect();
        assert_eq!(core_tree(&tree).len(), 1);
        let fits: String = (0..CORE_LIMIT).map(|n| format!("c{n} v1.0.0\n")).collect();
        assert!(core_tree(&fits).is_empty());
    }
}
