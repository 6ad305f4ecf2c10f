//! The demonstration as newcomers meet it: a second time, and from an awkward place.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
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
    let mut files = BTreeMap::new();
    add(&target.join("guest"), &mut files);
    add(&target.join("debug/seectl"), &mut files);
    if let Some(cache) = workspace::cache() {
        add(&cache, &mut files);
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

/// Runs the demonstration as an ordinary user, from a read-only copy of the checkout at a path with spaces
/// and other scripts' letters, with a umask that keeps everybody else out.
pub(crate) fn elsewhere() -> Result<(), Failure> {
    let folder = tempfile::Builder::new()
        .prefix("see demo ünï ")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .doing("cannot make a folder")?;
    let copy = folder.path().join("in here 沙盒");
    copy_checkout(&copy)?;
    // Root may write everywhere: it hands over to somebody else.
    let mut shell = if rustix::process::geteuid().is_root() {
        let mut shell = Command::new("unshare");
        let script = ["--mount", "sh", "-c", include_str!("ordinary_user.sh"), "-"];
        shell.args(script).arg(&copy).arg(folder.path());
        // As a new shell of the user would find it; cargo's own variables are this build's.
        shell.arg("cargo");
        shell
    } else {
        let script = "chmod -R a-w . && umask 077 && ! touch a 2>/dev/null && exec \"$@\"";
        let mut shell = Command::new("sh");
        shell.current_dir(&copy).args(["-c", script, "-"]);
        shell.arg(workspace::cargo());
        shell
    };
    shell
        .args(["xtask", "demo"])
        .env("CARGO_TARGET_DIR", workspace::target())
        .env_remove("CARGO")
        .env_remove("CARGO_MANIFEST_DIR");
    let ran = command::output(&mut shell, DEADLINE);
    let mut chmod = Command::new("chmod");
    chmod.args(["-R", "u+w"]).arg(&copy);
    command::output(&mut chmod, DEADLINE)?;
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
