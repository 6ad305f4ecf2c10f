//! Installing packages with apt, or saying what to install where there is none.

use std::process::Command;
use std::time::Duration;

use super::idle;
use super::needs::{Need, OTHER_SYSTEMS};
use crate::command::{self, Finished};
use crate::failure::{Failure, exit_code};
use crate::workspace;

/// The longest that the lists of packages may take to arrive.
const DEADLINE: Duration = Duration::from_secs(900);

/// Whether packages of the host may be replaced by older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Downgrades {
    Refused,
    Allowed,
}

/// Installs the packages that bring what is missing. None of the host's is removed for it.
pub(super) fn install(missing: &[&Need], downgrades: Downgrades) -> Result<(), Failure> {
    if workspace::program("apt-get").is_none() {
        return Err(by_hand(missing));
    }
    let names = packages(missing);
    let Some(prefix) = rights() else {
        let line = install_command(&["sudo"], &pinned(&names, &candidate), downgrades);
        return Err(Failure::with(
            exit_code::MISSING_RIGHTS,
            format!(
                "installing packages needs root. Run this, then try again:\n  {} && {}",
                command::shown(&update_command(&["sudo"])),
                command::shown(&line)
            ),
        ));
    };
    // Lists that were never fetched know no candidate at all.
    let mut updated = false;
    if names.iter().any(|name| candidate(name).is_none()) {
        command::output(&mut update_command(prefix), DEADLINE)?;
        updated = true;
    }
    let (servers, others): (Vec<&Need>, Vec<&Need>) =
        missing.iter().partition(|need| need.brings_servers());
    // Neither has a limit: what is killed half way leaves packages half configured.
    let plain = |command: &mut Command| command::finish_without_limit(command);
    let idle = |command: &mut Command| idle::keep(prefix, command);
    let command = |names: &[String]| install_command(prefix, names, downgrades);
    if !others.is_empty() {
        install_packages(prefix, &packages(&others), &mut updated, &command, &plain)?;
    }
    if !servers.is_empty() {
        install_packages(prefix, &packages(&servers), &mut updated, &command, &idle)?;
    }
    Ok(())
}

