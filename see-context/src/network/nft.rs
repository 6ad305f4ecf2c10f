//! The program `nft`: it loads one transaction, as JSON. What stands in the kernel is read without it
//! ([`super::netlink::tables`]).
//!
//! Values reach it as JSON strings and numbers, never as pieces of a command, so nothing needs escaping. A
//! transaction is loaded by the kernel as a whole or not at all.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use see_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::program::environment;

/// How a process is marked that no entry is of: not at all.
pub(super) const UNMARKED: (&str, &str) = ("LC_ALL", "C");

/// The longest that it may take; it takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
/// How often it is started that is interrupted before it has begun.
const TRIES: usize = 3;
/// Where administrators' programs lie, also when the path of a user leaves them out.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A family of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Frames that pass a bridge.
    Bridge,
    /// Packets of IPv4 and IPv6.
    Inet,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Inet => "inet",
        }
    }
}

/// The program's path.
pub(super) fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(FOLDERS.into_iter().map(PathBuf::from))
        .map(|folder| folder.join("nft"))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the program nft is not installed")
                .advice("on Debian and Ubuntu it is in the package nftables")
        })
}

/// Loads a transaction, which may change several tables. `mark` is the variable by which the process is recognised.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] without the right to, [`ErrorKind::AlreadyExists`] and
/// [`ErrorKind::NotFound`] where an object does or does not; nothing was changed then.
pub(super) async fn apply(commands: Vec<Value>, mark: (&str, &str)) -> Result<()> {
    let program = program()?;
    let commands = json!({ "nftables": commands });
    match tokio::time::timeout(LIMIT, exchange(&program, &commands, mark)).await {
        Ok(done) => done.map(drop),
        Err(_) => Err(Error::timeout("nft to end", LIMIT)),
    }
}

/// Everything of every table, as objects: for words about other programs' rules.
///
/// # Errors
/// As [`apply`].
pub(super) async fn ruleset() -> Result<Vec<Value>> {
    let program = program()?;
    let commands = json!({ "nftables": [{ "list": { "ruleset": null } }] });
    let listing = tokio::time::timeout(LIMIT, exchange(&program, &commands, UNMARKED)).await;
    let listing = listing.map_err(|_| Error::timeout("nft to end", LIMIT))??;
    let listing: Value = serde_json::from_slice(&listing).map_err(|error| {
        let message = "nft printed something else than JSON";
        Error::new(ErrorKind::Unavailable, message).caused_by(error)
    })?;
    let objects = listing.get("nftables").and_then(Value::as_array);
    Ok(objects.cloned().unwrap_or_default())
}

async fn exchange(program: &Path, commands: &Value, mark: (&str, &str)) -> Result<Vec<u8>> {
    let mut output = once(program, commands, mark).await?;
    for _ in 1..TRIES {
        // For a moment after it was forked it is in the group of the run still, which a terminal's signals are for.
        if !is_interrupted(output.status) {
            break;
        }
        output = once(program, commands, mark).await?;
    }
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    match text.is_empty() {
        true => Err(refusal(&output.status.to_string())),
        false => Err(refusal(&text)),
    }
}

/// Whether a signal that a terminal sends ended it.
fn is_interrupted(status: ExitStatus) -> bool {
    let signal = status.signal().and_then(Signal::from_named_raw);
    matches!(signal, Some(Signal::INT | Signal::QUIT | Signal::HUP))
}

async fn once(program: &Path, commands: &Value, mark: (&str, &str)) -> Result<Output> {
    let failed = |error| Error::io("nft cannot be run", error).subject(program.display());
    let mut command = Command::new(program);
    command
        .args(["-j", "-f", "-"])
        .env_clear()
        .envs(environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env(mark.0, mark.1)
        // A Ctrl-C is for the run, which decides what is still to be done.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // Where it ends without reading, its status tells why.
        let _ = input.write_all(commands.to_string().as_bytes()).await;
    }
    child.wait_with_output().await.map_err(failed)
}

fn refusal(text: &str) -> Error {
    let first: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(300)
        .collect();
    let said = format!("nft refused: {}", first.escape_debug());
    if text.contains("Operation not permitted") {
        return Error::new(ErrorKind::PermissionDenied, said)
            .advice("firewall rules need root: run as root, or use the mode `nat` or `none`");
    }
    let kind = if text.contains("File exists") {
        ErrorKind::AlreadyExists
    } else if text.contains("No such file or directory") {
        ErrorKind::NotFound
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, said)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const MARK: (&str, &str) = ("LC_ALL", "C");
    /// A shell that hears of a Ctrl-C also where these tests run in the background, which ignores it.
    const SHELL: &str = "#!/usr/bin/env -S --default-signal=INT sh";

    #[tokio::test]
    async fn one_that_is_interrupted_before_it_has_begun_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("nft");
        let tries = folder.path().join("tries");
        let text = format!(
            "{SHELL}\necho >> {0}\n[ $(wc -l < {0}) -gt 1 ] || kill -INT $$\necho done\n",
            tries.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        exchange(&script, &json!({}), MARK).await.unwrap();
        std::fs::write(&script, format!("{SHELL}\nkill -INT $$\n")).unwrap();
        let error = exchange(&script, &json!({}), MARK).await.unwrap_err();
        assert!(error.to_string().contains("signal: 2"), "{error}");
    }

    #[test]
    fn missing_rights_are_told_from_missing_tables() {
        let kind = |text| refusal(text).kind();
        assert_eq!(
            kind("internal:0:0-0: Error: Could not process rule: Operation not permitted"),
            ErrorKind::PermissionDenied
        );
        assert_eq!(
            kind("Error: No such file or directory"),
            ErrorKind::NotFound
        );
    }
}
