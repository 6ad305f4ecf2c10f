//! What can be wrong with XML, and where.

use std::fmt;

/// A position in a text: lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Position {
    /// The position of the byte at `offset` of `text`.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            line: count(before.matches('\n').count() + 1),
            column: count(before[line_start..].chars().count() + 1),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// XML that cannot be used, or not in the way it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// The text is not well-formed XML.
    #[error("not XML: {problem} ({position})")]
    Syntax {
        /// Where it stops being XML.
        position: Position,
        /// What is wrong there.
        problem: String,
    },
    /// The text is longer than libvirt could want it to be.
    #[error("{size} bytes of XML are more than the {limit} that are read")]
    TooLarge {
        /// The bytes given.
        size: usize,
        /// The bytes accepted.
        limit: usize,
    },
    /// Elements are nested deeper than any of libvirt's formats.
    #[error("elements are nested deeper than {limit} ({position})")]
    TooDeep {
        /// The first element that is too deep.
        position: Position,
        /// The depth accepted.
        limit: usize,
    },
    /// The text has a document type: entities are never defined or fetched.
    #[error("a document type is refused, since it can define entities ({position})")]
    DocumentType {
        /// Where it stands.
        position: Position,
    },
    /// The text says, or shows, that it is not UTF-8.
    #[error("the text is not UTF-8 but {found} ({position})")]
    Encoding {
        /// Where that is seen.
        position: Position,
        /// What it is instead.
        found: String,
    },
    /// The root element is another one.
    #[error("the root element is <{found}> where <{expected}> belongs ({position})")]
    Root {
        /// Where the root element starts.
        position: Position,
        /// Its name.
        found: String,
        /// The name it should have.
        expected: &'static str,
    },
    /// A domain without a list of devices.
    #[error("<{parent}> has no <{missing}> ({position})")]
    Missing {
        /// Where the parent starts.
        position: Position,
        /// The element that was searched.
        parent: &'static str,
        /// The element that it needs.
        missing: &'static str,
    },
    /// A domain without a disk that could carry the image.
    #[error("the domain has no disk with device='disk' that could take the image ({position})")]
    NoDisk {
        /// Where the list of devices starts.
        position: Position,
    },
    /// Two of our requests, or a request and the user's XML, exclude each other.
    #[error("{problem} ({position})")]
    Conflict {
        /// Where the user's side of it stands.
        position: Position,
        /// What excludes what.
        problem: String,
    },
}

impl XmlError {
    /// Where in the text the error is, where that can be said.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::TooLarge { .. } => None,
            Self::Syntax { position, .. }
            | Self::TooDeep { position, .. }
            | Self::DocumentType { position }
            | Self::Encoding { position, .. }
            | Self::Root { position, .. }
            | Self::Missing { position, .. }
            | Self::NoDisk { position }
            | Self::Conflict { position, .. } => Some(*position),
        }
    }
}
