//! Every name under which a hook, a backend or an image provider registers
//! itself can be found by a reader: in the README or in the book.

use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{ImplItem, ItemImpl, LitStr};

use super::Finding;
use super::docs::is_test;
use super::source::Source;
use crate::failure::{Failure, While};

const RULE: &str = "names";
const TRAITS: [&str; 3] = ["Backend", "Hook", "ImageProvider"];
const CONSTANTS: [&str; 2] = ["NAME", "ALIASES"];
/// The rooms whose lists seectl registers.
const ROOMS: [&str; 3] = [
    "see-context/src/",
    "see-hooks-std/src/",
    "see-image-providers/src/",
];

/// All prose in which a name may be documented.
pub(super) fn prose(root: &Path) -> Result<String, Failure> {
    let mut prose = fs::read_to_string(root.join("README.md")).unwrap_or_default();
    let docs = root.join("docs");
    if docs.is_dir() {
        collect(&docs, &mut prose)?;
    }
    Ok(prose)
}

fn collect(folder: &Path, into: &mut String) -> Result<(), Failure> {
    let entries = fs::read_dir(folder).doing(format_args!("cannot list {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|it| it == "md") {
            let text =
                fs::read_to_string(&path).doing(format_args!("cannot read {}", path.display()))?;
            into.push_str(&text);
        }
    }
    Ok(())
}

pub(super) fn check(sources: &[Source], prose: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        if !ROOMS.iter().any(|room| source.path.starts_with(room)) {
            continue;
        }
        let mut walk = Walk::default();
        walk.visit_file(&source.file);
        for (name, line) in walk.0 {
            if !occurs(prose, &name) {
                findings.push(Finding {
                    path: source.path.clone(),
                    line,
                    rule: RULE,
                    message: format!(
                        "the registered name `{}` is neither in README.md nor in docs/",
                        name
                    ),
                });
            }
        }
    }
    findings
}

/// Whether the name stands in the prose as a word of its own.
fn occurs(prose: &str, name: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    prose.match_indices(name).any(|(at, _)| {
        let before = prose[..at].chars().next_back();
        let after = prose[at + name.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

/// The registered names, each with its line.
#[derive(Default)]
struct Walk(Vec<(String, usize)>);

impl<'ast> Visit<'ast> for Walk {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let registers = item.trait_.as_ref().is_some_and(|(path, _)| {
            path.segments
                .last()
                .is_some_and(|last| TRAITS.iter().any(|name| last.ident == name))
        });
        if !registers {
            return;
        }
        for part in &item.items {
            if let ImplItem::Const(constant) = part
                && CONSTANTS.iter().any(|name| constant.ident == name)
            {
                let mut texts = Texts(&mut self.0);
                texts.visit_expr(&constant.expr);
            }
        }
    }
}

struct Texts<'a>(&'a mut Vec<(String, usize)>);

impl<'ast> Visit<'ast> for Texts<'_> {
    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.0.push((text.value(), text.span().start().line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "impl see_core::Hook for A {\n    const NAME: &'static str = \"timers\";\n    \
                        const ALIASES: &'static [&'static str] = &[\n        \"plugins.T\",\n    ];\n}\n\
                        impl Other for A {\n    const NAME: &'static str = \"free\";\n}\n";

    fn lines(prose: &str) -> Vec<usize> {
        let source = Source::parse("see-hooks-std/src/timers.rs", TEXT).expect("it is Rust");
        check(&[source], prose).iter().map(|it| it.line).collect()
    }

    #[test]
    fn an_undocumented_name_and_alias_are_found() {
        assert_eq!(lines("nothing, and timers_old"), [2, 4]);
        assert_eq!(lines("the hook `timers`"), [4]);
    }

    #[test]
    fn documented_names_are_fine() {
        assert!(lines("`timers`, once `plugins.T`").is_empty());
    }
}
