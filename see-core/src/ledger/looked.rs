//! What a look at the host found.

use serde::Serialize;

use crate::{Error, ErrorKind};

/// One thing that was looked for on the host, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// What was looked for, and where: `libvirt's logs in /var/log/libvirt/qemu`.
    pub what: String,
    /// What of the environment is there; empty where nothing is.
    pub found: Vec<String>,
    /// Why this user could not look there, or may not remove what was found.
    pub denied: Option<String>,
    /// Why it is not known whether it is gone, though this user may look there; or why what is there was left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Looked {
    /// Looked for, and not there.
    pub fn clear(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            found: Vec::new(),
            denied: None,
            failed: None,
        }
    }

    /// The same with what is there.
    #[must_use]
    pub fn with(mut self, found: impl IntoIterator<Item = String>) -> Self {
        self.found.extend(found);
        self
    }

    /// The same where this user could not look, or may not remove what was found.
    #[must_use]
    pub fn denied(mut self, why: impl Into<String>) -> Self {
        self.denied = Some(why.into());
        self
    }

    /// The same where the look failed, or what is there was left alone: the environment did not end clean.
    #[must_use]
    pub fn failed(mut self, why: impl Into<String>) -> Self {
        self.failed = Some(why.into());
        self
    }

    /// The same where the look ended with this error: what this user has no right to is [denied](Self::denied),
    /// everything else [failed](Self::failed).
    #[must_use]
    pub fn ended_by(self, error: &Error) -> Self {
        match error.kind() {
            ErrorKind::PermissionDenied => self.denied(error.chain()),
            _ => self.failed(error.chain()),
        }
    }

    /// Whether it was looked for, and is not there.
    pub fn is_clear(&self) -> bool {
        self.found.is_empty() && self.denied.is_none() && self.failed.is_none()
    }

    /// What was found that this user's own run should have removed.
    pub fn left(&self) -> &[String] {
        match self.denied {
            None => &self.found,
            Some(_) => &[],
        }
    }
}
