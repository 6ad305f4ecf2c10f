//! The modules of one crate, and which of them name items of which others.
//!
//! Paths are followed as the compiler follows them: through `crate`, `self` and `super`, through what
//! a module imports, and through what another module only passes on with `pub use`. So a path leads
//! to the module that defines the item, whatever it is spelt like. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, UseTree};

use super::docs::is_test;
use super::source::Source;

/// Imports may lead from one to the next; more than this many are a circle among them.
const LONGEST_CHAIN: usize = 16;

/// The names of a module and of those that hold it, outermost first; empty for the crate's root.
pub(super) type Place = Vec<String>;

/// One module names an item that another one defines.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) file: String,
    pub(super) line: usize,
    /// As it is spelt there.
    pub(super) path: String,
}

/// All references between modules of the crate whose root is the file `root`.
pub(super) fn references(sources: &[Source], root: &str) -> Vec<Reference> {
    let files = sources.iter().map(|it| (it.path.as_str(), it)).collect();
    let mut tree = Tree::default();
    if let Some(source) = sources.iter().find(|it| it.path == root) {
        tree.add(&files, source, Vec::new(), &source.file.items);
    }
    tree.references()
}

#[derive(Default)]
struct Module {
    file: String,
    /// What the module defines itself.
    items: BTreeSet<String>,
    /// What it imports: the name here, and where it comes from.
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// Every path that stands in it, and its line.
    paths: BTreeSet<(Vec<String>, usize)>,
}

#[derive(Default)]
struct Tree(BTreeMap<Place, Module>);

impl Tree {
    fn add(
        &mut self,
        files: &BTreeMap<&str, &Source>,
        source: &Source,
        place: Place,
        items: &[Item],
    ) {
        let mut module = Module {
            file: source.path.clone(),
            ..Module::default()
        };
        for item in items {
            let mut walk = Walk(&mut module);
            walk.visit_item(item);
            if let Item::Mod(child) = item
                && !is_test(&child.attrs)
            {
                let name = child.ident.to_string();
                let place = [&place[..], std::slice::from_ref(&name)].concat();
                match &child.content {
                    Some((_, items)) => self.add(files, source, place, items),
                    None => {
                        if let Some(source) = file_of(files, &source.path, &name) {
                            self.add(files, source, place, &source.file.items);
                        }
                    }
                }
            } else if let Item::Use(item) = item
                && !is_test(&item.attrs)
            {
                module.import(Vec::new(), &item.tree);
            } else if let Some(name) = name_of(item) {
                module.items.insert(name);
            }
        }
        self.0.insert(place, module);
    }

    fn references(&self) -> Vec<Reference> {
        let mut references = Vec::new();
        for (from, module) in &self.0 {
            for (path, line) in &module.paths {
                if let Some(to) = self.follow(from, path, 0)
                    && to != *from
                {
                    references.push(Reference {
                        from: from.clone(),
                        to,
                        file: module.file.clone(),
                        line: *line,
                        path: path.join("::"),
                    });
                }
            }
        }
        references.sort();
        references
    }

    /// The module in which the path's item is defined; `None` for other crates' and for locals.
    fn follow(&self, from: &Place, path: &[String], chain: usize) -> Option<Place> {
        let mut place = from.clone();
        let mut entered = false;
        for name in path {
            match name.as_str() {
                "crate" => place.clear(),
                "self" => {}
                "super" => {
                    place.pop()?;
                }
                _ => match self.enter(&place, name, chain)? {
                    Step::Module(module) => place = module,
                    Step::Item(module) => return Some(module),
                    Step::Unknown if entered => break,
                    Step::Unknown => return None,
                },
            }
            entered = true;
        }
        Some(place)
    }

