//! libvirt's schema of a domain, as far as elements and attributes go.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use see_libvirt::xml::{Document, Element};

/// Every element of a domain by its path beneath it.
pub(super) type Schema = BTreeMap<String, Definition>;

/// What the schema says of an element.
#[derive(Debug, Default)]
pub(super) struct Definition {
    pub(super) attributes: BTreeMap<String, Content>,
    pub(super) text: Content,
}

/// What may stand in an attribute, or in an element as its text.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// The values that the schema lists.
    pub(super) values: BTreeSet<String>,
    /// The schema's names of what it may be, `absFilePath` for one.
    pub(super) types: BTreeSet<String>,
}

/// Reads the schema that is installed with libvirt.
pub(super) fn read(folder: &str) -> Schema {
    let mut files = Vec::new();
    load(
        Path::new(folder),
        "domain.rng",
        &mut HashSet::new(),
        &mut files,
    );
    let mut reader = Reader::default();
    for file in &files {
        reader.define(file.root());
    }
    let mut schema = Schema::new();
    reader.walk_definition("domain", "", &mut Vec::new(), &mut schema);
    schema
}

fn load(folder: &Path, name: &str, seen: &mut HashSet<String>, files: &mut Vec<Document>) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let document = Document::parse(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    for include in document.root().children() {
        if include.name() == "include"
            && let Some(href) = include.attribute("href")
        {
            load(folder, href, seen, files);
        }
    }
    files.push(document);
}

#[derive(Default)]
struct Reader<'a> {
    definitions: HashMap<String, Vec<&'a Element>>,
}

impl<'a> Reader<'a> {
    fn define(&mut self, element: &'a Element) {
        for child in element.children() {
            if child.name() == "define"
                && let Some(name) = child.attribute("name")
            {
                self.definitions
                    .entry(name.to_owned())
                    .or_default()
                    .push(child);
            }
            self.define(child);
        }
    }

    fn walk_definition(&self, name: &str, path: &str, within: &mut Vec<String>, into: &mut Schema) {
        if within.iter().any(|outer| outer == name) {
            return;
        }
        within.push(name.to_owned());
        for definition in self.definitions.get(name).into_iter().flatten() {
            self.walk(definition, path, within, into);
        }
        within.pop();
    }

    fn walk(&self, element: &Element, path: &str, within: &mut Vec<String>, into: &mut Schema) {
        for child in element.children() {
            let name = child.attribute("name");
            match (child.name(), name) {
                ("ref", Some(name)) => self.walk_definition(name, path, within, into),
                // The root itself.
                ("element", Some("domain")) if path.is_empty() => {
                    self.walk(child, path, within, into);
                }
                ("element", Some(name)) => {
                    let below = match path {
                        "" => name.to_owned(),
                        path => format!("{path}/{name}"),
                    };
                    let text = &mut into.entry(below.clone()).or_default().text;
                    self.content(child, &mut Vec::new(), text);
                    self.walk(child, &below, within, into);
                }
                ("attribute", Some(name)) if !path.is_empty() => {
                    let element = into.entry(path.to_owned()).or_default();
                    let known = element.attributes.entry(name.to_owned()).or_default();
                    self.content(child, &mut Vec::new(), known);
                }
                ("attribute" | "element", _) => {}
                _ => self.walk(child, path, within, into),
            }
        }
    }

    /// What may stand directly in an element or attribute.
    fn content(&self, element: &Element, within: &mut Vec<String>, into: &mut Content) {
        for child in element.children() {
            match (child.name(), child.attribute("name")) {
                ("value", _) => {
                    into.values.insert(child.text());
                }
                ("ref", Some(name)) if !within.contains(&name.to_string()) => {
                    into.types.insert(name.to_string());
                    within.push(name.to_string());
                    for definition in self.definitions.get(name).into_iter().flatten() {
                        self.content(definition, within, into);
                    }
                    within.pop();
                }
                ("attribute" | "element", _) => {}
                _ => self.content(child, within, into),
            }
        }
    }
}
