//! How a daemon is reached from a process that has the embedded driver.
//!
//! libvirt takes a process with that driver for a daemon itself, and declines every URI of a daemon on this host
//! that would lead back into the process. Only one that names its transport and the path of a socket passes: such a
//! socket may belong to whomever. So both are filled in, with the socket that libvirt would have chosen.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The drivers that a daemon runs.
const BEHIND_A_DAEMON: [&str; 3] = ["lxc", "qemu", "vbox"];

/// Where daemons have their sockets.
pub(super) struct Sockets {
    /// Those of the system.
    system: PathBuf,
    /// Those of this user; none for root, who has the system's.
    user: Option<PathBuf>,
}

impl Sockets {
    /// Those of this process's user.
    pub(super) fn of_this_user() -> Self {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let user = (!rustix::process::geteuid().is_root()).then(|| {
            variable("XDG_RUNTIME_DIR")
                .or_else(|| variable("XDG_CACHE_HOME"))
                .or_else(|| Some(variable("HOME")?.join(".cache")))
                .map(|folder| folder.join("libvirt"))
        });
        Self {
            system: PathBuf::from("/run/libvirt"),
            user: user.flatten(),
        }
    }

    /// The socket of a driver's daemon: that driver's own, or that of the daemon for all drivers.
    fn find(&self, driver: &str, path: &str, mode: Option<&str>) -> PathBuf {
        let folder: &Path = match &self.user {
            Some(user) if path == "/session" => user,
            _ => &self.system,
        };
        let (own, common) = (
            folder.join(format!("virt{driver}d-sock")),
            folder.join("libvirt-sock"),
        );
        match mode {
            Some("direct") => own,
            Some("legacy") => common,
            _ if own.exists() => own,
            _ => common,
        }
    }
}

/// The URI by which such a process reaches the daemon that this URI means.
pub(super) fn past_the_embedded<'a>(uri: &'a str, sockets: &Sockets) -> Cow<'a, str> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.into();
    };
    let driver = scheme.strip_suffix("+unix").unwrap_or(scheme);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !BEHIND_A_DAEMON.contains(&driver) || !path.starts_with('/') || path == "/embed" {
        return uri.into();
    }
    let mut mode = None;
    let mut names_socket = false;
    let mut parameters: Vec<Cow<'_, str>> = Vec::new();
    for parameter in query.split(['&', ';']).filter(|text| !text.is_empty()) {
        match parameter.split_once('=') {
            // It chooses a socket, which is done here.
            Some(("mode", value)) => mode = Some(value),
            name => {
                names_socket |= name.is_some_and(|(name, _)| name == "socket");
                parameters.push(parameter.into());
            }
        }
    }
    if !names_socket {
        let socket = sockets.find(driver, path, mode);
        parameters.push(format!("socket={}", escaped(&socket)).into());
    }
    format!("{driver}+unix://{path}?{}", parameters.join("&")).into()
}

/// A path as a value in a URI.
fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                char::from(*byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(folder: &Path) -> Sockets {
        Sockets {
            system: folder.to_owned(),
            user: Some(folder.join("a user")),
        }
    }

    #[test]
    fn what_names_no_socket_gets_the_one_that_libvirt_would_choose() {
        let folder = tempfile::tempdir().unwrap();
        let (path, sockets) = (folder.path().display(), sockets(folder.path()));
        let native = |uri| past_the_embedded(uri, &sockets).into_owned();
        let common = format!("socket={path}/libvirt-sock");
        assert_eq!(
            native("qemu:///system"),
            format!("qemu+unix:///system?{common}")
        );
        assert_eq!(
            native("qemu+unix:///system?mode=legacy&no_tty=1"),
            format!("qemu+unix:///system?no_tty=1&{common}")
        );
        assert_eq!(
            native("vbox:///session"),
            format!("vbox+unix:///session?socket={path}/a%20user/libvirt-sock")
        );
        // With a daemon for each driver, that one's.
        std::fs::write(folder.path().join("virtlxcd-sock"), "").unwrap();
        assert_eq!(
            native("lxc:///"),
            format!("lxc+unix:///?socket={path}/virtlxcd-sock")
        );
        assert_eq!(
            native("lxc:///?mode=legacy"),
            format!("lxc+unix:///?{common}")
        );
        assert_eq!(
            native("qemu:///system?mode=direct"),
            format!("qemu+unix:///system?socket={path}/virtqemud-sock")
        );
    }

    #[test]
    fn what_leads_to_no_daemon_on_this_host_stays() {
        let folder = tempfile::tempdir().unwrap();
        let sockets = sockets(folder.path());
        for uri in [
            "qemu:///embed?root=/tmp/see-1",
            "qemu+tcp://host/system",
            "qemu+tcp:///system",
            "qemu://host/system",
            "test:///default",
            "nonsense",
            "",
        ] {
            assert_eq!(past_the_embedded(uri, &sockets), uri);
        }
        assert_eq!(
            past_the_embedded("qemu:///system?socket=/s", &sockets),
            "qemu+unix:///system?socket=/s"
        );
    }
}
