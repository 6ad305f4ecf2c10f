//! Opening the embedded driver: one root a process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::{EmbeddedRoot, cache, folder, reaper};
use crate::call;
use crate::connection::{CALL_LIMIT, Connection, Link, Session};
use crate::driver;
use crate::error::{Cause, Error};
use crate::event_loop;
use crate::processor::on_the_first_core;

/// The driver that this process runs.
struct Opened {
    root: PathBuf,
    /// Never closed: libvirt registers the driver anew at each open of an embedded URI, and has room for
    /// about fifteen in the life of a process ("Too many drivers, cannot register QEMU").
    connection: Arc<Link>,
}

/// The driver of this process. It can be read while another thread opens one.
static OPEN: OnceLock<Opened> = OnceLock::new();

/// Keeps two first opens from racing in libvirt; held for as long as an open takes.
static OPENING: Mutex<()> = Mutex::new(());

/// The root that this process runs the embedded driver on, once it does. It stays the only
/// possible one until the process ends.
#[must_use]
pub fn opened_root() -> Option<PathBuf> {
    OPEN.get().map(|opened| opened.root.clone())
}

impl Connection {
    /// The connection to the embedded driver that this process runs on this root; `None` where it runs none there.
    /// The folder is not looked at.
    #[must_use]
    pub fn embedded_on(root: &Path) -> Option<Self> {
        let opened = OPEN.get().filter(|opened| opened.root == root)?;
        Some(Self {
            link: Arc::clone(&opened.connection),
            limit: CALL_LIMIT,
        })
    }

    /// Opens the embedded QEMU driver on `root`, within `limit`. The first time on a host it
    /// probes the emulators, for seconds; what it finds is saved for the next root.
    ///
    /// The driver runs, and its one connection stays open, until the process ends: all that this
    /// returns share it. QEMU processes outlive it.
    ///
    /// The first time, this process becomes a child subreaper, so that ended emulators are reaped wherever it runs:
    /// [`embedded`](crate::embedded#processes) tells what that changes for a program with other children.
    ///
    /// # Errors
    /// [`Cause::OtherRoot`] when this process has opened another root, [`Cause::RootLocked`]
    /// when another process has this one, whatever else libvirt reports, or the time limit.
    pub async fn open_embedded(root: &EmbeddedRoot, limit: Duration) -> Result<Self, Error> {
        let places = Link::places_for_new();
        let (root, shared) = (root.clone(), Arc::clone(&places));
        let uri = root.uri();
        let link = call::call(&places, limit, "open", uri, move || {
            event_loop::start()?;
            driver::begin_embedded();
            let opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
            let link = match OPEN.get() {
                Some(opened) if opened.root == root.path => Arc::clone(&opened.connection),
                Some(other) => {
                    return Err(Cause::OtherRoot {
                        open: other.root.clone(),
                    });
                }
                None => {
                    let mut session = on_the_first_core(|| Session::open(&root.uri()))
                        .map_err(|cause| locked(cause, &root.path))?;
                    // An ordinary user has no capabilities to pass on.
                    session.runs_emulators(folder::is_root());
                    let connection = Arc::new(Link::over(session, root.uri(), shared));
                    let opened = Opened {
                        root: root.path.clone(),
                        connection: Arc::clone(&connection),
                    };
                    // Whoever opens holds the lock.
                    OPEN.get_or_init(|| opened);
                    connection
                }
            };
            drop(opening);
            folder::narrow(&root.path)?;
            // Each time: the folders of a root that was removed and made again are others.
            if let Err(cause) = reaper::follow(&root.path) {
                tracing::warn!(%cause, "emulators that end are left to pid 1");
            }
            // Asking makes libvirt probe what it does not know.
            link.last().asking(|connect| Ok(connect.capabilities()?))?;
            if let Some(saved) = &root.saved
                && let Err(cause) = cache::save(&root.path, saved)
            {
                tracing::warn!(%cause, "the next root will have to probe the emulators again");
            }
            Ok(link)
        })
        .await?;
        Ok(Self {
            link,
            limit: CALL_LIMIT,
        })
    }
}

/// Tells a root that another process holds from other failures.
fn locked(cause: Cause, root: &Path) -> Cause {
    match cause {
        Cause::Libvirt { message, .. } if message.contains("driver.pid") => Cause::RootLocked {
            pid: std::fs::read_to_string(root.join("run/qemu/driver.pid"))
                .ok()
                .and_then(|text| text.trim().parse().ok()),
            message,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn which_root_is_open_is_told_while_another_thread_opens_one() {
        let _opening = OPENING.lock().unwrap();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let found = (
                opened_root(),
                Connection::embedded_on(Path::new("/none")).is_some(),
            );
            tell.send(found).unwrap();
        });
        let told = told.recv_timeout(Duration::from_secs(60));
        assert_eq!(told.expect("nobody waits for the open"), (None, false));
    }
}
