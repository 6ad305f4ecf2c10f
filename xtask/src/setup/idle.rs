//! Packages of servers without the servers: the tests start what they need themselves, on loopback and for a
//! moment, so nothing is to run on the host, now or after its next start.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::apt::prefixed;
use crate::command;
use crate::failure::{Failure, While};
use crate::workspace;

/// The program that Debian's packages ask whether they may start something.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// One that forbids it, in the terms of Debian's `invoke-rc.d`.
const FORBIDDING: &str = "#!/bin/sh\nexit 101\n";
/// Where a unit stands that systemd is to start.
const UNITS: &str = "/etc/systemd/system";
const DEADLINE: Duration = Duration::from_secs(60);

/// Installs something without any of its servers being started or enabled. What was enabled before stays so,
/// and a host that has a policy of its own keeps it.
pub(super) fn keep(
    prefix: &[&str],
    install: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let own = !Path::new(POLICY).exists();
    if own {
        write_policy(prefix)?;
    }
    let before = enabled(Path::new(UNITS));
    let outcome = install();
    // Also after a failure: some of the packages may be there.
    let disabled = disable(prefix, &before);
    let opened = if own { remove_policy(prefix) } else { Ok(()) };
    outcome.and(disabled).and(opened)
}

fn write_policy(prefix: &[&str]) -> Result<(), Failure> {
    let mut file = tempfile::NamedTempFile::new().doing("cannot make a temporary file")?;
    file.write_all(FORBIDDING.as_bytes())
        .doing("cannot write a temporary file")?;
    let mut install = prefixed(prefix, &["install", "-m", "755"]);
    command::output(install.arg(file.path()).arg(POLICY), DEADLINE).map(drop)
}

fn remove_policy(prefix: &[&str]) -> Result<(), Failure> {
    command::output(&mut prefixed(prefix, &["rm", "-f", POLICY]), DEADLINE).map(drop)
}

/// Takes back what was enabled since.
fn disable(prefix: &[&str], before: &BTreeSet<String>) -> Result<(), Failure> {
    let new: Vec<String> = enabled(Path::new(UNITS))
        .difference(before)
        .cloned()
        .collect();
    if new.is_empty() || workspace::program("systemctl").is_none() {
        return Ok(());
    }
    let mut systemctl = prefixed(prefix, &["systemctl", "--quiet", "disable"]);
    command::output(systemctl.args(new), DEADLINE).map(drop)
}

/// The units that start with the host, by the links in the folders of those that want them.
fn enabled(units: &Path) -> BTreeSet<String> {
    let wanting = fs::read_dir(units).into_iter().flatten().flatten();
    wanting
        .map(|entry| entry.path())
        .filter(|folder| folder.extension().is_some_and(|word| word == "wants"))
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|link| link.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_that_start_with_the_host_are_those_that_a_target_wants() {
        let folder = tempfile::tempdir().expect("a folder");
        let wants = folder.path().join("multi-user.target.wants");
        fs::create_dir(&wants).expect("it is writable");
        fs::write(wants.join("nginx.service"), "").expect("it is writable");
        fs::write(folder.path().join("other.service"), "").expect("it is writable");
        let expected = BTreeSet::from(["nginx.service".to_owned()]);
        assert_eq!(enabled(folder.path()), expected);
    }
}
