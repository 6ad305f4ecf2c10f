//! The files that libvirt keeps about an object and does not remove with it: some never, others where its daemon died
//! meanwhile.
//!
//! They are removed once libvirt knows no such object: those whose whole name is that of the environment, or that of
//! its bridge. Only root can, and nothing is lost where they stay.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::geteuid;
use see_core::{Error, Result};

use super::emulator;
use super::places::{self, Place};
use crate::driver::driver_of;

/// Where libvirt has the files of its address servers.
const SERVERS: &str = "var/lib/libvirt/dnsmasq";
/// Where it has the state of networks.
const NETWORKS: &str = "run/libvirt/network";

/// How often a folder is opened that the kernel could not find in peace.
const TRIES: u32 = 100;

/// The file system of a daemon, in which its files are looked for.
#[derive(Debug)]
pub(crate) struct Traces(OwnedFd);

impl Traces {
    /// Those of the daemon behind a URI, or of the embedded driver. One that names its socket may run in a file system
    /// of its own.
    ///
    /// # Errors
    /// When this user may not look there, or nobody tells whose daemon it is: then it is not known where its files are.
    pub(super) fn of(uri: &str) -> Result<Self> {
        let path = match socket_of(uri) {
            None => "/".to_owned(),
            Some(socket) => {
                let pid = peer(&socket).map_err(|error| {
                    let message = "whose daemon listens on the socket is not known";
                    Error::io(message, error).subject(socket)
                })?;
                format!("/proc/{pid}/root")
            }
        };
        Self::at(path.as_ref()).map_err(|error| {
            let message = "the daemon's file system cannot be looked at";
            Error::io(message, error.into()).subject(path)
        })
    }

    pub(super) fn at(path: &Path) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(Self)
    }

    /// Removes those of a network; whether there were any.
    pub(crate) fn clear_network(&self, name: &str, bridge: Option<&str>) -> Result<bool> {
        let mut found = false;
        for (folder, files) in network_files(name, bridge) {
            for file in files {
                found |= self.remove(folder, &file)? || self.remove_tree(folder, &file, 2)?;
            }
        }
        Ok(found)
    }

    /// Removes those of a domain at a location of the ledger's, and its control groups.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](see_core::ErrorKind::Timeout) where a process of the domain's lives on in a group; others where only names stay.
    pub(crate) fn clear_domain(&self, location: &str, name: &str) -> Result<()> {
        // Whatever becomes of the files, the groups go.
        let files = self.clear_files(location, name);
        // The embedded driver removes its own with the machine.
        if geteuid().is_root() && !location.starts_with('/') {
            self.clear_groups(driver_of(location), name)?;
        }
        files
    }

    /// Removes the files of a domain at a location of the ledger's; where some stay, only names do.
    pub(crate) fn clear_files(&self, location: &str, name: &str) -> Result<()> {
        let mut failed = None;
        for place in places::of_domains(location) {
            // Whatever becomes of one, the others go.
            let cleared = self.entries_of(&place, name).and_then(|entries| {
                entries.iter().try_for_each(|entry| {
                    // libvirt makes files and folders, of which names alone do not tell.
                    if !self.remove(&place.folder, entry)? {
                        self.remove_tree(&place.folder, entry, place.depth)?;
                    }
                    Ok(())
                })
            });
            failed = failed.or(cleared.err());
        }
        failed.map_or(Ok(()), Err)
    }

    /// What a place holds of a domain that does not run.
    pub(super) fn entries_of(&self, place: &Place, name: &str) -> Result<Vec<String>> {
        let mut entries = self.names(&place.folder)?;
        entries.retain(|entry| place.holds(entry, name));
        if place.is_shared() && !entries.is_empty() {
            // Another's may begin the same way: as long as it runs, its folder is on its command line.
            let mut unused = Vec::new();
            for entry in entries {
                if !emulator::is_used(&format!("/{}/{entry}", place.folder))? {
                    unused.push(entry);
                }
            }
            return Ok(unused);
        }
        Ok(entries)
    }

    /// What there is of a network.
    pub(super) fn network_files(&self, name: &str, bridge: Option<&str>) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (folder, files) in network_files(name, bridge) {
            let there = self.names(folder)?;
            let there = there.into_iter().filter(|entry| files.contains(entry));
            found.extend(there.map(|entry| format!("/{folder}/{entry}")));
        }
        Ok(found)
    }

    /// The end of the log of a domain, of at most `limit` bytes; `None` where there is none.
    pub(super) fn log_tail(&self, folder: &str, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.tail(folder, &format!("{name}.log"), limit)
    }

    /// What the file says by which libvirt knows the process of a domain; `None` where there is none.
    pub(super) fn pid_in(&self, folder: &str, name: &str) -> Result<Option<u32>> {
        let text = self.tail(folder, &format!("{name}.pid"), 64)?;
        Ok(text.and_then(|text| str::from_utf8(&text).ok()?.trim().parse().ok()))
    }

    fn tail(&self, folder: &str, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let unread = |error: std::io::Error| {
            let message = "what the hypervisor wrote cannot be read";
            Error::io(message, error).subject(format!("/{folder}/{file}"))
        };
        let Some(open) = self.folder(folder)? else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&open, file, flags, Mode::empty()) {
            Ok(file) => tail(file.into(), limit).map(Some).map_err(unread),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(unread(error.into())),
        }
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

