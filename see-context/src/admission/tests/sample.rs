//! Domains that hold one element of the schema, with parents that the table admits.

use std::collections::BTreeMap;

use see_libvirt::xml::{DomainXml, Element};

use crate::admission::Promise;
use crate::admission::rule::{Condition, Rule, Rules, any_device};
use crate::admission::table::Admitted;

/// One element of a sample, before it is written.
#[derive(Debug, Clone, Default)]
struct Level {
    name: String,
    attributes: BTreeMap<String, String>,
    children: BTreeMap<String, BTreeMap<String, String>>,
    text: String,
}

/// What a sample holds in its element: a value of an attribute, or a text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    Attribute(&'a str, &'a str),
    Text(&'a str),
}

/// Domains with this part of an element at this path: one for each row that may be about its parent and about itself.
pub(super) fn samples(path: &str, part: Part<'_>, promise: Promise) -> Vec<String> {
    let names: Vec<&str> = path.split('/').collect();
    let mut chains = vec![vec![Level::default()]];
    for depth in 1..=names.len() {
        let (is_leaf, path) = (depth == names.len(), names[..depth].join("/"));
        let rules = about(&path);
        // Of what stands far above, one of each kind is enough.
        let most = if depth + 2 > names.len() {
            usize::MAX
        } else {
            3
        };
        let mut longer = Vec::new();
        for chain in &chains {
            let fitting = rules
                .iter()
                .filter(|rule| is_leaf || is_admitted(rule, promise));
            longer.extend(
                fitting
                    .filter_map(|rule| extended(chain, names[depth - 1], &rule.conditions))
                    .take(most),
            );
            if is_leaf {
                longer.extend(extended(chain, names[depth - 1], &[]));
            }
        }
        chains = longer;
    }
    for leaf in chains.iter_mut().filter_map(|chain| chain.last_mut()) {
        match part {
            Part::Attribute(name, value) => {
                leaf.attributes.insert(name.to_owned(), value.to_owned());
            }
            Part::Text(text) => text.clone_into(&mut leaf.text),
        }
    }
    chains.iter().map(|chain| written(chain)).collect()
}

/// The rules that may be about an element at this path.
pub(super) fn about(path: &str) -> Vec<&'static Rule> {
    let rules = Rules::of_table();
    let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
    let any = any_device(path);
    let exact = rules.exact.get(path).into_iter();
    let exact = exact.chain(any.as_deref().and_then(|path| rules.exact.get(path)));
    let beneath = parents.filter_map(|parent| rules.beneath.get(parent));
    exact.chain(beneath).flatten().collect()
}

/// Whether elements that the rule is about are left in such a mode.
pub(super) fn is_admitted(rule: &Rule, promise: Promise) -> bool {
    match rule.row.admitted {
        Admitted::Always => true,
        Admitted::Open | Admitted::TakenOutIfClosed => promise != Promise::Closed,
        Admitted::Unread => promise == Promise::Unread,
        Admitted::Never | Admitted::TakenOut => false,
    }
}

/// Whether a domain has this part of an element at this path.
pub(super) fn has(text: &str, path: &str, part: Part<'_>) -> bool {
    let domain = DomainXml::parse(text).expect("what is left is a domain");
    let names: Vec<&str> = path.split('/').collect();
    let mut level: Vec<&Element> = vec![domain.root()];
    for name in names {
        level = level
            .into_iter()
            .flat_map(Element::children)
            .filter(|child| child.name() == name)
            .collect();
    }
    level.iter().any(|element| match part {
        Part::Attribute(name, value) => element.attribute(name) == Some(value),
        Part::Text(text) => element.text() == text,
    })
}

/// The chain with an element that the rule is about; none where an element above says something else.
fn extended(chain: &[Level], name: &str, conditions: &[Condition]) -> Option<Vec<Level>> {
    let mut chain = chain.to_vec();
    let required = chain
        .last_mut()
        .and_then(|parent| parent.children.remove(name));
    let mut level = Level {
        name: name.to_owned(),
        attributes: required.unwrap_or_default(),
        ..Level::default()
    };
    for condition in conditions {
        match condition {
            Condition::Has(child) => {
                level.children.entry((*child).to_owned()).or_default();
            }
            Condition::Lacks(_) => {}
            Condition::Text(values) => level.text = values[0].to_owned(),
            Condition::Attribute {
                above,
                child,
                name,
                values,
            } => {
                let value = values.iter().find(|value| !value.is_empty());
                let Some(value) = value.filter(|_| !values.contains(&"")) else {
                    continue;
                };
                let at = match (above, child) {
                    (0, None) => &mut level.attributes,
                    (0, Some(child)) => level.children.entry((*child).to_owned()).or_default(),
                    (above, _) => {
                        let index = chain.len().checked_sub(*above)?;
                        &mut chain[index].attributes
                    }
                };
                let set = at
                    .entry((*name).to_owned())
                    .or_insert_with(|| (*value).to_owned());
                if !values.contains(&set.as_str()) {
                    return None;
                }
            }
        }
    }
    chain.push(level);
    Some(chain)
}

fn written(chain: &[Level]) -> String {
    let Some((level, beneath)) = chain.split_first() else {
        return String::new();
    };
    let name = match level.name.as_str() {
        "" => "domain",
        name => name,
    };
    let tag = |name: &str, attributes: &BTreeMap<String, String>| {
        let attributes = attributes
            .iter()
            .map(|(name, value)| format!(" {name}='{value}'"));
        format!("<{name}{}>", attributes.collect::<String>())
    };
    let mut text = tag(name, &level.attributes) + &level.text;
    for (child, attributes) in &level.children {
        text += &format!("{}</{child}>", tag(child, attributes));
    }
    // The image's disk is replaced, so what is looked at is another.
    if name == "devices" && beneath.first().is_some_and(|level| level.name == "disk") {
        text += "<disk device='disk'><target dev='vda' bus='virtio'/><boot order='1'/></disk>";
    }
    if level.name.is_empty() && beneath.first().is_none_or(|level| level.name != "devices") {
        text += "<devices/>";
    }
    text += &written(beneath);
    text + &format!("</{name}>")
}
