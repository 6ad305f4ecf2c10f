//! What a record says about one thing that an environment makes on its host.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Result};

/// Facts about a resource, as a small JSON object.
pub type Details = Map<String, Value>;

/// A thing on the host that outlives a crash of its maker unless somebody removes it.
///
/// `kind` chooses the [`Collector`](super::Collector) that can remove it. The core's own kinds are
/// [`Resource::FILE`], [`Resource::FOLDER`], [`Resource::LEASE`] and [`Resource::PROCESS`]; backends and hooks
/// add theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// The kind, such as `domain`: letters, digits, `-` and `.`.
    pub kind: Cow<'static, str>,
    /// Its name, where it lives; for files and folders the path beneath `location`.
    pub name: String,
    /// Where it lives: a hypervisor's URI, or the folder that `name` lies beneath.
    pub location: String,
    /// What else its collector needs to find it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Details,
}

impl Resource {
    /// The kind of a regular file or socket.
    pub const FILE: &'static str = "file";
    /// The kind of a folder, with all that it will hold.
    pub const FOLDER: &'static str = "folder";
    /// The kind of a file that says that an environment uses something, so that nobody removes that. It is
    /// removed by the environment's end when all else is gone.
    pub const LEASE: &'static str = "lease";
    /// The kind of a process.
    pub const PROCESS: &'static str = "process";

    /// A resource of any kind, without details.
    pub fn new(
        kind: impl Into<Cow<'static, str>>,
        name: impl Into<String>,
        location: impl Into<String>,
    ) -> Self {
        Self {
            kind: kind.into(),
            name: name.into(),
            location: location.into(),
            details: Map::new(),
        }
    }

    /// A file at `name` beneath the folder `root`, which exists.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] when `root` is not absolute, `name` does not stay beneath it, or
    /// one of them is not UTF-8.
    pub fn file(root: impl AsRef<Path>, name: impl AsRef<Path>) -> Result<Self> {
        Self::path_of(Self::FILE, root.as_ref(), name.as_ref())
    }

    /// A folder at `name` beneath the folder `root`, which exists; it is collected with all it holds,
    /// so what is made inside it needs no entry of its own.
    ///
    /// # Errors
    /// As [`Resource::file`].
    pub fn folder(root: impl AsRef<Path>, name: impl AsRef<Path>) -> Result<Self> {
        Self::path_of(Self::FOLDER, root.as_ref(), name.as_ref())
    }

    /// A lease: an empty file at `name` beneath the folder `root`, which exists.
    ///
    /// # Errors
    /// As [`Resource::file`].
    pub fn lease(root: impl AsRef<Path>, name: impl AsRef<Path>) -> Result<Self> {
        Self::path_of(Self::LEASE, root.as_ref(), name.as_ref())
    }

    /// A process; `name` is for people. Start it with [`Entry::mark`](super::Entry::mark) in its
    /// environment, so that it can be recognised.
    pub fn process(name: impl Into<String>) -> Self {
        Self::new(Self::PROCESS, name, "")
    }

    /// The same with one more detail.
    #[must_use]
    pub fn detail(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.details.insert(key.into(), value.into());
        self
    }

    /// The path of a file, folder or lease; `None` for other kinds.
    pub fn path(&self) -> Option<PathBuf> {
        self.is_path()
            .then(|| Path::new(&self.location).join(&self.name))
    }

    pub(super) fn is_path(&self) -> bool {
        [Self::FILE, Self::FOLDER, Self::LEASE].contains(&&*self.kind)
    }

    fn path_of(kind: &'static str, root: &Path, name: &Path) -> Result<Self> {
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                Error::new(
                    ErrorKind::Configuration,
                    "a path that the ledger keeps must be UTF-8",
                )
                .subject(path.display())
            })
        };
        let resource = Self::new(kind, text(name)?, text(root)?);
        resource.check()?;
        Ok(resource)
    }

    /// Whether it is something that a record may hold and a collector may follow.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |message: &'static str| {
            Err(
                Error::new(ErrorKind::Configuration, message).subject(format!(
                    "{} {:?}",
                    self.kind.escape_debug(),
                    self.name
                )),
            )
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if self.kind.is_empty() || self.kind.len() > 64 || !self.kind.chars().all(plain) {
            return wrong("a resource's kind is 1 to 64 letters, digits, '-' and '.'");
        }
        if self.name.is_empty() {
            return wrong("a resource needs a name");
        }
        if self.name.contains('\0') || self.location.contains('\0') {
            return wrong("a resource's name and location hold no NUL");
        }
        if self.is_path() {
            if !Path::new(&self.location).is_absolute() {
                return wrong("the folder that a file lies in must be an absolute path");
            }
            // Not by `Path::components`, which hides `.` and doubled slashes.
            let beneath = |part: &str| !part.is_empty() && part != "." && part != "..";
            if !self.name.split('/').all(beneath) {
                return wrong(
                    "a file's name must be a path beneath its folder, without '.' or '..'",
                );
            }
        }
        Ok(())
    }
}
