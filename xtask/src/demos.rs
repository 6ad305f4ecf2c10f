//! The demonstration as newcomers meet it: a second time, and from an awkward place.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::command;
use crate::failure::{Failure, While};
use crate::workspace;

/// A demonstration that may build everything first.
const DEADLINE: Duration = Duration::from_secs(1800);

/// Runs the demonstration twice: the second time nothing is built, downloaded or probed again.
pub(crate) fn twice() -> Result<(), Failure> {
    once()?;
    let before = made();
    once()?;
    let again: Vec<String> = made()
        .into_iter()
        .filter(|(path, time)| before.get(path) != Some(time))
        .map(|(path, _)| path.display().to_string())
        .collect();
    if again.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the second demonstration made again:\n  {}",
        again.join("\n  ")
    )))
}

/// What the demonstration printed.
pub(crate) fn once() -> Result<String, Failure> {
    command::output(Command::new(workspace::own_program()).arg("demo"), DEADLINE)
}

/// What a demonstration makes for later ones, with the time of each file.
fn made() -> BTreeMap<PathBuf, SystemTime> {
    let target = workspace::target();
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let mut files = BTreeMap::new();
    add(&target.join("guest"), &mut files);
    add(&target.join("debug/seectl"), &mut files);
    if let Some(cache) = cache {
        add(&cache.join("see"), &mut files);
    }
    files
}

fn add(path: &Path, files: &mut BTreeMap<PathBuf, SystemTime>) {
    let Ok(found) = fs::symlink_metadata(path) else {
        return;
    };
    if !found.is_dir() {
        // The lock of the guest's builder is taken each time, and holds nothing.
        if path.file_name().is_some_and(|name| name != "lock")
            && let Ok(time) = found.modified()
        {
            files.insert(path.to_owned(), time);
        }
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        add(&entry.path(), files);
    }
}

/// Runs the demonstration from a read-only copy of the checkout, at a path with spaces and other scripts'
/// letters, with a umask that keeps everybody else out. Only the target folder is shared.
pub(crate) fn elsewhere() -> Result<(), Failure> {
    let folder = tempfile::Builder::new()
        .prefix("see demo ünï ")
        .tempdir()
        .doing("cannot make a folder")?;
    let copy = folder.path().join("in here 沙盒");
    copy_checkout(&copy)?;
    // Root may write everywhere, so only a read-only mount holds it off.
    let is_root = rustix::process::geteuid().is_root();
    let script = if is_root {
        "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && cd \"$0\" && umask 077 && \
         ! touch \"$0/a\" 2>/dev/null && exec \"$@\""
    } else {
        "chmod -R a-w \"$0\" && cd \"$0\" && umask 077 && ! touch \"$0/a\" 2>/dev/null && exec \"$@\""
    };
    let mut shell = if is_root {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh"]);
        unshare
    } else {
        Command::new("sh")
    };
    shell
        .args(["-c", script])
        .arg(&copy)
        .arg(workspace::cargo())
        .args(["xtask", "demo"])
        .env("CARGO_TARGET_DIR", workspace::target())
        .env_remove("CARGO_MANIFEST_DIR");
    let ran = command::output(&mut shell, DEADLINE);
    if !is_root {
        let mut chmod = Command::new("chmod");
        chmod.args(["-R", "u+w"]).arg(&copy);
        command::output(&mut chmod, DEADLINE)?;
    }
    ran.map(drop)
}

/// Copies the files that belong to the checkout, as they are now.
fn copy_checkout(to: &Path) -> Result<(), Failure> {
    let root = workspace::root();
    let mut git = Command::new("git");
    git.current_dir(&root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let listed = command::output(&mut git, DEADLINE)?;
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let from = root.join(name);
        // A file that was deleted and not committed yet is still listed.
        if !from.exists() {
            continue;
        }
        let into = to.join(name);
        if let Some(parent) = into.parent() {
            fs::create_dir_all(parent).doing(format_args!("cannot make {}", parent.display()))?;
        }
        fs::copy(&from, &into).doing(format_args!("cannot copy {}", from.display()))?;
    }
    Ok(())
}
