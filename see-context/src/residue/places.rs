//! Where libvirt and the programs that it starts keep files named after a domain, which do not all go with it.

use std::path::PathBuf;

use crate::driver::{Driver, is_session};

/// How much of a domain's name libvirt has in the names of its folders.
const SHORT: usize = 20;

/// A folder with files of domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// What lies there, for people.
    pub(super) what: &'static str,
    /// The folder, beneath the root of the file system.
    pub(super) folder: String,
    /// How a domain's are known.
    named: Named,
    /// How deep a folder of the domain's is removed with what is in it; 0: only an empty one.
    pub(super) depth: usize,
}

/// How the name of a domain is a part of a file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// It is the whole name, or the name begins with it: `NAME.log.1`, `NAME-swtpm.log`.
    Begins(&'static str),
    /// It is followed by this.
    Ends(&'static str),
    /// Its beginning follows a number: `domain-NUMBER-BEGINNING`, `NUMBER-BEGINNING`.
    Short(&'static str),
    /// It stands somewhere.
    Contains,
}

impl Place {
    /// Whether a file or folder in it belongs to the domain of this name.
    pub(super) fn holds(&self, entry: &str, name: &str) -> bool {
        match self.named {
            Named::Begins(prefix) => entry
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '_'])),
            Named::Ends(end) => entry.strip_suffix(end) == Some(name),
            Named::Short(prefix) => name.get(..SHORT).is_some_and(|short| {
                let rest = entry.strip_prefix(prefix);
                rest.and_then(|rest| rest.split_once('-'))
                    .is_some_and(|(number, rest)| {
                        let is_short = rest == short
                            || rest
                                .strip_prefix(short)
                                .is_some_and(|rest| rest.starts_with(['.', '-']));
                        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
                        is_short && is_number && !number.is_empty()
                    })
            }),
            Named::Contains => entry.contains(name),
        }
    }

    /// Whether other domains' may be named the same way, so that it has to be looked who uses it.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.named, Named::Short(_))
    }
}

/// The folders of one of libvirt's drivers.
#[derive(Debug)]
struct Folders {
    /// What lives no longer than the host.
    state: String,
    definitions: String,
    library: String,
    logs: String,
    /// The state of emulated TPMs, and what swtpm says.
    tpm: [String; 2],
}

impl Folders {
    fn of_system(driver: &str) -> Self {
        Self {
            state: format!("run/libvirt/{driver}"),
            definitions: format!("etc/libvirt/{driver}"),
            library: format!("var/lib/libvirt/{driver}"),
            logs: format!("var/log/libvirt/{driver}"),
            tpm: [
                "var/lib/libvirt/swtpm".to_owned(),
                format!("var/log/swtpm/libvirt/{driver}"),
            ],
        }
    }

    /// A user's own, where that user's environment says; `None` without a home.
    fn of_session(driver: &str, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        let home = || variable("HOME");
        let below = |name: &str, usual: &str| {
            let folder = variable(name).or_else(|| Some(home()?.join(usual)))?;
            let folder = folder.to_str()?.trim_start_matches('/');
            Some(format!("{folder}/libvirt/{driver}"))
        };
        let cache = below("XDG_CACHE_HOME", ".cache")?;
        let configuration = below("XDG_CONFIG_HOME", ".config")?;
        // Without a folder for runtime files libvirt takes the one for caches.
        let state = below("XDG_RUNTIME_DIR", ".cache")?;
        Some(Self {
            state: format!("{state}/run"),
            library: format!("{configuration}/lib"),
            logs: format!("{cache}/log"),
            tpm: [format!("{configuration}/swtpm"), format!("{cache}/log")],
            definitions: configuration,
        })
    }

    /// The embedded driver's, in its root.
    fn of_root(root: &str) -> Self {
        let root = root.trim_start_matches('/');
        Self {
            state: format!("{root}/run/qemu"),
            definitions: format!("{root}/etc/qemu"),
            library: format!("{root}/lib/qemu"),
            logs: format!("{root}/log/qemu"),
            tpm: [
                format!("{root}/lib/swtpm"),
                format!("{root}/log/swtpm/qemu"),
            ],
        }
    }

    fn at(location: &str) -> Option<Self> {
        if location.starts_with('/') {
            return Some(Self::of_root(location));
        }
        let driver = Driver::of(location).folders?;
        if is_session(location) {
            let variable = |name: &str| {
                let path = std::env::var_os(name).map(PathBuf::from);
                path.filter(|path| path.is_absolute())
            };
            return Self::of_session(driver, variable);
        }
        Some(Self::of_system(driver))
    }
}

/// The folder with the logs of the domains at a location of the ledger's: a URI, or the embedded driver's root.
pub(super) fn logs(location: &str) -> Option<String> {
    Folders::at(location).map(|folders| folders.logs)
}

