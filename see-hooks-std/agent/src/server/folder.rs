//! Where uploads go: the agent's own folder, or where their path says.

use crate::platform::{self, SEPARATORS, create_new, make_folder_to_pass, os_bytes, set_mode};
use crate::protocol::{FailureCode, MAX_NAME, Reply, Upload};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the names of unfinished uploads begin with; no upload may be called so.
const UNFINISHED: &str = ".see-unfinished-";

/// Where uploads are stored: flat, listed by its owner alone, and free of links.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    count: AtomicU64,
}

impl Folder {
    /// Makes the folder where it is missing, and removes what an agent before left unfinished.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Programs run elsewhere and are told absolute paths.
        let path = std::path::absolute(path)?;
        make_folder_to_pass(&path)?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if os_bytes(&entry.file_name()).starts_with(UNFINISHED.as_bytes()) {
                // What is not a file of ours is nobody's upload either: it may stay.
                drop(fs::remove_file(entry.path()));
            }
        }
        Ok(Self {
            path,
            count: AtomicU64::new(0),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins an upload: a new file beside its place, which it takes once it is whole.
    pub(super) fn begin(&self, upload: &Upload) -> Result<Unfinished, Reply> {
        let place = self.place(&upload.name)?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        // Beside its place, so that it can be renamed; an agent that was killed may have left some of its own there.
        let name = format!("{UNFINISHED}{}-{number}", std::process::id());
        let path = place.with_file_name(name);
        let file = create_new(&path).map_err(|error| io_failure("storing the upload", &error))?;
        Ok(Unfinished {
            file: Some(file),
            path,
            place,
            mode: upload.mode,
        })
    }

    /// Where a file of this name or path goes, if its place is free or a plain file.
    fn place(&self, name: &[u8]) -> Result<PathBuf, Reply> {
        let bad = |why: &str| {
            let name = String::from_utf8_lossy(name);
            let message = format!("{name:?} cannot be the name of an upload: {why}");
            Err(Reply::failed(FailureCode::BadRequest, message))
        };
        let path = platform::os_string(name.to_vec()).map(PathBuf::from);
        if let Some(path) = path.filter(|path| path.is_absolute()) {
            return match path.file_name() {
                Some(_) => is_free(path),
                None => bad("a file name is needed at its end"),
            };
        }
        if name.is_empty() || name == b"." || name == b".." {
            return bad("a file name is needed");
        }
        if name.len() > MAX_NAME {
            return bad("it is too long");
        }
        if name.iter().any(|byte| SEPARATORS.contains(byte)) {
            return bad("it has to be a plain name, or an absolute path");
        }
        if name.starts_with(UNFINISHED.as_bytes()) {
            return bad("names like it are the agent's own");
        }
        let Some(text) = platform::os_string(name.to_vec()) else {
            return bad("the system has no such names");
        };
        is_free(self.path.join(text))
    }
}

/// The place, if it is free or a plain file.
fn is_free(place: PathBuf) -> Result<PathBuf, Reply> {
    match fs::symlink_metadata(&place) {
        Ok(found) if found.is_file() => Ok(place),
        Ok(_) => {
            let message = format!("{place:?} cannot be replaced: it is not a plain file");
            Err(Reply::failed(FailureCode::BadRequest, message))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(place),
        Err(error) => Err(io_failure("looking at the upload's place", &error)),
    }
}

/// An upload on its way; removed again unless it is finished.
#[derive(Debug)]
pub(super) struct Unfinished {
    file: Option<File>,
    path: PathBuf,
    place: PathBuf,
    mode: u32,
}

impl Unfinished {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        }
    }

    /// Closes the file and gives it its name; replaces a plain file that has it.
    pub(super) fn finish(mut self) -> io::Result<PathBuf> {
        if let Some(file) = self.file.take() {
            set_mode(&file, self.mode)?;
        }
        // Renaming replaces a link that came in between, and does not follow it.
        fs::rename(&self.path, &self.place)?;
        Ok(self.place.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(self.file.take());
        // After finishing there is nothing of that name any more.
        drop(fs::remove_file(&self.path));
    }
}

/// A failure of the guest's system as a reply.
pub(super) fn io_failure(doing: &str, error: &io::Error) -> Reply {
    let code = match error.kind() {
        io::ErrorKind::NotFound => FailureCode::NotFound,
        io::ErrorKind::PermissionDenied => FailureCode::Denied,
        io::ErrorKind::WouldBlock => FailureCode::Busy,
        io::ErrorKind::Unsupported => FailureCode::Unsupported,
        _ => FailureCode::Io,
    };
    Reply::failed(code, format!("{doing}: {error}"))
}