    fn enter(&self, place: &Place, name: &str, chain: usize) -> Option<Step> {
        let module = self.0.get(place)?;
        let child = [&place[..], &[name.to_owned()]].concat();
        if self.0.contains_key(&child) {
            return Some(Step::Module(child));
        }
        if module.items.contains(name) {
            return Some(Step::Item(place.clone()));
        }
        if chain == LONGEST_CHAIN {
            return None;
        }
        if let Some(import) = module.imports.get(name) {
            let Some(to) = self.follow(place, import, chain + 1) else {
                return Some(Step::Unknown);
            };
            let is_module = to.last() == import.last();
            return Some(if is_module {
                Step::Module(to)
            } else {
                Step::Item(to)
            });
        }
        for glob in &module.globs {
            if let Some(to) = self.follow(place, glob, chain + 1)
                && to != *place
                && let Some(step @ (Step::Item(_) | Step::Module(_))) =
                    self.enter(&to, name, chain + 1)
            {
                return Some(step);
            }
        }
        Some(Step::Unknown)
    }
}

/// Where one name of a path leads.
enum Step {
    Module(Place),
    Item(Place),
    Unknown,
}

/// The file that `mod name;` in the file at `path` stands for.
fn file_of<'a>(files: &BTreeMap<&str, &'a Source>, path: &str, name: &str) -> Option<&'a Source> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let inside = match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        other => format!("{folder}/{}", other.trim_end_matches(".rs")),
    };
    [
        format!("{inside}/{name}.rs"),
        format!("{inside}/{name}/mod.rs"),
    ]
    .iter()
    .find_map(|path| files.get(path.as_str()).copied())
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Macro(it) => it.ident.as_ref()?,
        Item::Static(it) => &it.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::Type(it) => &it.ident,
        Item::Union(it) => &it.ident,
        _ => return None,
    };
    Some(name.to_string())
}

impl Module {
    fn import(&mut self, mut prefix: Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(prefix, &path.tree);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(prefix.clone(), tree);
                }
            }
            UseTree::Glob(_) => self.globs.push(prefix),
            UseTree::Name(name) => self.import_as(prefix, &name.ident, &name.ident),
            UseTree::Rename(name) => self.import_as(prefix, &name.ident, &name.rename),
        }
    }

    fn import_as(&mut self, mut path: Vec<String>, name: &syn::Ident, here: &syn::Ident) {
        let here = if name == "self" && here == "self" {
            path.last().cloned().unwrap_or_default()
        } else {
            here.to_string()
        };
        if name != "self" {
            path.push(name.to_string());
        }
        self.imports.insert(here, path);
    }
}

/// Gathers the paths of a module, not those of the modules inside it.
struct Walk<'a>(&'a mut Module);

impl Walk<'_> {
    fn imported(&mut self, mut prefix: Vec<String>, tree: &UseTree) {
        let (name, below) = match tree {
            UseTree::Path(path) => (&path.ident, Some(&*path.tree)),
            UseTree::Name(name) => (&name.ident, None),
            UseTree::Rename(name) => (&name.ident, None),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.imported(prefix.clone(), tree);
                }
                return;
            }
            UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                self.0.paths.insert((prefix, line));
                return;
            }
        };
        if name != "self" || prefix.is_empty() {
            prefix.push(name.to_string());
        }
        match below {
            Some(below) => self.imported(prefix, below),
            None => {
                self.0.paths.insert((prefix, name.span().start().line));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(_) => return,
            Item::Fn(it) => &it.attrs,
            Item::Impl(it) => &it.attrs,
            Item::Use(it) => &it.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.imported(Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none()
            && let Some(first) = path.segments.first()
        {
            let names = path.segments.iter().map(|it| it.ident.to_string());
            let line = first.ident.span().start().line;
            self.0.paths.insert((names.collect(), line));
        }
        visit::visit_path(self, path);
    }

    // The arguments of a macro are no syntax before the macro has seen them.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        visit::visit_macro(self, called);
        self.tokens(called.tokens.clone());
    }
}

impl Walk<'_> {
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.0.paths.insert((std::mem::take(&mut path), line));
                        line = name.span().start().line;
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(sign) if sign.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    colons = 0;
                }
                _ => colons = 0,
            }
        }
        self.0.paths.insert((path, line));
    }
}
