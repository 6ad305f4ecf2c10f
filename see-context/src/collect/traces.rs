//! The files that libvirt keeps about an object and does not remove with it: some never, others where its daemon died
//! meanwhile.
//!
//! They are removed once libvirt knows no such object: those whose whole name is that of the environment, or that of
//! its bridge. Only root can, and nothing is lost where they stay.

use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use see_core::{Error, Result};

use super::emulator;

/// Where libvirt has the files of its address servers.
const SERVERS: &str = "var/lib/libvirt/dnsmasq";
/// Where it has the state of networks.
const NETWORKS: &str = "run/libvirt/network";

/// How often a folder is opened that the kernel could not find in peace.
const TRIES: u32 = 100;

/// The file system of a daemon, in which its files are looked for.
#[derive(Debug)]
pub(super) struct Traces(OwnedFd);

impl Traces {
    /// Those of the daemon behind a URI. One that names its socket may run in a file system of its own.
    pub(super) fn of(uri: &str) -> Option<Self> {
        let own = socket_of(uri).and_then(|socket| peer(&socket));
        let path = own.map_or_else(|| "/".to_owned(), |pid| format!("/proc/{pid}/root"));
        Self::at(path.as_ref()).ok()
    }

    pub(super) fn at(path: &Path) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(Self)
    }

    /// Removes those of a network; whether there were any.
    pub(super) fn clear_network(&self, name: &str, bridge: &str) -> Result<bool> {
        let mut found = false;
        for end in ["conf", "addnhosts", "hostsfile", "leases"] {
            found |= self.remove(SERVERS, &format!("{name}.{end}"))?;
        }
        for end in ["status", "macs"] {
            found |= self.remove(SERVERS, &format!("{bridge}.{end}"))?;
        }
        for end in ["pid", "xml", "xml.new"] {
            found |= self.remove(NETWORKS, &format!("{name}.{end}"))?;
        }
        found |= self.remove_tree(NETWORKS, name, 2)?;
        Ok(found)
    }

    /// Removes those of a domain of this driver, and its control groups.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](see_core::ErrorKind::Timeout) where a process of the domain's lives on in a group; others where only names stay.
    pub(super) fn clear_domain(&self, driver: &str, name: &str) -> Result<()> {
        // Whatever becomes of the files, the groups go.
        let files = self.clear_files(driver, name);
        self.clear_groups(driver, name)?;
        files
    }

    fn clear_files(&self, driver: &str, name: &str) -> Result<()> {
        let state = format!("run/libvirt/{driver}");
        for end in ["pid", "xml", "xml.new", "sock"] {
            self.remove(&state, &format!("{name}.{end}"))?;
        }
        self.remove(&format!("etc/libvirt/{driver}"), &format!("{name}.xml.new"))?;
        // A container's, on which its file systems were mounted.
        for end in ["dev", "devpts", "fuse"] {
            self.remove_tree(&state, &format!("{name}.{end}"), 0)?;
        }
        let short = name.get(..SHORT);
        for folder in [
            "var/lib/libvirt/qemu",
            "var/lib/libvirt/qemu/channel/target",
        ] {
            for entry in self.names(folder)? {
                // Another's may begin the same way: as long as it runs, its folder is on its command line.
                if short.is_some_and(|short| is_of_domain(&entry, short))
                    && !emulator::is_used(&format!("/{folder}/{entry}"))?
                {
                    self.remove_tree(folder, &entry, 1)?;
                }
            }
        }
        Ok(())
    }

    /// Opens a folder of libvirt's; links lead nowhere else.
    pub(super) fn folder(&self, path: &str) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 1..TRIES;
        loop {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), within) {
                Ok(folder) => return Ok(Some(folder)),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                // Somebody renamed or mounted something, anywhere, while a link led upwards.
                Err(Errno::AGAIN) if tries.next().is_some() => {}
                Err(error) => return Err(failed(path, error)),
            }
        }
    }

    pub(super) fn names(&self, folder: &str) -> Result<Vec<String>> {
        match self.folder(folder)? {
            Some(open) => names(&open, folder),
            None => Ok(Vec::new()),
        }
    }

    fn remove(&self, folder: &str, file: &str) -> Result<bool> {
        let Some(open) = self.folder(folder)? else {
            return Ok(false);
        };
        match rustix::fs::unlinkat(&open, file, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::ISDIR) => Ok(false),
            Err(error) => Err(failed(&format!("{folder}/{file}"), error)),
        }
    }

    /// Removes a folder and what is in it, this many folders deep.
    fn remove_tree(&self, folder: &str, name: &str, depth: usize) -> Result<bool> {
        let Some(open) = self.folder(folder)? else {
            return Ok(false);
        };
        let path = format!("{folder}/{name}");
        match remove_tree(&open, name, depth) {
            Ok(()) => Ok(true),
            // Something is mounted there, or it is no such folder.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
            Err(error) => Err(failed(&path, error)),
        }
    }
}

