//! The control groups of machines, which libvirt removes with them unless it is killed before.
//!
//! Where no systemd makes them, libvirt itself does, in each hierarchy: `machine/DRIVER-NUMBER-NAME.libvirt-DRIVER`,
//! and `DRIVER-embed-ROOT-NUMBER-NAME` for the embedded driver. Where systemd-machined makes them, they are scopes:
//! `machine.slice/machine-DRIVER\x2dNUMBER\x2dNAME.scope`, in systemd's spelling. The kernel removes none before its last
//! process ended: those in a group of this name are the machine's, whoever is left to know of them, and are ended.

use std::fs::File;
use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use see_core::{Error, Result};

use super::traces::{Traces, failed, names};

/// Where the hierarchies are mounted; in version 2 it is the only one.
const HIERARCHIES: &str = "sys/fs/cgroup";
/// The groups that libvirt and systemd have all machines in.
const MACHINES: [&str; 2] = ["machine", "machine.slice"];
/// How deep a container's own groups may lie in each other.
const DEPTH: usize = 16;
/// How long the kernel may take to empty the group of a process that ended.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

impl Traces {
    /// Removes those of a domain of this driver, and ends the processes in them; whether there were any.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](see_core::ErrorKind::Timeout) where a process lives on in one.
    pub(crate) fn clear_groups(&self, driver: &str, name: &str) -> Result<bool> {
        let end = Instant::now() + PATIENCE;
        let mut found = false;
        while self.clear_listed(driver, name, end)? {
            found = true;
        }
        Ok(found)
    }

    /// Those of a domain of this driver, by the folders that they lie in.
    pub(super) fn groups_of(&self, driver: &str, name: &str) -> Result<Vec<(String, Vec<String>)>> {
        let hierarchies = self.names(HIERARCHIES)?.into_iter();
        let hierarchies = hierarchies.map(|hierarchy| format!("{HIERARCHIES}/{hierarchy}"));
        let mut found = Vec::new();
        for hierarchy in hierarchies.chain([HIERARCHIES.to_owned()]) {
            for machines in MACHINES.map(|machines| format!("{hierarchy}/{machines}")) {
                let Some(open) = self.folder(&machines)? else {
                    continue;
                };
                // The kernel may leave one out of a list while its neighbour goes: what is in either of two counts.
                let mut groups = names(&open, &machines)?;
                groups.extend(names(&open, &machines)?);
                groups.retain(|group| is_group_of(group, driver, name));
                groups.sort_unstable();
                groups.dedup();
                if !groups.is_empty() {
                    found.push((machines, groups));
                }
            }
        }
        Ok(found)
    }

    fn clear_listed(&self, driver: &str, name: &str, end: Instant) -> Result<bool> {
        let mut found = Vec::new();
        for (machines, groups) in self.groups_of(driver, name)? {
            let Some(open) = self.folder(&machines)? else {
                continue;
            };
            for group in &groups {
                // In each hierarchy first: a process that is frozen in one ends in none.
                end_members(&open, group, DEPTH)
                    .map_err(|error| failed(&format!("{machines}/{group}"), error))?;
            }
            found.push((open, machines, groups));
        }
        for (open, machines, groups) in &found {
            for group in groups {
                remove(open, group, end).map_err(|error| match error {
                    Errno::BUSY => Error::timeout("the machine's processes to end", PATIENCE)
                        .subject(format!("/{machines}/{group}")),
                    error => failed(&format!("{machines}/{group}"), error),
                })?;
            }
        }
        Ok(!found.is_empty())
    }
}