/// The names of the packages, each once.
fn packages(needs: &[&Need]) -> Vec<String> {
    let mut names: Vec<String> = needs.iter().map(|need| need.apt.to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn install_packages(
    prefix: &[&str],
    names: &[String],
    updated: &mut bool,
    command: &dyn Fn(&[String]) -> Command,
    run: &dyn Fn(&mut Command) -> Result<Finished, Failure>,
) -> Result<(), Failure> {
    let once = || {
        let mut install = command(&pinned(names, &candidate));
        println!("setup: waiting for apt-get to install {}", names.join(", "));
        let finished = run(&mut install)?;
        match finished.status.success() {
            true => Ok(()),
            false => Err(refused(&install, &finished)),
        }
    };
    let first = once();
    // Newer lists change nothing of what the host has.
    let is_final = match &first {
        Ok(()) => true,
        Err(failure) => failure.exit == exit_code::INSTALL_BY_HAND,
    };
    if is_final || *updated {
        return first;
    }
    // Old lists name packages that the servers no longer have.
    command::output(&mut update_command(prefix), DEADLINE)?;
    *updated = true;
    once()
}

/// Why apt-get did not install: above all where it had to downgrade or remove packages of the host.
fn refused(install: &Command, finished: &Finished) -> Failure {
    let listed = |heading: &str| {
        let after = finished
            .stdout
            .lines()
            .skip_while(|line| !line.contains(heading));
        let names = after.skip(1).take_while(|line| line.starts_with(' '));
        names
            .flat_map(str::split_whitespace)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (older, removed) = (listed("will be DOWNGRADED:"), listed("will be REMOVED:"));
    if !removed.is_empty() {
        return Failure::with(
            exit_code::INSTALL_BY_HAND,
            format!(
                "what is missing cannot be installed beside these packages of this host: {removed}. Nothing was \
                 changed. Remove them yourself if they are not needed, then try again"
            ),
        );
    }
    if !older.is_empty() {
        return Failure::with(
            exit_code::INSTALL_BY_HAND,
            format!(
                "what is missing needs older versions of these packages of this host: {older}. Nothing was changed. \
                 To have them replaced by older ones:\n  cargo xtask setup --allow-downgrades"
            ),
        );
    }
    let said = [&finished.stdout, &finished.stderr].map(|text| text.trim_end());
    let shown = command::shown(install);
    Failure::new(format!(
        "`{shown}` ended with {}\n{}",
        finished.status,
        said.join("\n")
    ))
}

/// How to become root: not at all, with sudo that asks nothing, or none.
fn rights() -> Option<&'static [&'static str]> {
    if rustix::process::geteuid().is_root() {
        return Some(&[]);
    }
    workspace::program("sudo")?;
    let free = command::finish(
        Command::new("sudo").args(["-n", "true"]),
        Duration::from_secs(10),
    );
    free.is_ok_and(|finished| finished.status.success())
        .then_some(&["sudo", "-n"])
}

/// The names, with qemu-utils held to the version of the qemu-system-x86 that
/// would be installed. A host may carry a newer qemu-utils (a backport), which
/// breaks the emulator's older files: plain apt-get then refuses both.
fn pinned(names: &[String], candidate: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut pinned = names.to_vec();
    if !names.iter().any(|name| name == "qemu-system-x86") {
        return pinned;
    }
    let Some(system) = candidate("qemu-system-x86") else {
        return pinned;
    };
    let utils = installed("qemu-utils").or_else(|| candidate("qemu-utils"));
    pin(&mut pinned, &system, utils.as_deref());
    pinned
}

fn pin(names: &mut Vec<String>, system: &str, utils: Option<&str>) {
    if utils == Some(system) {
        return;
    }
    names.retain(|name| name != "qemu-utils");
    names.push(format!("qemu-utils={system}"));
}

/// The version of a package that apt would install.
fn candidate(name: &str) -> Option<String> {
    let mut command = Command::new("apt-cache");
    command.env("LC_ALL", "C").args(["policy", name]);
    let policy = command::output(&mut command, Duration::from_secs(60)).ok()?;
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?
        .trim();
    (version != "(none)").then(|| version.to_owned())
}

/// The version of a package that is installed.
fn installed(name: &str) -> Option<String> {
    let mut command = Command::new("dpkg-query");
    command.args(["-W", "-f", "${db:Status-Status} ${Version}", name]);
    let answer = command::output(&mut command, Duration::from_secs(60)).ok()?;
    answer.strip_prefix("installed ").map(str::to_owned)
}

fn update_command(prefix: &[&str]) -> Command {
    command::prefixed(prefix, &["apt-get", "update", "-q"])
}

fn install_command(prefix: &[&str], names: &[String], downgrades: Downgrades) -> Command {
    let mut command = command::prefixed(
        prefix,
        &[
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-q",
            "-y",
            "--no-install-recommends",
            "--no-remove",
        ],
    );
    if downgrades == Downgrades::Allowed {
        command.arg("--allow-downgrades");
    }
    command.args(names);
    command
}

/// What to install where apt is not.
fn by_hand(missing: &[&Need]) -> Failure {
    for (system, install) in OTHER_SYSTEMS {
        if workspace::program(system).is_some() {
            let mut names: Vec<_> = missing
                .iter()
                .filter_map(|need| need.package_on(system))
                .collect();
            names.sort_unstable();
            names.dedup();
            return Failure::with(
                exit_code::INSTALL_BY_HAND,
                format!(
                    "this host has no apt. Install these packages, then try again:\n  \
                     sudo {install} {}",
                    names.join(" ")
                ),
            );
        }
    }
    let names: Vec<_> = missing.iter().map(|need| need.apt).collect();
    Failure::with(
        exit_code::INSTALL_BY_HAND,
        format!(
            "this host's package system is not known. Install what Debian calls: {}",
            names.join(" ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["qemu-system-x86".into(), "qemu-utils".into()]
    }

    #[test]
    fn a_newer_qemu_utils_is_pinned_to_the_emulators_version() {
        let mut pinned = names();
        pin(&mut pinned, "1:7.2+dfsg-7", Some("1:10.0.2+ds-2~bpo12+1"));
        assert_eq!(pinned, ["qemu-system-x86", "qemu-utils=1:7.2+dfsg-7"]);
    }

    #[test]
    fn a_qemu_utils_already_installed_newer_is_pinned_even_when_not_missing() {
        let mut pinned = vec!["qemu-system-x86".to_owned()];
        pin(&mut pinned, "1:7.2+dfsg-7", Some("1:10.0.2+ds-2~bpo12+1"));
        assert_eq!(pinned, ["qemu-system-x86", "qemu-utils=1:7.2+dfsg-7"]);
    }

    #[test]
    fn equal_versions_are_left_alone() {
        let mut pinned = names();
        pin(&mut pinned, "1:7.2+dfsg-7", Some("1:7.2+dfsg-7"));
        assert_eq!(pinned, names());
    }

    #[test]
    fn no_package_of_the_host_is_downgraded_unless_told_to_nor_ever_removed() {
        let words = |downgrades| command::shown(&install_command(&[], &names(), downgrades));
        for downgrades in [Downgrades::Refused, Downgrades::Allowed] {
            assert!(words(downgrades).contains(" --no-remove "));
        }
        assert!(!words(Downgrades::Refused).contains("downgrades"));
        assert!(words(Downgrades::Allowed).contains(" --allow-downgrades "));
    }

    #[test]
    fn what_apt_would_have_to_downgrade_or_remove_is_named_with_what_to_do() {
        let refusal = |stdout: &str| {
            let status = Command::new("false").status().expect("it runs");
            let finished = Finished {
                status,
                stdout: stdout.to_owned(),
                stderr: String::from("E: apt's reason"),
            };
            refused(&Command::new("apt-get"), &finished)
        };
        let older = "The following NEW packages will be installed:\n  a\nThe following packages will be DOWNGRADED:\n  \
                     qemu-block-extra\n  qemu-utils\n0 upgraded\n";
        let failure = refusal(older);
        assert_eq!(failure.exit, exit_code::INSTALL_BY_HAND);
        assert!(
            failure.message.contains(": qemu-block-extra, qemu-utils."),
            "{failure}"
        );
        assert!(
            failure.message.contains("setup --allow-downgrades"),
            "{failure}"
        );
        let failure =
            refusal("The following packages will be REMOVED:\n  mine theirs\n0 upgraded\n");
        assert!(failure.message.contains(": mine, theirs."), "{failure}");
        let failure = refusal("The disk is full\n");
        assert!(failure.message.contains("apt's reason"), "{failure}");
    }

    #[test]
    fn the_printed_command_can_be_pasted_into_a_shell() {
        let line = command::shown(&install_command(&["sudo"], &names(), Downgrades::Refused));
        assert!(
            line.starts_with("sudo env DEBIAN_FRONTEND=noninteractive apt-get install "),
            "{line}"
        );
        assert!(line.ends_with(" qemu-system-x86 qemu-utils"), "{line}");
    }
}
