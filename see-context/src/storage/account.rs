//! The account that the system's daemon runs QEMU as: what it can open, and how it alone is let into a folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use see_core::Result;
use see_libvirt::Connection;
use see_libvirt::xml::Document;

use crate::error::libvirt;
use crate::host::first_closed_to;

/// The extended attribute that holds a file's POSIX access control list.
const ACL: &str = "system.posix_acl_access";
/// The only version of its format.
const VERSION: u32 = 2;
/// As long as a list is read: some thousand entries.
const LONGEST: usize = 64 << 10;

/// The rights to read a file, and to pass a folder.
const READ: u32 = 4;
const PASS: u32 = 1;

/// User and group that the emulators run as, as the daemon's capabilities tell them; `None` where they tell none.
pub(crate) async fn of_emulators(connection: &Connection) -> Result<Option<(u32, u32)>> {
    let capabilities = connection.capabilities().await.map_err(libvirt)?;
    Ok(emulators(&capabilities))
}

/// An account of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    uid: u32,
    /// Its own group first.
    groups: Vec<u32>,
}

impl Account {
    /// The account with this number and group, and its further groups on this host. Blocks.
    pub(crate) fn of_host((uid, gid): (u32, u32)) -> Self {
        let passwords = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        let further = further_groups(uid, &passwords, &groups);
        Self {
            uid,
            groups: std::iter::once(gid).chain(further).collect(),
        }
    }

    /// The first part of a path that keeps the account from reading the file there; `None` where it can, as far as
    /// owners, modes and access control lists tell.
    pub(crate) fn first_closed(&self, path: &Path) -> Option<PathBuf> {
        first_closed_to(path, |part, is_file| {
            self.may(part, if is_file { READ } else { PASS })
        })
    }

    /// Whether it can pass this folder and read this file.
    pub(crate) fn may_read_in(&self, folder: &Path, file: &Path) -> bool {
        self.may(folder, PASS) && self.may(file, READ)
    }

    /// Whether it has this right to what a path leads to; what cannot be looked at is passed over.
    fn may(&self, path: &Path, right: u32) -> bool {
        let Ok(found) = fs::metadata(path) else {
            return true;
        };
        let list = read_list(path).unwrap_or_default();
        let mode = found.mode();
        self.rights(mode, found.uid(), found.gid(), &list) & right != 0
    }

    /// The rights by the algorithm of acl(5): the first class that the account belongs to decides.
    fn rights(&self, mode: u32, owner: u32, group: u32, list: &[AclEntry]) -> u32 {
        if self.uid == owner {
            return mode >> 6 & 7;
        }
        // With a list, the group's bits of the mode are its mask.
        let mask = if list.is_empty() { 7 } else { mode >> 3 & 7 };
        let of_user = |entry: &&AclEntry| entry.tag == AclEntry::USER && entry.id == self.uid;
        if let Some(entry) = list.iter().find(of_user) {
            return entry.rights & mask;
        }
        let own = match list.iter().find(|entry| entry.tag == AclEntry::GROUP_OBJ) {
            Some(entry) => entry.rights,
            None => mode >> 3 & 7,
        };
        let named = list
            .iter()
            .filter(|entry| entry.tag == AclEntry::GROUP)
            .map(|entry| (entry.id, entry.rights));
        let of_groups: Vec<u32> = std::iter::once((group, own))
            .chain(named)
            .filter(|(id, _)| self.groups.contains(id))
            .map(|(_, rights)| rights)
            .collect();
        match of_groups.is_empty() {
            true => mode & 7,
            false => of_groups.into_iter().fold(0, |all, rights| all | rights) & mask,
        }
    }