/// The folder with what libvirt notes of running domains, such as the number of the emulator.
pub(super) fn state(location: &str) -> Option<String> {
    Folders::at(location).map(|folders| folders.state)
}

/// All that may hold something of a domain at a location of the ledger's.
pub(super) fn of_domains(location: &str) -> Vec<Place> {
    let Some(folders) = Folders::at(location) else {
        return Vec::new();
    };
    let place = |what, folder: String, named, depth| Place {
        what,
        folder,
        named,
        depth,
    };
    let Folders {
        state,
        definitions,
        library,
        logs,
        tpm: [tpm, tpm_logs],
    } = folders;
    let runtime = "libvirt's run-time files";
    let kept = "what libvirt keeps of machines";
    let mut places = vec![
        // Of a container, empty folders on which its file systems were mounted.
        place(runtime, state.clone(), Named::Begins(""), 0),
        place(runtime, format!("{state}/channel"), Named::Short(""), 1),
        place(runtime, format!("{state}/dbus"), Named::Short(""), 0),
        place(runtime, format!("{state}/passt"), Named::Short(""), 0),
        place(runtime, format!("{state}/slirp"), Named::Short(""), 0),
        place(runtime, format!("{state}/swtpm"), Named::Short(""), 0),
        place(kept, definitions, Named::Ends(".xml.new"), 0),
        place(kept, library.clone(), Named::Short("domain-"), 1),
        place(
            kept,
            format!("{library}/channel/target"),
            Named::Short("domain-"),
            1,
        ),
        place(
            kept,
            format!("{library}/ram/libvirt/qemu"),
            Named::Short(""),
            1,
        ),
        place("libvirt's logs", logs, Named::Begins(""), 0),
        place("the emulated TPM's state", tpm, Named::Begins(""), 2),
        place("the emulated TPM's logs", tpm_logs, Named::Begins(""), 0),
    ];
    for folder in ["checkpoint", "dump", "nvram", "save", "snapshot"] {
        let folder = format!("{library}/{folder}");
        places.push(place(kept, folder, Named::Begins(""), 1));
    }
    places.push(place(
        "shared memory",
        "dev/shm".to_owned(),
        Named::Contains,
        0,
    ));
    if !location.starts_with('/') && !is_session(location) {
        places.push(place(
            "AppArmor's profiles",
            "etc/apparmor.d/libvirt".to_owned(),
            Named::Begins("libvirt-"),
            0,
        ));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "01234567-89ab-4def-8123-456789abcdef";

    #[test]
    fn the_folders_of_a_domain_are_known_by_number_and_name() {
        let place = |named| Place {
            what: "",
            folder: String::new(),
            named,
            depth: 0,
        };
        let short = &NAME[..SHORT];
        let folders = place(Named::Short("domain-"));
        assert!(folders.holds(&format!("domain-17-{short}"), NAME));
        assert!(!folders.holds(&format!("domain-17-{NAME}"), NAME));
        assert!(!folders.holds(&format!("domain--{short}"), NAME));
        assert!(!folders.holds(&format!("domain-x-{short}"), NAME));
        assert!(!folders.holds("domain-17-other", NAME));
        assert!(place(Named::Short("")).holds(&format!("17-{short}-swtpm.sock"), NAME));
        let logs = place(Named::Begins(""));
        for end in [".log", ".log.2", "-swtpm.log", "-fs0-virtiofsd.log", ""] {
            assert!(logs.holds(&format!("{NAME}{end}"), NAME), "{end}");
        }
        assert!(!logs.holds(&format!("{NAME}0.log"), NAME));
        assert!(!logs.holds(&format!("x{NAME}.log"), NAME));
        let profiles = place(Named::Begins("libvirt-"));
        assert!(profiles.holds(&format!("libvirt-{NAME}.files"), NAME));
        assert!(!profiles.holds("TEMPLATE.qemu", NAME));
    }

    #[test]
    fn each_kind_of_daemon_has_its_own_folders() {
        let logs = |location| super::logs(location).unwrap();
        assert_eq!(logs("qemu:///system"), "var/log/libvirt/qemu");
        assert_eq!(
            logs("lxc+unix:///system?socket=/tmp/s"),
            "var/log/libvirt/lxc"
        );
        assert_eq!(logs("/tmp/see-1"), "tmp/see-1/log/qemu");
        let home = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/home/a")),
            "XDG_RUNTIME_DIR" => Some(PathBuf::from("/run/user/7")),
            _ => None,
        };
        let session = Folders::of_session("qemu", home).unwrap();
        assert_eq!(session.logs, "home/a/.cache/libvirt/qemu/log");
        assert_eq!(session.state, "run/user/7/libvirt/qemu/run");
        assert_eq!(session.library, "home/a/.config/libvirt/qemu/lib");
        assert!(Folders::of_session("qemu", |_| None).is_none());
    }
}
