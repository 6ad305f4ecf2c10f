//! The folder in which libvirt's embedded driver lives, shared by the sandboxes of this process.
//!
//! libvirt knows one such root in the life of a process. Each sandbox that uses it leaves a file
//! under `users/`, named by its identifier, and an entry in its own record. The collection that
//! takes the last of these files away removes the root. A later sandbox of the same process makes
//! the root again, at the same path.

mod root;

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use see_core::ledger::{Details, Entry, Resource};
use see_core::{Error, ErrorKind, Identifier, Result};
use see_libvirt::embedded::opened_root;
use see_libvirt::{Connection, EmbeddedRoot, EmulatorAccount};

use crate::allocation::{Site, exactly, refused};
use crate::error::{blocking, libvirt};
use crate::host::{cache_folder, short_folder};
use crate::residue::emulator;

pub(crate) use self::root::Roots;

/// The kind of the ledger's entries for a root.
const ROOT: &str = "libvirt.embedded-root";

/// A first open probes the emulators, which takes seconds on an idle host.
const OPEN_LIMIT: Duration = Duration::from_secs(120);

/// Who is in the root: a file for each sandbox.
const USERS: &str = "users";

/// What libvirt has in a root, whatever its version.
const KINDS: &[&str] = &["cache", "etc", "lib", "log", "run"];

/// The folders that libvirt made when it opened the root, and needs again when the root is made anew. Each version
/// makes others.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Entering and leaving happen one at a time. Behind it is what tells the root that this process made last from
/// a stranger's folder in its place.
static GATE: tokio::sync::Mutex<Option<Details>> = tokio::sync::Mutex::const_new(None);

/// The root of this process, chosen by its first sandbox. It is libvirt's own rule that there is
/// one in the life of a process.
static PATH: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The root that the sandboxes of this process use.
pub(crate) fn intent(identifier: Identifier) -> Result<Resource> {
    let mut chosen = PATH.lock().unwrap_or_else(PoisonError::into_inner);
    let path = match opened_root().or_else(|| chosen.clone()) {
        Some(path) => path,
        None => short_folder()?.join(format!("see-{}", root_name(identifier))),
    };
    let path = chosen.insert(path);
    let name = path
        .to_str()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the root's path is not UTF-8"))?;
    Ok(Resource::new(ROOT, name, ""))
}

/// Sixteen digits of the identifier: the whole would make the paths of sockets too long.
fn root_name(identifier: Identifier) -> String {
    let digits: String = identifier
        .to_string()
        .chars()
        .filter(char::is_ascii_hexdigit)
        .collect();
    digits[..16].to_owned()
}

/// A root that nobody removes before it is entered.
struct Prepared {
    root: EmbeddedRoot,
    identity: Details,
    _gate: Gate,
}

/// The entry's root, which is made where it is missing.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] where somebody else has a folder of its name: nothing was made then.
async fn prepare(entry: &Entry) -> Result<Prepared> {
    let mut gate = gate().await;
    let path = PathBuf::from(&entry.resource().name);
    let (made, known) = (path.clone(), gate.clone());
    let prepared = blocking("prepare the embedded driver", move || {
        let root = make(&made, known.as_ref())?;
        let identity = identity(&made)?;
        Ok((root, identity))
    })
    .await;
    match prepared {
        Ok((root, identity)) => {
            *gate = Some(identity.clone());
            Ok(Prepared {
                root,
                identity,
                _gate: gate,
            })
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mut chosen = PATH.lock().unwrap_or_else(PoisonError::into_inner);
            chosen.take_if(|chosen| *chosen == path);
            Err(error.advice(
                "the folder is none of this sandbox's: remove it yourself, or start anew, which takes another name",
            ))
        }
        Err(error) => Err(error),
    }
}

/// Makes the root, and opens the driver in it.
pub(crate) async fn open(entries: Vec<Entry>, site: &Site<'_>) -> Result<Connection> {
    let [entry] = exactly(entries)?;
    site.stop.check("open the hypervisor")?;
    match prepare(&entry).await {
        Ok(prepared) => enter(&entry, prepared).await,
        // Somebody else's.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(refused(entry, error).await),
        Err(error) => Err(error),
    }
}