    /// Lets this account, and nobody else but the owner, pass a folder that only its owner can pass so far.
    pub(crate) fn admit(&self, folder: &Path) -> std::io::Result<()> {
        let entry = |tag, rights, id| AclEntry { tag, rights, id };
        let list = [
            entry(AclEntry::USER_OBJ, 7, AclEntry::NOBODY),
            entry(AclEntry::USER, PASS, self.uid),
            entry(AclEntry::GROUP_OBJ, 0, AclEntry::NOBODY),
            entry(AclEntry::MASK, PASS, AclEntry::NOBODY),
            entry(AclEntry::OTHER, 0, AclEntry::NOBODY),
        ];
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &list {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend((entry.rights as u16).to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        Ok(rustix::fs::setxattr(
            folder,
            ACL,
            &bytes,
            XattrFlags::empty(),
        )?)
    }
}

/// An entry of a POSIX access control list, as the kernel keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AclEntry {
    tag: u16,
    rights: u32,
    id: u32,
}

impl AclEntry {
    const USER_OBJ: u16 = 0x01;
    const USER: u16 = 0x02;
    const GROUP_OBJ: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    /// The id of an entry that needs none.
    const NOBODY: u32 = u32::MAX;
}

/// The list of a file; `None` where it has none beside its mode.
fn read_list(path: &Path) -> Option<Vec<AclEntry>> {
    let mut bytes = vec![0; LONGEST];
    let length = rustix::fs::getxattr(path, ACL, &mut bytes[..]).ok()?;
    let (version, entries) = bytes.get(..length)?.split_at_checked(4)?;
    if u32::from_le_bytes(version.try_into().ok()?) != VERSION {
        return None;
    }
    let entry = |bytes: &[u8]| {
        Some(AclEntry {
            tag: u16::from_le_bytes(bytes[..2].try_into().ok()?),
            rights: u32::from(u16::from_le_bytes(bytes[2..4].try_into().ok()?)),
            id: u32::from_le_bytes(bytes[4..8].try_into().ok()?),
        })
    };
    entries.chunks_exact(8).map(entry).collect()
}

/// User and group of the emulators in the capabilities of the driver of QEMU: `+64055:+64055`.
fn emulators(capabilities: &str) -> Option<(u32, u32)> {
    let document = Document::parse(capabilities).ok()?;
    let host = document.root().child("host")?;
    let model = host.children().find(|model| {
        model.name() == "secmodel"
            && model
                .child("model")
                .is_some_and(|name| name.text().trim() == "dac")
    })?;
    let label = model.child("baselabel")?.text();
    let (user, group) = label.trim().split_once(':')?;
    let number = |text: &str| text.trim_start_matches('+').parse().ok();
    Some((number(user)?, number(group)?))
}

/// The groups that list the user as a member, from the texts of `/etc/passwd` and `/etc/group`.
fn further_groups(uid: u32, passwords: &str, groups: &str) -> Vec<u32> {
    let uid = uid.to_string();
    let user = passwords.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    let Some(user) = user else {
        return Vec::new();
    };
    let group = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let id = fields.next()?.parse().ok()?;
        let mut members = fields.next()?.split(',');
        members.any(|member| member == user).then_some(id)
    };
    groups.lines().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn account(uid: u32, groups: &[u32]) -> Account {
        Account {
            uid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn the_account_of_the_emulators_is_read_from_the_capabilities() {
        let capabilities = "<capabilities><host><secmodel><model>apparmor</model><doi>0</doi></secmodel>\
             <secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+108</baselabel>\
             <baselabel type='qemu'>+64055:+108</baselabel></secmodel></host></capabilities>";
        assert_eq!(emulators(capabilities), Some((64055, 108)));
        for none in [
            "",
            "<capabilities/>",
            "<capabilities><host><secmodel><model>none</model></secmodel></host></capabilities>",
        ] {
            assert_eq!(emulators(none), None, "{none}");
        }
    }

    #[test]
    fn the_groups_of_an_account_are_those_that_name_it() {
        let passwords = "root:x:0:0::/:/bin/sh\nqemu:x:7:8::/:/bin/false\n";
        let groups = "root:x:0:\nkvm:x:12:other,qemu\nqemus:x:13:qemux\nlab:x:14:qemu\n";
        assert_eq!(further_groups(7, passwords, groups), [12, 14]);
        assert_eq!(further_groups(9, passwords, groups), [0_u32; 0]);
    }

    #[test]
    fn the_first_class_that_an_account_is_in_decides_what_it_may() {
        let entry = |tag, rights, id| AclEntry { tag, rights, id };
        let qemu = account(7, &[8, 12]);
        assert_eq!(qemu.rights(0o754, 7, 0, &[]), 7, "the owner");
        assert_eq!(qemu.rights(0o754, 0, 12, &[]), 5, "a group");
        assert_eq!(qemu.rights(0o701, 0, 8, &[]), 0, "a group without a right");
        assert_eq!(qemu.rights(0o754, 0, 9, &[]), 4, "others");
        let named = [
            entry(AclEntry::USER, 5, 7),
            entry(AclEntry::GROUP_OBJ, 0, 0),
        ];
        assert_eq!(qemu.rights(0o750, 0, 0, &named), 5, "by name");
        assert_eq!(qemu.rights(0o710, 0, 0, &named), 1, "by name, masked");
        let group = [
            entry(AclEntry::GROUP_OBJ, 0, 0),
            entry(AclEntry::GROUP, 4, 12),
        ];
        assert_eq!(qemu.rights(0o770, 0, 8, &group), 4, "by a group's name");
    }

    #[test]
    fn a_folder_admits_the_account_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        fs::set_permissions(&inner, PermissionsExt::from_mode(0o700)).unwrap();
        let file = inner.join("file");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o444)).unwrap();
        let (emulator, other) = (account(4_000_001, &[]), account(4_000_002, &[]));
        assert!(!emulator.may_read_in(&inner, &file));
        emulator.admit(&inner).unwrap();
        assert!(emulator.may_read_in(&inner, &file));
        assert!(!other.may_read_in(&inner, &file));
    }
}
