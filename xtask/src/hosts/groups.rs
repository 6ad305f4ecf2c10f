//! The control groups of a host: one in each hierarchy, which is the root of all that it sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command;
use crate::failure::{Failure, While};

/// Where the hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// How the groups of hosts begin; the number of the process that made them follows.
const PREFIX: &str = "see-host-";
/// The kernel empties the groups of processes that it killed a moment later.
const PATIENCE: Duration = Duration::from_secs(10);

/// The groups of one host, removed when dropped.
#[derive(Debug)]
pub(super) struct Groups {
    /// By the hierarchy's name below the mount; an empty name is the only hierarchy.
    by_hierarchy: Vec<(String, PathBuf)>,
}

impl Groups {
    /// Makes them, and removes those of hosts whose maker was killed.
    pub(super) fn make() -> Result<Self, Failure> {
        let mounts = fs::read_to_string("/proc/mounts").doing("cannot read the mounts")?;
        let own = format!("{PREFIX}{}", std::process::id());
        let mut groups = Self {
            by_hierarchy: Vec::new(),
        };
        for hierarchy in hierarchies(&mounts) {
            let parent = Path::new(MOUNT).join(&hierarchy);
            remove_abandoned(&parent);
            let group = parent.join(&own);
            let failed = || format!("cannot make the control group {}", group.display());
            fs::create_dir(&group).doing(failed())?;
            groups.by_hierarchy.push((hierarchy, group.clone()));
            // A new group of this hierarchy has no processor and no memory, so nothing can be in it.
            for limits in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(usual) = fs::read(parent.join(limits)) {
                    fs::write(group.join(limits), usual).doing(failed())?;
                }
            }
        }
        Ok(groups)
    }

    /// The folders, by the names under which the host sees them.
    pub(super) fn folders(&self) -> Vec<(String, PathBuf)> {
        self.by_hierarchy.clone()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let is_gone = |group: &Path| {
            remove(group);
            !group.exists()
        };
        let all_gone = || {
            command::wait_until(PATIENCE, || {
                self.by_hierarchy.iter().all(|(_, it)| is_gone(it))
            })
        };
        if !all_gone() {
            println!(
                "the control groups of the host cannot be removed: {:?}",
                self.by_hierarchy
            );
        }
    }
}

/// The names of the hierarchies that libvirt can use: each controller's, or the one of all. A hierarchy of the
/// second kind beside those of the first makes libvirt's LXC driver fail, and is left out.
fn hierarchies(mounts: &str) -> Vec<String> {
    let names = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (folder, kind) = (words.next()?, words.next()?);
        let name = folder.strip_prefix(MOUNT)?;
        match (kind, name.strip_prefix('/')) {
            ("cgroup", Some(name)) => Some(name.to_owned()),
            ("cgroup2", None) => Some(String::new()),
            _ => None,
        }
    });
    names.collect()
}

/// Those whose maker runs no more. One that something runs in cannot be removed.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
            remove(&entry.path());
        }
    }
}

/// The files of a control group go with its folder.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // One that is not empty yet is tried again.
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controllers_hierarchy_is_used_or_the_only_one_but_none_beside_others() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(hierarchies(hybrid), ["cpu"]);
        assert_eq!(hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), [""]);
    }
}
