//! Where a key or a value of the configuration came from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The origin of one key or value; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A position in a file: lines and columns count from 1, columns in characters.
    File {
        /// The file, as the user named it.
        path: Arc<Path>,
        /// The line.
        line: u32,
        /// The column.
        column: u32,
    },
    /// An override on the command line, by the key that was typed: `a.b`. The value may be a secret.
    Override(Arc<str>),
    /// A value that a program built, or a default.
    Program,
}

impl Origin {
    /// The folder that relative paths start at: the file's own, or the working folder.
    pub fn folder(&self) -> PathBuf {
        match self {
            Self::File { path, .. } => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            },
            Self::Override(_) | Self::Program => PathBuf::from("."),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Override(text) => write!(f, "--set {text}"),
            Self::Program => f.write_str("(built in)"),
        }
    }
}

/// An origin together with the key that stands there, dotted: `context.disk.image`.
///
/// List members are written by index: `hooks.hooks[0].name`. The key is empty at the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it stands.
    pub origin: Origin,
    /// The dotted key.
    pub key: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_told = match &self.origin {
            Origin::Override(typed) => **typed == *self.key,
            Origin::File { .. } | Origin::Program => false,
        };
        if self.key.is_empty() || is_told {
            write!(f, "{}", self.origin)
        } else {
            write!(f, "{}: {}", self.origin, self.key)
        }
    }
}
