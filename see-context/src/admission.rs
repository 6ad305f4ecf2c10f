//! What a user's domain XML may hold.
//!
//! A closed network is a list of what is allowed: [`table`] names every element and attribute of libvirt's format
//! with the reason why a sandbox may have it, and in which modes; what it does not name is refused. So is, in
//! every mode, what would let the guest write to a file of the user. All findings are told at once, each at its
//! line. What names one machine alone, or leads nowhere, is taken out and told ([`own`]).

mod folders;
mod own;
mod rule;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use see_core::config::ConfigPath;
use see_core::{Error, Result};
use see_libvirt::xml::{Attribute, DomainXml, Element, Position, XmlError};

use self::rule::{Decision, Rules};
use self::table::Admitted;

pub(crate) use self::own::listen;
use crate::error::xml;

/// What the configuration promises of the guest's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// The guest reaches nothing: no network, or a closed one.
    Closed,
    /// The guest reaches what the domain's XML, or the network that was asked for, lets it reach.
    Open,
    /// The same, and the user answers for what the domain's XML hands to the hypervisor unread.
    Unread,
}

/// An element or attribute that a sandbox may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    position: Position,
    problem: String,
    advice: &'static str,
}

/// Checks a user's domain against the table, and takes out what names another machine or leads nowhere.
///
/// `is_here` is whether the machine runs on this host.
///
/// # Errors
/// [`ErrorKind::Configuration`](see_core::ErrorKind::Configuration) with every finding, each at its place in the XML.
pub(crate) fn admit(
    domain: &mut DomainXml,
    promise: Promise,
    is_here: bool,
    path: &ConfigPath,
) -> Result<()> {
    own::prepare(domain);
    let mut walk = Walk {
        rules: Rules::of_table(),
        promise,
        findings: Vec::new(),
        removed: Vec::new(),
    };
    if let Some(decision) = walk.rules.decide("", domain.root(), &Vec::new()) {
        walk.attributes(domain.root(), decision);
    }
    walk.element(domain.root_mut(), &mut Vec::new(), String::new());
    if is_here {
        walk.findings.extend(folders::look(domain));
    }
    own::settle(domain, is_here);
    for (what, why) in &walk.removed {
        tracing::warn!(xml = %path.path().display(), "{what} is taken out of the domain: {why}");
    }
    let errors = walk.findings.into_iter().map(|finding| {
        let error = XmlError::Conflict {
            position: finding.position,
            problem: finding.problem,
        };
        xml(error, path.path(), path.place()).advice(finding.advice)
    });
    match Error::all(errors) {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// The start tag of an element above the one that is looked at.
pub(crate) type Above = Vec<(String, Vec<Attribute>)>;

struct Walk {
    rules: &'static Rules,
    promise: Promise,
    findings: Vec<Finding>,
    /// What was taken out, and why.
    removed: Vec<(String, &'static str)>,
}

impl Walk {
    /// Looks at an element that its parent may have: at its attributes, and at what is in it.
    fn element(&mut self, element: &mut Element, above: &mut Above, path: String) {
        if path == "metadata" {
            return;
        }
        above.push((element.name().to_owned(), element.attributes().to_vec()));
        let mut seen = HashSet::new();
        let mut unwanted = HashSet::new();
        for (index, child) in element.children_mut().enumerate() {
            let below = rule::join(&path, child);
            if !self.child(child, above, &below, &mut seen) {
                unwanted.insert(index);
                continue;
            }
            self.element(child, above, below);
        }
        above.pop();
        let mut index = 0;
        element.remove_children(|_| {
            index += 1;
            unwanted.contains(&(index - 1))
        });
    }

    /// Whether an element stays: it is admitted, or refused with a finding. One that is refused or taken out is
    /// not looked into.
    fn child(
        &mut self,
        child: &Element,
        above: &Above,
        path: &str,
        seen: &mut HashSet<String>,
    ) -> bool {
        let Some(decision) = self.rules.decide(path, child, above) else {
            self.refuse(
                child.position(),
                format!(
                    "<{}> is not on the list of what a sandbox may have",
                    child.name()
                ),
                "take it out",
            );
            return false;
        };
        let row = decision.row;
        if row.attributes.split(' ').any(|word| word == "#text") && is_empty(child) {
            return false;
        }
        match (row.admitted, self.promise) {
            (Admitted::Always, _) | (Admitted::Unread, Promise::Unread) => {}
            (Admitted::Open | Admitted::TakenOutIfClosed, Promise::Open | Promise::Unread) => {}
            (Admitted::TakenOut, _) | (Admitted::TakenOutIfClosed, Promise::Closed) => {
                self.removed.push((shown(child), row.why));
                return false;
            }
            (Admitted::Never | Admitted::Unread, _) | (Admitted::Open, Promise::Closed) => {
                let advice = match (row.instead, row.admitted) {
                    (Some(instead), _) => instead,
                    (None, Admitted::Never) => "take it out",
                    (None, Admitted::Unread) => {
                        "take it out; for a virtual machine whose network is not closed, \
                         `\"allow_command_line\": true` in the run file's `domain` lets it pass, and you answer for \
                         what it does"
                    }
                    (None, _) => "take it out, or use a `network` that is not closed",
                };
                let problem = format!("{} is refused: {}", shown(child), row.why);
                self.refuse(child.position(), problem, advice);
                return false;
            }
        }
        if !decision.is_repeatable && !seen.insert(path.to_owned()) {
            let problem = format!(
                "a second <{}>: libvirt may take the one and SEE the other",
                child.name()
            );
            self.refuse(child.position(), problem, "keep one of them");
            return false;
        }
        self.attributes(child, decision);
        true
    }

    fn attributes(&mut self, element: &Element, decision: Decision) {
        for attribute in element.attributes() {
            if !decision.allows(attribute) {
                let problem = format!(
                    "the attribute `{}` of <{}> is not on the list of what a sandbox may have",
                    attribute.name(),
                    element.name()
                );
                self.refuse(element.position(), problem, "take it out");
            }
        }
    }

    fn refuse(&mut self, position: Position, problem: String, advice: &'static str) {
        self.findings.push(Finding {
            position,
            problem,
            advice,
        });
    }
}

fn is_empty(element: &Element) -> bool {
    element.attributes().is_empty()
        && element.children().next().is_none()
        && element.text().trim().is_empty()
}

/// The element with what tells it from others of its name.
fn shown(element: &Element) -> String {
    let telling = ["type", "model", "mode", "action", "name"];
    let attribute = telling
        .iter()
        .find_map(|name| Some((name, element.attribute(name)?)));
    match attribute {
        Some((name, value)) => {
            format!("<{} {name}='{}'>", element.name(), value.escape_debug())
        }
        None => format!("<{}>", element.name()),
    }
}
