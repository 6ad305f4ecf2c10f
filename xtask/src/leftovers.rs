//! What a run may leave on the host: domains, networks, pools, processes,
//! folders, control groups, network interfaces, leases, logs, shared memory,
//! the state of emulated TPMs, AppArmor's profiles. Two looks, before and
//! after, tell what is new; what was there before is nobody's business of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command;
use crate::failure::{Failure, While};
use crate::hosts::Entered;
use crate::workspace;

/// The word under which the program calls itself to look at another host, in it.
pub(crate) const LOOK_WORD: &str = "host-look";

/// How long something that is just ending may take to be gone.
const DEADLINE: Duration = Duration::from_secs(15);
/// Programs that run for a sandbox.
const PROGRAMS: [&str; 6] = [
    "dnsmasq",
    "libvirt_lxc",
    "qemu-img",
    "qemu-system",
    "see-agent",
    "seectl",
];
/// Where libvirt and what it starts keep files named after a machine.
const MACHINE_FILES: [&str; 7] = [
    "/dev/shm",
    "/etc/apparmor.d/libvirt",
    "/var/lib/libvirt/qemu/nvram",
    "/var/lib/libvirt/swtpm",
    "/var/log/libvirt/lxc",
    "/var/log/libvirt/qemu",
    "/var/log/swtpm/libvirt/qemu",
];
/// Where the hierarchies of control groups are mounted.
const HIERARCHIES: &str = "/sys/fs/cgroup";
/// What who makes or removes the shared network holds.
const SHARED_LOCK: &str = "shared.lock";
/// Where the users of containers that run are written down.
const USERS: &str = "users";
/// The folder in the target folder that the servers of tests work in.
const SERVICES: &str = "services";

/// One look at the host.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    things: BTreeSet<String>,
    /// The command lines of the processes among the things.
    lines: BTreeMap<String, String>,
    /// The kinds of objects that the daemon told of.
    told: BTreeSet<String>,
}

impl Look {
    /// Looks at everything that a sandbox may consist of.
    pub(crate) fn now() -> Self {
        let mut things = BTreeSet::new();
        let told = daemon_objects(&mut things);
        tables(&mut things);
        let lines = processes(&mut things);
        folders(&mut things);
        control_groups(HIERARCHIES, &mut things);
        interfaces_and_leases(&mut things);
        machine_files(&MACHINE_FILES, &mut things);
        Self {
            things,
            lines,
            told,
        }
    }

    /// Looks at the same on another host, where one is given.
    pub(crate) fn on(host: Option<&Entered>) -> Result<Self, Failure> {
        let Some(host) = host else {
            return Ok(Self::now());
        };
        let mut look = Command::new(workspace::own_program());
        let printed = command::output(&mut host.inside(look.arg(LOOK_WORD)), DEADLINE)?;
        serde_json::from_str(&printed).doing("cannot read what is on the host")
    }

    /// What is there now and was not at this look, on the same host. Waits for what is ending; what appears
    /// meanwhile is another's. A host that cannot be looked at is told as left, and so is a daemon that answered at
    /// this look and does not any more: nobody knows what it holds.
    pub(crate) fn left_on(&self, host: Option<&Entered>) -> Vec<String> {
        let mut left: Option<BTreeSet<String>> = None;
        command::wait_until(DEADLINE, || {
            let look = Self::on(host);
            let mut now =
                look.map_or_else(|it| BTreeSet::from([it.message]), |look| self.new_in(look));
            now.retain(|thing| left.as_ref().is_none_or(|left| left.contains(thing)));
            let is_done = now.is_empty();
            left = Some(now);
            is_done
        });
        left.into_iter().flatten().collect()
    }

    /// What is there at a later look and was not at this one.
    fn new_in(&self, later: Self) -> BTreeSet<String> {
        let silent = self.told.difference(&later.told);
        let silent = silent.map(|kind| format!("{kind}: the daemon does not answer"));
        let mut new = silent.collect::<BTreeSet<_>>();
        new.extend(later.things.difference(&self.things).cloned());
        new
    }

    /// What is there of the run with this identifier, whoever else runs something. Waits for what is
    /// ending.
    pub(crate) fn left_of(identifier: &str) -> Vec<String> {
        // Short paths are made of the identifier's first digits.
        let digits: String = identifier.chars().filter(|c| *c != '-').take(16).collect();
        let mut left = Vec::new();
        command::wait_until(DEADLINE, || {
            let look = Self::now();
            left = look
                .things
                .iter()
                .filter(|thing| {
                    let line = look.lines.get(*thing).map_or("", String::as_str);
                    [thing.as_str(), line]
                        .iter()
                        .any(|text| text.contains(identifier) || text.contains(&digits))
                })
                .cloned()
                .collect();
            left.is_empty()
        });
        left
    }
}

