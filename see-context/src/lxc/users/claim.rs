//! Which users of the host are nobody's: containers of different sandboxes have none in common.
//!
//! Only root makes containers, so root's folder is where their users are written down: each environment has a file
//! there, an entry of its ledger, with the number of its block. Who looks for a free block holds the folder's lock.
//! The folder goes with a boot, as the containers do.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use see_core::ledger::Entry;
use see_core::{Error, ErrorKind, Identifier, Result};

use super::{BLOCKS, COUNT, FIRST_BLOCK};

/// Root's folder.
const PARENT: &str = "/run/see";
/// The folder in it for the blocks in use.
pub(in crate::lxc) const FOLDER: &str = "/run/see/users";
/// The longest wait for the lock, which is held for milliseconds.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

/// Makes the folder for the blocks in use where it is missing. It is all environments', stays until the next boot, and
/// has to be there before the ledger can name a file in it. Blocks.
pub(in crate::lxc) fn make_folder() -> Result<()> {
    [PARENT, FOLDER]
        .into_iter()
        .try_for_each(|folder| make(Path::new(folder)))
}

fn make(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(failed(folder, error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(folder).map_err(|error| failed(folder, error))?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "the folder in which containers' users are written down is not one of this user that only it writes to",
        )
        .subject(folder.display()));
    }
    Ok(())
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::io("a container's users cannot be written down", error).subject(path.display())
}

/// Takes a block that nobody has, and writes it into the entry's file. Blocks.
pub(in crate::lxc) fn take(entry: &Entry, folder: &Path) -> Result<u32> {
    let _lock = lock(folder)?;
    let mut taken = in_use();
    taken.extend(written(folder)?);
    let block = free_block(entry.identifier(), &taken).ok_or_else(|| {
        Error::new(
            ErrorKind::Exhausted,
            "every block of users that containers may have is in use",
        )
    })?;
    let mut file = entry.create_file_blocking()?;
    writeln!(file, "{block}").map_err(|error| failed(folder, error))?;
    Ok(block)
}

/// Held until it is dropped.
fn lock(folder: &Path) -> Result<File> {
    let file = File::open(folder).map_err(|error| failed(folder, error))?;
    let end = Instant::now() + LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(PAUSE),
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::timeout("others to choose containers' users", LIMIT));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(folder, error)),
        }
    }
}

/// Users from a first one on, and how many they are.
type Range = (u64, u64);

/// The users of block `number`.
fn users_of(number: u32) -> Range {
    (u64::from(number) * u64::from(COUNT), u64::from(COUNT))
}

/// The environment's own choice where that is free, else the next one that is.
fn free_block(identifier: Identifier, taken: &[Range]) -> Option<u32> {
    let first = super::preferred(identifier);
    let all = (0..BLOCKS).map(|step| FIRST_BLOCK + (first - FIRST_BLOCK + step) % BLOCKS);
    all.into_iter().find(|block| {
        let (start, count) = users_of(*block);
        taken
            .iter()
            .all(|(other, length)| start + count <= *other || other + length <= start)
    })
}

/// The blocks of other environments.
fn written(folder: &Path) -> Result<Vec<Range>> {
    let mut blocks = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        // One that is removed meanwhile is nobody's, and one that was never filled names none.
        let entry = entry.map_err(|error| failed(folder, error))?;
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        blocks.extend(text.trim().parse().ok().map(users_of));
    }
    Ok(blocks)
}

/// The users that the host has, lends to its users, or runs something as.
fn in_use() -> Vec<Range> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut ranges = Vec::new();
    for path in ["/etc/subuid", "/etc/subgid"] {
        ranges.extend(read(path).lines().filter_map(lent));
    }
    for path in ["/etc/passwd", "/etc/group"] {
        let numbers = read(path);
        let numbers = numbers.lines().filter_map(|line| line.split(':').nth(2));
        ranges.extend(numbers.filter_map(|number| Some((number.parse().ok()?, 1))));
    }
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for map in ["uid_map", "gid_map"] {
            // A process that ended has none.
            let map = fs::read_to_string(process.path().join(map)).unwrap_or_default();
            ranges.extend(map.lines().filter_map(mapped));
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// A line of `/etc/subuid`: `NAME:FIRST:COUNT`.
fn lent(line: &str) -> Option<Range> {
    let mut fields = line.trim().split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// A line of `/proc/PID/uid_map`: inside, outside, count. The host's own map is of all users.
fn mapped(line: &str) -> Option<Range> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (count < u64::from(u32::MAX)).then_some((first, count))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use see_core::ledger::{Collectors, Ledger, Resource};

    use super::*;

    #[test]
    fn what_others_have_is_read_as_the_host_writes_it() {
        assert_eq!(lent("mallory:524288:65536"), Some((524_288, 65_536)));
        assert_eq!(lent("# a remark"), None);
        assert_eq!(
            mapped("         0     655360      65536"),
            Some((655_360, 65_536))
        );
        assert_eq!(mapped("         0          0 4294967295"), None);
    }

    #[test]
    fn a_block_that_somebody_has_a_part_of_is_not_taken() {
        let identifier = Identifier::random();
        let first = free_block(identifier, &[]).unwrap();
        let (start, count) = users_of(first);
        for taken in [
            (start, 1),
            (start + count - 1, 1),
            (start - 5, 6),
            (0, 1 << 40),
        ] {
            let next = free_block(identifier, &[taken]);
            assert_ne!(next, Some(first), "{taken:?}");
            assert_eq!(next.is_none(), taken.1 == 1 << 40);
        }
        assert_eq!(
            free_block(identifier, &[(start - 1, 1), (start + count, 1)]),
            Some(first)
        );
    }

    #[tokio::test]
    async fn containers_that_are_made_at_once_have_no_users_in_common_and_give_them_back() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("users");
        make(&folder).unwrap();
        let ledger = Ledger::open_blocking(scratch.path().join("ledger")).unwrap();
        let mut takers = Vec::new();
        for _ in 0..40 {
            let identifier = Identifier::random();
            let record = ledger.begin(identifier, "test").await.unwrap();
            let file = Resource::file(&folder, identifier.to_string()).unwrap();
            let entry = record.intend_one(file).await.unwrap();
            let folder = folder.clone();
            let taker = std::thread::spawn(move || take(&entry, &folder).unwrap());
            takers.push((record, taker));
        }
        let mut blocks = BTreeSet::new();
        for (record, taker) in takers {
            let block = taker.join().unwrap();
            assert!(blocks.insert(block), "{block} is taken twice");
            let patience = Duration::from_secs(30);
            let outcomes = record.collect(&Collectors::core(), patience).await.unwrap();
            assert!(outcomes.iter().all(|(_, outcome)| outcome.is_gone()));
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
