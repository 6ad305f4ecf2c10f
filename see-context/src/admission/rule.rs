//! The table's rows, read once, and the one that is about an element.

use std::collections::HashMap;
use std::sync::LazyLock;

use see_libvirt::xml::{Attribute, Element};

use super::Above;
use super::table::{self, Admitted, Row};

/// Attributes by which libvirt's format names what lies outside of the machine.
const OUTSIDE: [&str; 8] = [
    "dev",
    "dir",
    "file",
    "host",
    "path",
    "rendernode",
    "service",
    "socket",
];

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let mut rules = Rules::default();
    for row in table::rows() {
        let rule = Rule::read(row);
        match rule.path.strip_suffix("/**") {
            Some(top) => rules.beneath.entry(top).or_default().push(rule),
            None => rules.exact.entry(rule.path).or_default().push(rule),
        }
    }
    rules
});

/// All rows, by the path of their elements.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) exact: HashMap<&'static str, Vec<Rule>>,
    /// Those that are about everything beneath a path.
    pub(super) beneath: HashMap<&'static str, Vec<Rule>>,
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) row: Row,
    path: &'static str,
    is_repeatable: bool,
    pub(super) conditions: Vec<Condition>,
}

/// What an element has to be like.
#[derive(Debug)]
pub(super) enum Condition {
    /// It has such a child.
    Has(&'static str),
    /// It has no such child.
    Lacks(&'static str),
    /// Its text is one of these.
    Text(Vec<&'static str>),
    /// An attribute, of the element that is so many levels above or of this child, is one of these; an empty one is
    /// an attribute that is absent.
    Attribute {
        above: usize,
        child: Option<&'static str>,
        name: &'static str,
        values: Vec<&'static str>,
    },
}

/// The row that is about an element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decision {
    pub(super) row: &'static Row,
    pub(super) is_repeatable: bool,
    rule: &'static Rule,
    /// Whether the row is about everything beneath, with whatever attributes.
    is_beneath: bool,
}

impl Rules {
    pub(super) fn of_table() -> &'static Self {
        &RULES
    }

    /// The row about an element at this path beneath the domain, where there is one.
    pub(super) fn decide(
        &'static self,
        path: &str,
        element: &Element,
        above: &Above,
    ) -> Option<Decision> {
        let exact = self.exact.get(path);
        let any = any_device(path);
        let any = any.as_deref().and_then(|path| self.exact.get(path));
        let fitting = exact
            .into_iter()
            .chain(any)
            .flatten()
            .find(|rule| rule.fits(element, above));
        if let Some(rule) = fitting {
            return Some(Decision {
                row: &rule.row,
                is_repeatable: rule.is_repeatable,
                rule,
                is_beneath: false,
            });
        }
        // An element that has rows of its own is what one of them says, or unknown.
        if exact.is_some() {
            return None;
        }
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let mut beneath: Vec<&Rule> = parents
            .filter_map(|parent| self.beneath.get(parent))
            .flatten()
            .collect();
        let rule = beneath.pop()?;
        Some(Decision {
            row: &rule.row,
            is_repeatable: true,
            rule,
            is_beneath: true,
        })
    }
}

impl Decision {
    /// Whether the row admits an attribute. libvirt reads attributes by their names alone, whatever namespace they
    /// are in, so those of others' are none.
    pub(super) fn allows(&self, attribute: &Attribute) -> bool {
        let name = attribute.name();
        if name.starts_with("xmlns:") {
            return true;
        }
        if self.is_beneath {
            // What a later libvirt knows beneath may name something outside of the machine.
            let is_outside = self.row.admitted == Admitted::Always && OUTSIDE.contains(&name);
            return !name.contains(':') && !is_outside;
        }
        let is_of_namespace = name == "xmlns" && self.row.element.starts_with("ns:");
        let is_listed = self.row.attributes.split(' ').any(|listed| listed == name);
        let is_condition = self.rule.conditions.iter().any(|condition| {
            matches!(condition, Condition::Attribute { above: 0, child: None, name: own, .. } if *own == name)
        });
        is_of_namespace || is_listed || is_condition
    }
}

impl Rule {
    fn read(row: Row) -> Self {
        let mut words = row.element.split(' ');
        let path = words.next().unwrap_or_default();
        let stripped = match path.ends_with("/**") {
            true => None,
            false => path.strip_suffix('*'),
        };
        Self {
            row,
            path: stripped.unwrap_or(path),
            is_repeatable: stripped.is_some(),
            conditions: words.map(Condition::read).collect(),
        }
    }

    fn fits(&self, element: &Element, above: &Above) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(element, above))
    }
}

impl Condition {
    fn read(word: &'static str) -> Self {
        if let Some(child) = word.strip_prefix('+') {
            return Self::Has(child);
        }
        if let Some(child) = word.strip_prefix('-') {
            return Self::Lacks(child);
        }
        let (mut name, values) = word.split_once('=').unwrap_or((word, ""));
        let values = values.split('|').collect();
        if name == "#text" {
            return Self::Text(values);
        }
        let mut above = 0;
        while let Some(rest) = name.strip_prefix("../") {
            (name, above) = (rest, above + 1);
        }
        let (child, name) = match name.split_once('/') {
            Some((child, name)) => (Some(child), name),
            None => (None, name),
        };
        Self::Attribute {
            above,
            child,
            name,
            values,
        }
    }

    fn holds(&self, element: &Element, above: &Above) -> bool {
        match self {
            Self::Has(child) => element.child(child).is_some(),
            Self::Lacks(child) => element.child(child).is_none(),
            Self::Text(values) => values.contains(&element.text().trim()),
            Self::Attribute {
                above: 0,
                child,
                name,
                values,
            } => {
                let element = match child {
                    None => Some(element),
                    Some(child) => element.child(child),
                };
                let value = element.and_then(|element| element.attribute(name));
                values.contains(&value.unwrap_or_default())
            }
            Self::Attribute {
                above: levels,
                name,
                values,
                ..
            } => {
                let start_tag = above.len().checked_sub(*levels).map(|at| &above[at].1);
                let mut attributes = start_tag.into_iter().flatten();
                let value = attributes.find(|attribute| attribute.name() == *name);
                let value = value.map(Attribute::value);
                values.contains(&value.unwrap_or_default())
            }
        }
    }
}

/// The path of a child. One in a namespace of its own is told apart from libvirt's own of that name.
pub(super) fn join(path: &str, child: &Element) -> String {
    let name = match child.prefix().is_empty() && child.attribute("xmlns").is_none() {
        true => child.name().to_owned(),
        false => format!("ns:{}", child.local_name()),
    };
    match path.is_empty() {
        true => name,
        false => format!("{path}/{name}"),
    }
}

/// The path with `any` in the place of the device.
pub(super) fn any_device(path: &str) -> Option<String> {
    let (_, beneath) = path.strip_prefix("devices/")?.split_once('/')?;
    Some(format!("devices/any/{beneath}"))
}