/// Prints a look for who asks from another host.
pub(crate) fn print() -> Result<(), Failure> {
    let look = serde_json::to_string(&Look::now()).doing("cannot tell what is there")?;
    println!("{look}");
    Ok(())
}

/// What the daemon has; the answer is the kinds that it told of.
fn daemon_objects(into: &mut BTreeSet<String>) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    if UnixStream::connect("/run/libvirt/libvirt-sock").is_err() {
        return told;
    }
    let lists: [(&str, &str, &[&str]); 4] = [
        ("domain", "qemu:///system", &["list", "--all", "--name"]),
        ("container", "lxc:///system", &["list", "--all", "--name"]),
        (
            "network",
            "qemu:///system",
            &["net-list", "--all", "--name"],
        ),
        ("pool", "qemu:///system", &["pool-list", "--all", "--name"]),
    ];
    for (kind, uri, words) in lists {
        let mut virsh = Command::new("virsh");
        virsh.args(["-q", "-c", uri]).args(words);
        let Ok(names) = command::output(&mut virsh, DEADLINE) else {
            continue;
        };
        told.insert(kind.to_owned());
        for name in names.lines().filter(|name| !name.trim().is_empty()) {
            into.insert(format!("{kind} {}", name.trim()));
        }
    }
    told
}

/// Firewall tables of ours, as root sees them.
fn tables(into: &mut BTreeSet<String>) {
    let mut nft = Command::new("nft");
    let listed = command::output(nft.args(["list", "tables"]), DEADLINE).unwrap_or_default();
    let ours = listed.lines().filter(|line| line.contains(" see-"));
    into.extend(ours.map(|line| format!("firewall {}", line.trim())));
}

fn processes(into: &mut BTreeSet<String>) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let services = workspace::target().join(SERVICES);
    for pid in names("/proc") {
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A zombie has no command line: it holds nothing any more.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let program = String::from_utf8_lossy(program);
        let name = program.rsplit('/').next().unwrap_or_default();
        let serves = || {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&services))
        };
        if PROGRAMS.iter().any(|known| name.starts_with(known)) || serves() {
            let thing = format!("process {pid} ({name})");
            lines.insert(thing.clone(), String::from_utf8_lossy(&line).into_owned());
            into.insert(thing);
        }
    }
    lines
}