/// Whether a control group is that of the machine with this whole name.
fn is_group_of(group: &str, driver: &str, name: &str) -> bool {
    let scope = group
        .strip_prefix("machine-")
        .and_then(|rest| rest.strip_suffix(".scope"))
        // systemd writes a `-` for a `/`, which no name of a machine has.
        .map(|rest| rest.replace("\\x2d", "-"));
    let machine = match &scope {
        Some(scope) => Some(scope.as_str()),
        None => group
            .strip_suffix(driver)
            .and_then(|rest| rest.strip_suffix(".libvirt-")),
    };
    let number = machine
        .and_then(|rest| rest.strip_prefix(driver)?.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(name)?.strip_suffix('-'));
    let number = number.map(|number| match number.strip_prefix("embed-") {
        Some(rest) => rest.split_once('-').map_or("", |(_, number)| number),
        None => number,
    });
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Removes a group and those in it, once all of their processes are gone.
fn remove(parent: &OwnedFd, name: &str, end: Instant) -> rustix::io::Result<()> {
    loop {
        match remove_tree(parent, name, DEPTH) {
            Err(Errno::BUSY) if Instant::now() < end => {
                // One may have started another meanwhile.
                end_members(parent, name, DEPTH)?;
                thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

/// The files of a group go with it. One that somebody else removes as well is no error, and says nothing of those
/// around it.
fn remove_tree(parent: &OwnedFd, name: &str, depth: usize) -> rustix::io::Result<()> {
    let Some(group) = open(parent, name)? else {
        return Ok(());
    };
    for inner in inner(&group, depth)? {
        remove_tree(&group, &inner, depth - 1)?;
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        removed => removed,
    }
}

/// Tells every process of a group and of those in it to end.
fn end_members(parent: &OwnedFd, name: &str, depth: usize) -> rustix::io::Result<()> {
    let Some(group) = open(parent, name)? else {
        return Ok(());
    };
    for inner in inner(&group, depth)? {
        end_members(&group, &inner, depth - 1)?;
    }
    // Only the hierarchy that freezes has this file.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(state) = rustix::fs::openat(&group, "freezer.state", flags, Mode::empty()) {
        rustix::io::write(&state, b"THAWED")?;
    }
    for member in members(&group) {
        let Ok(handle) = pidfd_open(member, PidfdFlags::empty()) else {
            continue;
        };
        // The number may have gone to another process before the handle was taken.
        if members(&group).contains(&member) {
            match pidfd_send_signal(&handle, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                failed => return failed,
            }
        }
    }
    Ok(())
}

/// A group; none where it is gone.
fn open(parent: &OwnedFd, name: &str) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(group) => Ok(Some(group)),
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of the groups in one; none below the last depth.
fn inner(group: &OwnedFd, depth: usize) -> rustix::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(group)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && ![c".", c".."].contains(&name) && depth > 0 {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// The processes of a group, as this process numbers them; none where it is gone.
fn members(group: &OwnedFd) -> Vec<Pid> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let list = rustix::fs::openat(group, "cgroup.procs", flags, Mode::empty());
    let mut text = String::new();
    // Whoever is not seen is there at the next look.
    let _ = list.map(|list| File::from(list).read_to_string(&mut text));
    let numbers = text.lines().filter_map(|line| line.parse().ok());
    // One that cannot be seen from here is told as zero.
    numbers.filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_group_is_known_by_driver_number_and_whole_name() {
        let name = "01234567-89ab-4def-8123-456789abcdef";
        let scope = |machine: &str| format!("machine-{}.scope", machine.replace('-', "\\x2d"));
        for group in [
            format!("qemu-7-{name}.libvirt-qemu"),
            format!("qemu-embed-ff692f2c-12-{name}.libvirt-qemu"),
            scope(&format!("qemu-7-{name}")),
        ] {
            assert!(is_group_of(&group, "qemu", name), "{group}");
            assert!(!is_group_of(&group, "lxc", name), "{group}");
            assert!(!is_group_of(&group, "qemu", &name[1..]), "{group}");
        }
        for group in [
            format!("qemu-7-{name}"),
            format!("qemu--{name}.libvirt-qemu"),
            format!("qemu-7-x{name}.libvirt-qemu"),
            format!("qemu-7-other-{name}.libvirt-qemu"),
            format!("qemu-embed-ff692f2c-{name}.libvirt-qemu"),
            format!("qemu-7-{name}-x.libvirt-qemu"),
            scope(&format!("qemu-7-x{name}")),
            scope(name),
        ] {
            assert!(!is_group_of(&group, "qemu", name), "{group}");
        }
    }

    #[test]
    fn the_groups_of_a_domain_go_from_every_hierarchy_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let machines =
            ["cpu/machine", "machine"].map(|path| root.path().join(HIERARCHIES).join(path));
        for machine in &machines {
            fs::create_dir_all(machine.join("lxc-7-abc.libvirt-lxc/init/inner")).unwrap();
            fs::create_dir_all(machine.join("lxc-7-abcd.libvirt-lxc")).unwrap();
        }
        let scope = root.path().join(HIERARCHIES).join("machine.slice");
        let scope = scope.join("machine-lxc\\x2d7\\x2dabc.scope");
        fs::create_dir_all(scope.join("libvirt/init")).unwrap();
        // Above the hierarchies is none.
        let other = root.path().join("sys/fs/machine/lxc-7-abc.libvirt-lxc");
        fs::create_dir_all(&other).unwrap();
        let traces = Traces::at(root.path()).unwrap();
        assert!(traces.clear_groups("lxc", "abc").unwrap());
        assert!(other.exists() && !scope.exists());
        assert!(!traces.clear_groups("lxc", "abc").unwrap());
        for machine in &machines {
            let names = fs::read_dir(machine).unwrap();
            let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["lxc-7-abcd.libvirt-lxc"]);
        }
    }

    #[test]
    fn whoever_removes_groups_beside_another_comes_back_when_they_are_gone() {
        let root = tempfile::tempdir().unwrap();
        let group = root
            .path()
            .join(HIERARCHIES)
            .join("cpu/machine/qemu-7-abc.libvirt-qemu");
        for _ in 0..20 {
            for inner in 0..100 {
                fs::create_dir_all(group.join(inner.to_string())).unwrap();
            }
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let traces = Traces::at(root.path()).unwrap();
                        traces.clear_groups("qemu", "abc").unwrap();
                        assert!(!group.exists());
                    });
                }
            });
        }
    }
}
