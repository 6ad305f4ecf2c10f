//! Whose users a container's are on the host.

pub(super) mod claim;

use std::hash::{DefaultHasher, Hash, Hasher};

use see_core::Identifier;
use see_libvirt::xml::Element;

/// How many users a container has.
const COUNT: u32 = 1 << 16;
/// The range that systemd keeps for containers, as numbers of blocks of [`COUNT`] users each: accounts of people
/// and services lie outside.
const FIRST_BLOCK: u32 = 0x0008;
const BLOCKS: u32 = 0x6fff - FIRST_BLOCK;
/// The block that an environment takes where it is free.
fn preferred(identifier: Identifier) -> u32 {
    let mut hasher = DefaultHasher::new();
    identifier.to_string().hash(&mut hasher);
    let step = hasher.finish() % u64::from(BLOCKS);
    FIRST_BLOCK + u32::try_from(step).unwrap_or_default()
}

/// Who owns what belongs to none of them.
const NOBODY: u32 = 65_534;

/// The host's users and groups that stand for a container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Users {
    /// Its root.
    pub(super) root: (u32, u32),
    /// Whether the files of a root that serves as a model are owned by the host's users, and have to be given to
    /// the container's.
    shifts: bool,
}

impl Users {
    /// Those of a block that nobody else has.
    pub(super) fn of_block(block: u32) -> Self {
        let first = block * COUNT;
        Self {
            root: (first, first),
            shifts: true,
        }
    }

    /// Those of a domain's own `<idmap>`, whose root has the owners that it is to have.
    pub(super) fn of_domain(uid: u32, gid: u32) -> Self {
        Self {
            root: (uid, gid),
            shifts: false,
        }
    }

    /// Who owns the copy of a file with these owners.
    pub(super) fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        if !self.shifts {
            return (uid, gid);
        }
        let within = |id: u32| if id < COUNT { id } else { NOBODY };
        (self.root.0 + within(uid), self.root.1 + within(gid))
    }

    /// The domain's `<idmap>`, unless it has one.
    pub(super) fn map(&self) -> Option<Element> {
        let line = |name, first: u32| {
            Element::new(name)
                .with("start", "0")
                .with("target", first.to_string())
                .with("count", COUNT.to_string())
        };
        self.shifts.then(|| {
            Element::new("idmap")
                .with_child(line("uid", self.root.0))
                .with_child(line("gid", self.root.1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_users_are_none_of_the_hosts() {
        for _ in 0..1000 {
            let users = Users::of_block(preferred(Identifier::random()));
            assert!(users.root.0 >= 0x0008_0000 && users.root.0 <= 0x6fff_0000);
            assert_eq!(users.root.0 % COUNT, 0);
            assert_eq!(
                users.owner(1000, 5),
                (users.root.0 + 1000, users.root.1 + 5)
            );
            assert_eq!(users.owner(1 << 20, 0).0, users.root.0 + NOBODY);
        }
    }

    #[test]
    fn a_domain_with_a_map_of_its_own_keeps_the_owners_of_its_root() {
        let users = Users::of_domain(100_000, 200_000);
        assert_eq!(users.owner(100_007, 200_000), (100_007, 200_000));
        assert!(users.map().is_none());
    }
}