/// The files of a network, by the folders that they lie in.
fn network_files(name: &str, bridge: Option<&str>) -> [(&'static str, Vec<String>); 2] {
    let ended = |stem: &str, ends: &[&str]| -> Vec<String> {
        ends.iter().map(|end| format!("{stem}.{end}")).collect()
    };
    let mut servers = ended(name, &["conf", "addnhosts", "hostsfile", "leases"]);
    // One over a device of the host's has no bridge of its own.
    if let Some(bridge) = bridge {
        servers.extend(ended(bridge, &["status", "macs"]));
    }
    let mut networks = ended(name, &["pid", "xml", "xml.new"]);
    // The folder with its ports.
    networks.push(name.to_owned());
    [(SERVERS, servers), (NETWORKS, networks)]
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
pub(super) fn names(folder: &OwnedFd, path: &str) -> Result<Vec<String>> {
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

/// The last bytes of a file.
fn tail(mut file: File, limit: u64) -> std::io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
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
        .map(decoded)
        .next()
}

/// A part of a URI without its percent-encoding.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |at: usize| (*after.get(at)? as char).to_digit(16);
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The process that listens on a socket.
fn peer(socket: &str) -> std::io::Result<i32> {
    let stream = std::os::unix::net::UnixStream::connect(Path::new(socket))?;
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    Ok(peer.pid.as_raw_nonzero().get())
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
        assert!(traces.clear_network("abc", Some("virbr-abc")).unwrap());
        assert!(!traces.clear_network("abc", Some("virbr-abc")).unwrap());
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
        assert!(!traces.clear_network("abc", Some("virbr-abc")).unwrap());
        assert!(elsewhere.path().join("abc.pid").exists());
    }

    #[test]
    fn logs_and_state_of_a_domain_go_and_those_of_others_stay() {
        const NAME: &str = "01234567-89ab-4def-8123-456789abcdef";
        let short = &NAME[..20];
        let gone = [
            format!("var/lib/libvirt/qemu/domain-3-{short}/master-key.aes"),
            format!("var/log/libvirt/qemu/{NAME}.log"),
            format!("var/log/libvirt/qemu/{NAME}.log.0"),
            format!("var/log/swtpm/libvirt/qemu/{NAME}-swtpm.log"),
            format!("var/lib/libvirt/swtpm/{NAME}/tpm2/tpm2-00.permall"),
            format!("etc/apparmor.d/libvirt/libvirt-{NAME}"),
            format!("etc/apparmor.d/libvirt/libvirt-{NAME}.files"),
            format!("run/libvirt/qemu/{NAME}.pid"),
            format!("dev/shm/see-{NAME}"),
        ];
        let stay = [
            "var/lib/libvirt/qemu/domain-3-other/master-key.aes",
            "var/log/libvirt/qemu/other.log",
            "var/lib/libvirt/swtpm/other/tpm2/tpm2-00.permall",
            "etc/apparmor.d/libvirt/TEMPLATE.qemu",
            "etc/libvirt/qemu/other.xml",
        ];
        let all: Vec<&str> = gone.iter().map(String::as_str).chain(stay).collect();
        let (folder, traces) = root(&all);
        let uri = "qemu:///system";
        let found = |traces: &Traces| -> usize {
            let places = places::of_domains(uri);
            let each = places.iter().map(|place| traces.entries_of(place, NAME));
            each.map(|entries| entries.unwrap().len()).sum()
        };
        assert_eq!(found(&traces), gone.len());
        traces.clear_domain(uri, NAME).unwrap();
        assert_eq!(found(&traces), 0);
        for path in gone {
            assert!(!folder.path().join(&path).exists(), "{path}");
        }
        for path in stay {
            assert!(folder.path().join(path).exists(), "{path}");
        }
    }

    #[test]
    fn of_a_log_the_end_is_read_and_no_link_is_followed() {
        let (folder, traces) = root(&["var/log/libvirt/qemu/a.log"]);
        let logs = folder.path().join("var/log/libvirt/qemu");
        fs::write(logs.join("a.log"), "begin and end").unwrap();
        std::os::unix::fs::symlink("a.log", logs.join("b.log")).unwrap();
        let tail = |name: &str, limit| traces.log_tail("var/log/libvirt/qemu", name, limit);
        assert_eq!(tail("a", 3).unwrap().unwrap(), b"end");
        assert_eq!(tail("a", 1000).unwrap().unwrap(), b"begin and end");
        assert_eq!(tail("c", 3).unwrap(), None);
        assert!(tail("b", 3).is_err());
    }

    #[test]
    fn the_socket_is_the_one_that_the_uri_names() {
        assert_eq!(socket_of("qemu:///system"), None);
        let found = socket_of("qemu+unix:///system?mode=legacy&socket=/tmp/d/libvirt-sock");
        assert_eq!(found.as_deref(), Some("/tmp/d/libvirt-sock"));
        let found = socket_of("qemu:///system?socket=%2Ftmp%2fa%20b%");
        assert_eq!(found.as_deref(), Some("/tmp/a b%"));
    }

    #[test]
    fn a_socket_on_which_nobody_listens_does_not_stand_for_the_hosts_own_files() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let uri = format!("qemu:///system?socket={}", socket.display());
        let error = Traces::of(&uri).unwrap_err();
        assert_eq!(error.kind(), see_core::ErrorKind::NotFound, "{error}");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        Traces::of(&uri).unwrap();
        Traces::of(
            &uri.replace('/', "%2F")
                .replace("qemu:%2F%2F%2F", "qemu:///"),
        )
        .unwrap();
    }
}
