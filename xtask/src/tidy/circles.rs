//! No module imports itself through others.
//!
//! The modules of one folder are looked at together, each with all that lies under it: modules in a
//! circle can only be read, tested and moved together. A child may use what its parent's own file
//! defines: it is a part of its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::Finding;
use super::modules::{self, Reference};
use super::source::Source;

const RULE: &str = "circles";
/// What the file of a crate's outermost module may be.
const ROOTS: [&str; 2] = ["src/lib.rs", "src/main.rs"];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let roots = sources
        .iter()
        .map(|source| source.path.as_str())
        .filter(|path| ROOTS.iter().any(|root| path.ends_with(root)));
    roots
        .flat_map(|root| in_crate(modules::references(sources, root)))
        .collect()
}

/// Which modules of one folder use which others, and where each does so first.
type Edges = BTreeMap<(String, String), Reference>;

fn in_crate(references: Vec<Reference>) -> Vec<Finding> {
    let mut folders: BTreeMap<Vec<String>, Edges> = BTreeMap::new();
    for reference in references {
        let (from, to) = (&reference.from, &reference.to);
        let both = from.iter().zip(to).take_while(|(from, to)| from == to);
        let shared = both.count();
        if let (Some(from), Some(to)) = (from.get(shared), to.get(shared)) {
            let edge = (from.clone(), to.clone());
            let folder = folders.entry(reference.from[..shared].to_vec());
            folder.or_default().entry(edge).or_insert(reference);
        }
    }
    folders.values().flat_map(in_folder).collect()
}

fn in_folder(edges: &Edges) -> Vec<Finding> {
    let modules: BTreeSet<&str> = edges.keys().map(|(from, _)| from.as_str()).collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> = modules
        .into_iter()
        .map(|module| (module, reached(edges, module)))
        .collect();
    let mut circles: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    for (module, others) in &reached {
        let circle = others.iter().copied();
        let circle: BTreeSet<&str> = circle
            .filter(|other| reached.get(other).is_some_and(|it| it.contains(module)))
            .collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.iter().map(|circle| told(edges, circle)).collect()
}

/// What is reached from the module; the module itself only through others.
fn reached<'a>(edges: &'a Edges, module: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![module];
    while let Some(module) = next.pop() {
        for (_, to) in edges.keys().filter(|(from, _)| from == module) {
            if reached.insert(to.as_str()) {
                next.push(to);
            }
        }
    }
    reached
}

fn told(edges: &Edges, circle: &BTreeSet<&str>) -> Finding {
    let inside = edges
        .iter()
        .filter(|((from, to), _)| circle.contains(from.as_str()) && circle.contains(to.as_str()));
    let names: Vec<&str> = circle.iter().copied().collect();
    let mut message = format!(
        "the modules {} use each other in a circle; move what both sides need into a module that \
         uses neither:",
        names.join(", ")
    );
    let mut first = None;
    for ((from, to), reference) in inside {
        let Reference {
            file, line, path, ..
        } = reference;
        let _ = write!(message, "\n  {from} uses {to}: {file}:{line}: {path}");
        first.get_or_insert((file.clone(), *line));
    }
    let (path, line) = first.unwrap_or_default();
    Finding {
        path,
        line,
        rule: RULE,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a crate of these files, told in one text.
    fn found(files: &[(&str, &str)]) -> String {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source::parse(path, text).expect("it is Rust"))
            .collect();
        let findings = check(&sources);
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        lines.join("\n")
    }

    const ROOT: (&str, &str) = (
        "a-crate/src/lib.rs",
        "mod one;\nmod two;\nmod three;\npub use one::One;\npub use two::*;\n",
    );

    #[test]
    fn modules_that_use_each_other_in_a_circle_are_found_with_the_line_of_each_use() {
        let told = found(&[
            ROOT,
            (
                "a-crate/src/one.rs",
                "use crate::two::Two;\npub struct One(Two);\n",
            ),
            (
                "a-crate/src/two.rs",
                "\npub struct Two;\nfn f() { crate::three::f() }\n",
            ),
            (
                "a-crate/src/three.rs",
                "use super::one::{self, One};\npub fn f() {}\n",
            ),
        ]);
        for expected in [
            "a-crate/src/one.rs:1: circles: the modules one, three, two use each other",
            "one uses two: a-crate/src/one.rs:1: crate::two::Two",
            "two uses three: a-crate/src/two.rs:3: crate::three::f",
            "three uses one: a-crate/src/three.rs:1: super::one",
        ] {
            assert!(told.contains(expected), "{expected} is not in\n{told}");
        }
    }

    #[test]
    fn a_circle_over_what_the_root_passes_on_is_found() {
        let told = found(&[
            ROOT,
            ("a-crate/src/one.rs", "pub struct One(crate::Two);\n"),
            ("a-crate/src/two.rs", "use crate::One;\npub struct Two;\n"),
        ]);
        assert!(
            told.contains("the modules one, two use each other"),
            "{told}"
        );
    }

    #[test]
    fn a_circle_over_a_macro_s_arguments_is_found() {
        let told = found(&[
            ROOT,
            (
                "a-crate/src/one.rs",
                "fn f() { g!(\"{}\", crate::two::f()); }\n",
            ),
            ("a-crate/src/two.rs", "pub fn f() { crate::one::f() }\n"),
        ]);
        assert!(
            told.contains("the modules one, two use each other"),
            "{told}"
        );
    }

    #[test]
    fn a_circle_inside_a_folder_is_found_and_none_outside_of_it() {
        let told = found(&[
            ROOT,
            (
                "a-crate/src/one/mod.rs",
                "mod left;\nmod right;\npub use left::Left;\n",
            ),
            (
                "a-crate/src/one/left.rs",
                "pub struct Left(super::right::Right);\n",
            ),
            (
                "a-crate/src/one/right.rs",
                "pub struct Right(super::Left);\n",
            ),
            ("a-crate/src/two.rs", "use crate::one::Left;\n"),
        ]);
        assert!(
            told.contains("the modules left, right use each other"),
            "{told}"
        );
        assert!(!told.contains("two"), "{told}");
    }

    #[test]
    fn modules_in_an_order_and_children_that_use_their_parent_are_fine() {
        let told = found(&[
            ROOT,
            (
                "a-crate/src/one.rs",
                "mod child;\nuse crate::two::Two;\npub struct One(Two, child::Child);\n",
            ),
            (
                "a-crate/src/one/child.rs",
                "use super::One;\npub struct Child(Box<One>);\n",
            ),
            (
                "a-crate/src/two.rs",
                "use std::one::One;\npub struct Two;\n",
            ),
        ]);
        assert_eq!(told, "");
    }

    #[test]
    fn a_circle_that_only_tests_close_is_fine() {
        let told = found(&[
            ROOT,
            (
                "a-crate/src/one.rs",
                "use crate::two::Two;\npub struct One(Two);\n",
            ),
            (
                "a-crate/src/two.rs",
                "pub struct Two;\n#[cfg(test)]\nuse crate::One;\n#[cfg(test)]\nmod tests {\n    \
                 use crate::one::One;\n}\n#[cfg(test)]\nmod more;\n",
            ),
            ("a-crate/src/two/more.rs", "use crate::one::One;\n"),
        ]);
        assert_eq!(told, "");
    }
}