/// Opens the driver in the entry's root.
async fn enter(entry: &Entry, prepared: Prepared) -> Result<Connection> {
    let identifier = entry.identifier();
    entry.created(prepared.identity.clone()).await?;
    let path = PathBuf::from(&entry.resource().name);
    let user = path.join(USERS).join(identifier.to_string());
    blocking("enter the embedded driver's root", move || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&user)
            .map(drop)
            .map_err(|error| {
                Error::io("the embedded driver's root cannot be entered", error)
                    .subject(user.display())
            })
    })
    .await?;
    let connection = Connection::open_embedded(&prepared.root, OPEN_LIMIT)
        .await
        .map_err(|error| advise(libvirt(error)))?;
    blocking("look at the embedded driver's root", move || {
        remember_folders(&path)
    })
    .await?;
    Ok(connection)
}

/// Remembers which folders libvirt made in the root, the first time that it is entered.
fn remember_folders(root: &Path) -> Result<()> {
    let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if folders.is_empty() {
        *folders = folders_in(root)?;
    }
    Ok(())
}

/// The folders of a root, relative to it, each behind the one that it is in.
fn folders_in(root: &Path) -> Result<Vec<PathBuf>> {
    fn look(root: &Path, inside: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        let entries = match fs::read_dir(root.join(inside)) {
            // libvirt removes what it needed for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let name = inside.join(entry.file_name());
                found.push(name.clone());
                look(root, &name, found)?;
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    look(root, Path::new(""), &mut found).map_err(|error| {
        Error::io("the embedded driver's root cannot be looked at", error).subject(root.display())
    })?;
    Ok(found)
}

/// An ordinary user's libvirt keeps a list of lent devices in the user's runtime folder, whatever its root.
fn advise(error: Error) -> Error {
    if error.chain().contains("Failed to create state dir") {
        return error.advice("set XDG_RUNTIME_DIR to a folder that this user can write");
    }
    error
}

/// Makes the root, unless it stands: the one that is `known`, or where this process opened one by itself, that.
fn make(path: &Path, known: Option<&Details>) -> Result<EmbeddedRoot> {
    let again = opened_root().is_some();
    let stands = again
        && path.exists()
        && known.is_none_or(|known| identity(path).is_ok_and(|found| found == *known));
    let root = if stands {
        EmbeddedRoot::existing(path).map_err(libvirt)?
    } else {
        EmbeddedRoot::create(path, cache_folder().as_deref(), EmulatorAccount::Caller)
            .map_err(libvirt)?
    };
    let mut needed = vec![PathBuf::from(USERS)];
    if again {
        needed.extend_from_slice(&FOLDERS.lock().unwrap_or_else(PoisonError::into_inner));
    }
    for name in needed {
        let folder = path.join(name);
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&folder)
            .map_err(|error| {
                Error::io("the embedded driver's root cannot be made", error)
                    .subject(folder.display())
            })?;
    }
    Ok(root)
}

/// Takes one user away, and with the last one the root and whatever runs in it.
fn withdraw(path: &Path, identifier: Identifier, deadline: Instant) -> Result<()> {
    let failed = |error| {
        Error::io("the embedded driver's root cannot be removed", error).subject(path.display())
    };
    let users = path.join(USERS);
    match fs::remove_file(users.join(identifier.to_string())) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let left = match fs::read_dir(&users) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed(error)),
    };
    if left {
        return Ok(());
    }
    let name = path.to_string_lossy();
    // One that starts meanwhile finds no folder for its socket, or is met by the second look.
    emulator::clear(&name, deadline)?;
    match fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    emulator::clear(&name, deadline)
}

/// Whether a root was made for this environment first, and has no user: its maker ended in between.
fn is_abandoned(path: &Path, identifier: Identifier) -> Result<bool> {
    let name = format!("see-{}", root_name(identifier));
    if path.file_name().is_none_or(|found| found != name.as_str()) {
        return Ok(false);
    }
    is_last(path, identifier)
}