/// How much of a domain's name libvirt has in the names of its folders.
const SHORT: usize = 20;

/// Whether a folder of libvirt's is that of a domain whose name begins so: `domain-NUMBER-BEGINNING`.
fn is_of_domain(folder: &str, short: &str) -> bool {
    folder
        .strip_prefix("domain-")
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(number, rest)| {
            rest == short && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

fn remove_tree(parent: &OwnedFd, name: &str, depth: usize) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type(), entry.file_name());
        if [c".", c".."].contains(&name) {
            continue;
        }
        if kind != FileType::Directory && depth > 0 {
            rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
        } else if depth > 0 {
            remove_tree(&folder, &name.to_string_lossy(), depth - 1)?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// What is in a folder, but for itself and the one above.
fn names(folder: &OwnedFd, path: &str) -> Result<Vec<String>> {
    let entries = Dir::read_from(folder).map_err(|error| failed(path, error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed(path, error))?;
        if ![c".", c".."].contains(&entry.file_name()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

pub(super) fn failed(path: &str, error: Errno) -> Error {
    let message = "what libvirt left cannot be removed";
    Error::io(message, error.into()).subject(format!("/{path}"))
}

/// The socket that a URI names.
fn socket_of(uri: &str) -> Option<String> {
    let (_, query) = uri.split_once('?')?;
    let parameters = query.split(['&', ';']);
    parameters
        .filter_map(|parameter| parameter.strip_prefix("socket="))
        .map(str::to_owned)
        .next()
}

/// The process that listens on a socket.
fn peer(socket: &str) -> Option<i32> {
    let stream = std::os::unix::net::UnixStream::connect(Path::new(socket)).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn root(files: &[&str]) -> (tempfile::TempDir, Traces) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let traces = Traces::at(folder.path()).unwrap();
        (folder, traces)
    }

    #[test]
    fn the_files_of_a_network_go_and_those_of_similar_names_stay() {
        let (folder, traces) = root(&[
            "var/lib/libvirt/dnsmasq/abc.conf",
            "var/lib/libvirt/dnsmasq/virbr-abc.status",
            "var/lib/libvirt/dnsmasq/abcd.conf",
            "var/lib/libvirt/dnsmasq/virbr-abcd.status",
            "run/libvirt/network/abc.pid",
            "run/libvirt/network/abc.xml.new",
            "run/libvirt/network/abc/ports/1.xml",
            "run/libvirt/network/abcd.pid",
            "run/libvirt/network/abcd/ports/1.xml",
        ]);
        assert!(traces.clear_network("abc", "virbr-abc").unwrap());
        assert!(!traces.clear_network("abc", "virbr-abc").unwrap());
        let left = |path: &str| {
            let mut names: Vec<_> = fs::read_dir(folder.path().join(path))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(
            left("var/lib/libvirt/dnsmasq"),
            ["abcd.conf", "virbr-abcd.status"]
        );
        assert_eq!(left("run/libvirt/network"), ["abcd", "abcd.pid"]);
        assert!(
            folder
                .path()
                .join("run/libvirt/network/abcd/ports/1.xml")
                .exists()
        );
    }

    #[test]
    fn a_link_in_place_of_a_folder_leads_nowhere() {
        let (elsewhere, _) = root(&["abc.pid", "ports/x"]);
        let (folder, traces) = root(&["run/libvirt/other"]);
        let link = folder.path().join("run/libvirt/network");
        std::os::unix::fs::symlink(elsewhere.path(), link).unwrap();
        assert!(!traces.clear_network("abc", "virbr-abc").unwrap());
        assert!(elsewhere.path().join("abc.pid").exists());
    }

    #[test]
    fn the_folders_of_a_domain_are_known_by_number_and_name() {
        let name = "01234567-89ab-4def-8123-456789abcdef";
        let short = &name[..SHORT];
        assert!(is_of_domain(&format!("domain-17-{short}"), short));
        assert!(!is_of_domain(&format!("domain-17-{name}"), short));
        assert!(!is_of_domain(&format!("domain--{short}"), short));
        assert!(!is_of_domain(&format!("domain-x-{short}"), short));
        assert!(!is_of_domain("domain-17-other", short));

        let emulator = format!("var/lib/libvirt/qemu/domain-3-{short}/master-key.aes");
        let (folder, traces) = root(&[&emulator, &format!("run/libvirt/qemu/{name}.pid")]);
        traces.clear_domain("qemu", name).unwrap();
        assert!(!folder.path().join(emulator).parent().unwrap().exists());
        assert_eq!(
            fs::read_dir(folder.path().join("run/libvirt/qemu"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn the_socket_is_the_one_that_the_uri_names() {
        assert_eq!(socket_of("qemu:///system"), None);
        let found = socket_of("qemu+unix:///system?mode=legacy&socket=/tmp/d/libvirt-sock");
        assert_eq!(found.as_deref(), Some("/tmp/d/libvirt-sock"));
    }
}
