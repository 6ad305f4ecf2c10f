//! The dotted path of a node, shared with its parents.

use std::fmt;
use std::sync::Arc;

/// The keys and indices from the root to a node.
///
/// A node shares its parents' steps, so a tree costs one step a node however long its keys are.
#[derive(Clone, Default)]
pub(super) struct KeyPath(Option<Arc<Step>>);

struct Step {
    parent: KeyPath,
    part: Part,
}

enum Part {
    Key(Arc<str>),
    Index(usize),
}

impl KeyPath {
    pub(super) fn key(&self, key: Arc<str>) -> Self {
        self.child(Part::Key(key))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.child(Part::Index(index))
    }

    fn child(&self, part: Part) -> Self {
        Self(Some(Arc::new(Step {
            parent: self.clone(),
            part,
        })))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(step) = &self.0 else { return Ok(()) };
        step.parent.fmt(f)?;
        match &step.part {
            Part::Index(index) => write!(f, "[{index}]"),
            Part::Key(key) => {
                if step.parent.0.is_some() {
                    f.write_str(".")?;
                }
                if is_plain(key) {
                    f.write_str(key)
                } else {
                    write!(f, "{key:?}")
                }
            }
        }
    }
}

/// Whether a key can stand in a dotted path without quotes.
fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | ':' | '/'))
}