fn folders(into: &mut BTreeSet<String>) {
    let mut places = vec![
        env::temp_dir(),
        PathBuf::from("/tmp"),
        PathBuf::from("/run"),
        PathBuf::from("/var/tmp"),
    ];
    places.extend(env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    for place in places {
        let place = place.to_string_lossy().into_owned();
        for name in names(&place) {
            let path = format!("{place}/{name}");
            if name.starts_with("see-") || name == "see" && !is_idle(Path::new(&path)) {
                into.insert(format!("folder {path}"));
            }
        }
    }
}

/// Whether a folder holds no more than the lock of the shared network and the empty folder for containers' users, which
/// nobody can remove without a race and which go with the next boot.
fn is_idle(folder: &Path) -> bool {
    let is_idle = |name: &String| {
        let path = folder.join(name);
        match name.as_str() {
            SHARED_LOCK => fs::metadata(path).is_ok_and(|found| found.len() == 0),
            USERS => fs::read_dir(path).is_ok_and(|users| users.count() == 0),
            _ => false,
        }
    };
    names(&folder.to_string_lossy()).iter().all(is_idle)
}

/// Those that libvirt makes where no systemd does, and that no machine is in: one that runs is told as a process.
fn control_groups(hierarchies: &str, into: &mut BTreeSet<String>) {
    let each = names(hierarchies).into_iter();
    let each = each.map(|name| format!("{hierarchies}/{name}"));
    for hierarchy in each.chain([hierarchies.to_owned()]) {
        for machines in ["machine", "machine.slice"] {
            let machines = format!("{hierarchy}/{machines}");
            for name in names(&machines) {
                let group = format!("{machines}/{name}");
                let is_machine = name.contains(".libvirt-") || name.starts_with("machine-");
                if is_machine && !has_processes(&group) {
                    into.insert(format!("control group {group}"));
                }
            }
        }
    }
}

/// Files that bear an identifier: those of the machines that tests make by libvirt itself have other names.
fn machine_files(folders: &[&str], into: &mut BTreeSet<String>) {
    for folder in folders {
        let names = names(folder).into_iter();
        let ours = names.filter(|name| bears_identifier(name));
        into.extend(ours.map(|name| format!("file {folder}/{name}")));
    }
}

/// Whether an identifier, `8-4-4-4-12` hexadecimal digits, is a part of a name.
fn bears_identifier(name: &str) -> bool {
    const LENGTH: usize = 36;
    let is_identifier = |part: &[u8]| {
        part.iter()
            .enumerate()
            .all(|(index, byte)| match [8, 13, 18, 23].contains(&index) {
                true => *byte == b'-',
                false => byte.is_ascii_hexdigit(),
            })
    };
    name.as_bytes().windows(LENGTH).any(is_identifier)
}

/// Whether a process is in a control group, or in one of those in it.
fn has_processes(group: &str) -> bool {
    let own = fs::read_to_string(format!("{group}/cgroup.procs"));
    own.is_ok_and(|processes| !processes.trim().is_empty())
        || names(group)
            .into_iter()
            .map(|name| format!("{group}/{name}"))
            .any(|inner| Path::new(&inner).is_dir() && has_processes(&inner))
}

fn interfaces_and_leases(into: &mut BTreeSet<String>) {
    for name in names("/sys/class/net") {
        into.insert(format!("network interface {name}"));
    }
    for name in names("/var/lib/libvirt/dnsmasq") {
        into.insert(format!("lease file {name}"));
    }
}

/// The names in a folder; none when it cannot be read.
fn names(folder: &str) -> Vec<String> {
    fs::read_dir(folder)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_appeared_is_new_and_gone_once_removed() {
        let before = Look::now();
        let folder = tempfile::Builder::new()
            .prefix("see-leftover-")
            .tempdir()
            .expect("a folder");
        let entry = format!("folder {}", folder.path().display());
        assert!(!before.things.contains(&entry));
        assert!(Look::now().things.contains(&entry));
        let name = folder.path().file_name().expect("it has one");
        let own = Look::left_of(&name.to_string_lossy());
        assert_eq!(own, [entry.as_str()]);
        folder.close().expect("removed");
        assert!(!Look::now().things.contains(&entry));
    }

    #[test]
    fn a_daemon_that_answers_no_more_is_told_as_left() {
        let look = |told: &[&str], things: &[&str]| {
            let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            Look {
                told: all(told),
                things: all(things),
                ..Look::default()
            }
        };
        let before = look(&["domain", "pool"], &["domain x"]);
        let silent = before.new_in(look(&["pool"], &["pool y"]));
        let expected = ["domain: the daemon does not answer", "pool y"];
        assert_eq!(silent, look(&[], &expected).things);
        assert!(before.new_in(before.clone()).is_empty());
        assert!(look(&[], &[]).new_in(look(&["domain"], &[])).is_empty());
    }

    #[test]
    fn a_control_group_is_left_when_nobody_is_in_it() {
        let root = tempfile::tempdir().expect("a folder");
        let machines = root.path().join("cpu/machine");
        let group = |name: &str, inner: &str, processes: &str| {
            let group = machines.join(name);
            fs::create_dir_all(group.join(inner)).expect("a folder");
            fs::write(group.join(inner).join("cgroup.procs"), processes).expect("a file");
        };
        group("qemu-1-a.libvirt-qemu", "emulator", "4711\n");
        group("qemu-2-b.libvirt-qemu", "emulator", "");
        group("other", "", "");
        let mut found = BTreeSet::new();
        control_groups(&root.path().to_string_lossy(), &mut found);
        let left = machines.join("qemu-2-b.libvirt-qemu");
        assert_eq!(found, [format!("control group {}", left.display())].into());
    }

    #[test]
    fn a_log_is_left_when_its_name_bears_an_identifier() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = "7f0c1a52-4a3e-4d0b-9f53-1f2f64c0a9de.log.1";
        for name in [log, "foreign.log", "7f0c1a52-4a3e.log"] {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        let path = folder.path().to_string_lossy();
        let mut found = BTreeSet::new();
        machine_files(&[&path], &mut found);
        assert_eq!(found, [format!("file {path}/{log}")].into());
    }

    #[test]
    fn a_folder_with_nothing_but_an_empty_lock_is_idle() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(is_idle(folder.path()));
        fs::write(folder.path().join(SHARED_LOCK), "").expect("a file");
        assert!(is_idle(folder.path()));
        fs::write(folder.path().join(SHARED_LOCK), "x").expect("a file");
        assert!(!is_idle(folder.path()));
        fs::write(folder.path().join(SHARED_LOCK), "").expect("a file");
        fs::create_dir(folder.path().join(USERS)).expect("a folder");
        assert!(is_idle(folder.path()));
        fs::write(folder.path().join("seats"), "").expect("a file");
        assert!(!is_idle(folder.path()));
    }
}