/// The first thing in a root that was not made there before libvirt opened it.
fn first_strange(path: &Path) -> Result<Option<PathBuf>> {
    fn look(root: &Path, inside: &Path) -> std::io::Result<Option<PathBuf>> {
        for entry in fs::read_dir(root.join(inside))? {
            let entry = entry?;
            let name = inside.join(entry.file_name());
            let kind = entry.file_type()?;
            let is_ours = if kind.is_dir() {
                let known = KINDS.iter().any(|kind| name.starts_with(kind));
                known || name == Path::new(USERS)
            } else {
                kind.is_file()
                    && (name == Path::new("etc/qemu.conf")
                        || inside == Path::new("cache/qemu/capabilities"))
            };
            if !is_ours {
                return Ok(Some(name));
            }
            if kind.is_dir()
                && let Some(strange) = look(root, &name)?
            {
                return Ok(Some(strange));
            }
        }
        Ok(None)
    }
    look(path, Path::new("")).map_err(|error| {
        Error::io("the embedded driver's root cannot be looked at", error).subject(path.display())
    })
}

/// Whether a root has no user but this one.
fn is_last(path: &Path, identifier: Identifier) -> Result<bool> {
    let own = identifier.to_string();
    match fs::read_dir(path.join(USERS)) {
        Ok(users) => Ok(users.flatten().all(|user| user.file_name() == own.as_str())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(
            Error::io("the embedded driver's root cannot be looked at", error)
                .subject(path.display()),
        ),
    }
}

/// Keeps the sandboxes of this process from entering and leaving the root.
async fn gate() -> Gate {
    GATE.lock().await
}

/// Held by whoever enters or leaves.
type Gate = tokio::sync::MutexGuard<'static, Option<Details>>;

/// What tells this folder from another one of the same name.
fn identity(path: &Path) -> Result<Details> {
    let found = fs::symlink_metadata(path).map_err(|error| {
        Error::io("the embedded driver's root cannot be looked at", error).subject(path.display())
    })?;
    let mut details = Details::new();
    details.insert("inode".to_owned(), found.ino().into());
    let born = found
        .created()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map(|time| time.as_nanos().to_string());
    if let Some(born) = born {
        details.insert("born".to_owned(), born.into());
    }
    Ok(details)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// What looks like an emulator that libvirt asks in this root.
    fn asked(root: &Path) -> Child {
        let mut command = Command::new("sh");
        command.arg0("qemu-system-none").stdin(Stdio::piped());
        let monitor = root.join("lib/qemu/qmp-1/qmp.monitor");
        command.args(["-c", "read line"]).arg(monitor);
        command.spawn().unwrap()
    }

    #[test]
    fn the_folders_that_any_libvirt_made_in_a_root_are_found_each_behind_its_own() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/qemu/of-a-later-version")).unwrap();
        fs::write(root.path().join("run/qemu/driver.pid"), "1").unwrap();
        let expected = ["run", "run/qemu", "run/qemu/of-a-later-version"].map(PathBuf::from);
        assert_eq!(folders_in(root.path()).unwrap(), expected);
        let gone = root.path().join("gone");
        assert_eq!(folders_in(&gone).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn whoever_leaves_a_root_last_ends_the_emulators_that_are_still_asked_there() {
        let scratch = tempfile::tempdir().unwrap();
        let [root, other] = ["root", "root-of-others"].map(|name| scratch.path().join(name));
        let [first, last] = [(); 2].map(|()| Identifier::random());
        fs::create_dir_all(root.join("users")).unwrap();
        for user in [first, last] {
            fs::write(root.join("users").join(user.to_string()), "").unwrap();
        }
        let (mut ours, mut others) = (asked(&root), asked(&other));
        let leave = |user| withdraw(&root, user, Instant::now() + Duration::from_secs(5)).unwrap();
        leave(first);
        assert!(root.exists());
        assert!(ours.try_wait().unwrap().is_none(), "it was still needed");
        leave(last);
        assert!(!root.exists());
        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        assert!(
            others.try_wait().unwrap().is_none(),
            "it is somebody else's"
        );
        others.kill().unwrap();
        others.wait().unwrap();
    }
}
