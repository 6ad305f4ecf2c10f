//! What a folder looks like, to be compared with what it looks like later.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything below a path, and the path itself: names, kinds, numbers, sizes, owners, modes, times, contents and
/// extended attributes.
///
/// Access times are left out: reading is no change.
#[derive(Clone, PartialEq, Eq)]
pub struct Footprint(BTreeMap<PathBuf, Trace>);

#[derive(Clone, PartialEq, Eq)]
struct Trace {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    modified: (i64, i64),
    content: Content,
    /// The names of extended attributes: libvirt keeps a file's earlier owner in some.
    attributes: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq)]
enum Content {
    File(Vec<u8>),
    Link(PathBuf),
    Other,
}

impl Footprint {
    /// Of this path. One that does not exist has an empty footprint.
    pub fn of(path: &Path) -> Self {
        let mut traces = BTreeMap::new();
        look(path, &mut traces);
        Self(traces)
    }

    /// What is there now and was not before, was before and is no more, or is another: one line each.
    pub fn changes(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (path, now) in &self.0 {
            match before.0.get(path) {
                None => changes.push(format!("new: {}", path.display())),
                Some(then) if then != now => {
                    changes.push(format!("changed: {}: {then:?} -> {now:?}", path.display()));
                }
                Some(_) => {}
            }
        }
        let gone = before.0.keys().filter(|path| !self.0.contains_key(*path));
        changes.extend(gone.map(|path| format!("gone: {}", path.display())));
        changes
    }

    /// Fails where anything below the path has changed since this footprint was taken.
    pub fn assert_unchanged(&self, path: &Path) {
        let changes = Self::of(path).changes(self);
        assert!(changes.is_empty(), "{changes:#?}");
    }
}

impl fmt::Debug for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            inode,
            mode,
            owner: (user, group),
            links,
            modified,
            content,
            attributes,
        } = self;
        let attributes = String::from_utf8_lossy(attributes);
        write!(f, "#{inode} {mode:o} {user}:{group} {links} {modified:?} ")?;
        match content {
            Content::File(bytes) => write!(f, "{} bytes", bytes.len()),
            Content::Link(target) => write!(f, "to {}", target.display()),
            Content::Other => Ok(()),
        }?;
        write!(f, " {attributes:?}")
    }
}

fn look(path: &Path, traces: &mut BTreeMap<PathBuf, Trace>) {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return;
    };
    let content = if found.is_file() {
        Content::File(std::fs::read(path).expect("a test can read its own files"))
    } else if found.is_symlink() {
        Content::Link(std::fs::read_link(path).expect("a link has a target"))
    } else {
        Content::Other
    };
    let trace = Trace {
        inode: found.ino(),
        mode: found.mode(),
        owner: (found.uid(), found.gid()),
        links: found.nlink(),
        modified: (found.mtime(), found.mtime_nsec()),
        content,
        attributes: attributes(path),
    };
    traces.insert(path.to_owned(), trace);
    if found.is_dir() {
        for entry in std::fs::read_dir(path).expect("a test can list its own folders") {
            look(&entry.expect("a folder can be read on").path(), traces);
        }
    }
}

/// The names of a path's extended attributes; none where the file system has none.
fn attributes(path: &Path) -> Vec<u8> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    names.truncate(length);
    names
}
