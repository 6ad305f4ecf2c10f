//! Every public item says what it is for: also fields and variants, which
//! carry half of what a caller must know.

use proc_macro2::Ident;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Visibility};

use super::Finding;
use super::source::Source;

const RULE: &str = "docs";

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let mut walk = Walk {
            source,
            findings: &mut findings,
        };
        walk.visit_file(&source.file);
    }
    findings
}

struct Walk<'a> {
    source: &'a Source,
    findings: &'a mut Vec<Finding>,
}

impl Walk<'_> {
    fn demand(&mut self, attributes: &[Attribute], what: &str, place: &Ident) {
        if !attributes.iter().any(|it| it.path().is_ident("doc")) {
            self.findings.push(Finding {
                path: self.source.path.clone(),
                line: place.span().start().line,
                rule: RULE,
                message: format!("the public {what} has no documentation"),
            });
        }
    }

    fn fields(&mut self, fields: &syn::Fields, all: bool) {
        for field in fields {
            // A field without a name is described where its type is.
            if let Some(name) = &field.ident
                && (all || is_public(&field.vis))
            {
                self.demand(&field.attrs, &format!("field `{name}`"), name);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(module) if is_test(&module.attrs) => return,
            Item::Fn(function) if is_test(&function.attrs) => return,
            Item::Mod(it) if is_public(&it.vis) => {
                let name = it.ident.to_string();
                let inner = self.source.documented_modules.contains(&name);
                if !inner {
                    self.demand(&it.attrs, &format!("module `{name}`"), &it.ident);
                }
            }
            Item::Fn(it) if is_public(&it.vis) => {
                let name = &it.sig.ident;
                self.demand(&it.attrs, &format!("function `{name}`"), name);
            }
            Item::Struct(it) if is_public(&it.vis) => {
                self.demand(&it.attrs, &format!("struct `{}`", it.ident), &it.ident);
                self.fields(&it.fields, false);
            }
            Item::Union(it) if is_public(&it.vis) => {
                self.demand(&it.attrs, &format!("union `{}`", it.ident), &it.ident);
            }
            Item::Enum(it) if is_public(&it.vis) => {
                self.demand(&it.attrs, &format!("enum `{}`", it.ident), &it.ident);
                for variant in &it.variants {
                    let name = &variant.ident;
                    self.demand(&variant.attrs, &format!("variant `{name}`"), name);
                    self.fields(&variant.fields, true);
                }
            }
            Item::Trait(it) if is_public(&it.vis) => {
                self.demand(&it.attrs, &format!("trait `{}`", it.ident), &it.ident);
                for part in &it.items {
                    let (attributes, name) = match part {
                        syn::TraitItem::Fn(part) => (&part.attrs, &part.sig.ident),
                        syn::TraitItem::Const(part) => (&part.attrs, &part.ident),
                        syn::TraitItem::Type(part) => (&part.attrs, &part.ident),
                        _ => continue,
                    };
                    self.demand(attributes, &format!("trait item `{name}`"), name);
                }
            }
            Item::Const(it) if is_public(&it.vis) => {
                self.demand(&it.attrs, &format!("constant `{}`", it.ident), &it.ident);
            }
            Item::Static(it) if is_public(&it.vis) => {
                self.demand(&it.attrs, &format!("static `{}`", it.ident), &it.ident);
            }
            Item::Type(it) if is_public(&it.vis) => {
                self.demand(&it.attrs, &format!("type `{}`", it.ident), &it.ident);
            }
            Item::Macro(it) if it.attrs.iter().any(|it| it.path().is_ident("macro_export")) => {
                if let Some(name) = &it.ident {
                    self.demand(&it.attrs, &format!("macro `{name}`"), name);
                }
            }
            Item::Impl(it) if it.trait_.is_none() => {
                for part in &it.items {
                    let (attributes, visibility, name) = match part {
                        syn::ImplItem::Fn(part) => (&part.attrs, &part.vis, &part.sig.ident),
                        syn::ImplItem::Const(part) => (&part.attrs, &part.vis, &part.ident),
                        syn::ImplItem::Type(part) => (&part.attrs, &part.vis, &part.ident),
                        _ => continue,
                    };
                    if is_public(visibility) {
                        self.demand(attributes, &format!("item `{name}`"), name);
                    }
                }
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    // What stands inside a function is nobody else's.
    fn visit_block(&mut self, _: &'ast syn::Block) {}
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Whether the item exists in tests only.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Path>()
                    .is_ok_and(|path| path.is_ident("test")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, String)> {
        let source = Source::parse("a.rs", text).expect("it is Rust");
        check(&[source])
            .into_iter()
            .map(|it| (it.line, it.message))
            .collect()
    }

    #[test]
    fn undocumented_public_items_fields_and_variants_are_found() {
        let text = "pub fn a() {}\n/// B.\npub struct B {\n    pub c: u8,\n    d: u8,\n}\n\
                    /// E.\npub enum E {\n    F { g: u8 },\n}\n/// T.\npub trait T {\n    fn h();\n}\n\
                    impl B {\n    pub fn i() {}\n    fn j() {}\n}\npub mod k;\n";
        let found = found(text);
        let lines: Vec<usize> = found.iter().map(|it| it.0).collect();
        assert_eq!(lines, [1, 4, 9, 9, 13, 16, 19], "{found:?}");
        assert!(found[0].1.contains("function `a`"), "{found:?}");
    }

    #[test]
    fn documented_private_and_test_items_are_fine() {
        let text = "/// A.\npub fn a() { pub struct X; }\nfn b() {}\npub(crate) struct C;\n\
                    #[cfg(test)]\nmod tests {\n    pub fn d() {}\n}\n";
        assert!(found(text).is_empty(), "{:?}", found(text));
    }

    #[test]
    fn a_module_is_documented_where_its_file_begins() {
        let mut source = Source::parse("lib.rs", "pub mod a;\n").expect("it is Rust");
        assert_eq!(check(std::slice::from_ref(&source)).len(), 1);
        source.documented_modules.push("a".to_owned());
        assert!(check(&[source]).is_empty());
    }
}
