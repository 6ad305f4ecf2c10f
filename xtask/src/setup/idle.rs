//! Packages of servers without the servers: the tests start what they need themselves, on loopback and for a
//! moment, so nothing is to run on the host, now or after its next start.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::failure::{Failure, While};

/// The program that Debian's packages ask whether they may start something.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Where a unit stands that systemd is to start.
const UNITS: &str = "/etc/systemd/system";
/// What does it, and goes on when this program is ended.
const SCRIPT: &str = include_str!("idle.sh");
/// By which a policy of ours is known.
const OURS: &str = "# Made by SEE's cargo xtask setup";
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a command that installs, without any server being started or enabled by it. What was enabled before stays
/// so, and a host that has a policy of its own keeps it. The answer is what the command printed. It takes as long as it
/// takes: with the script killed, the command would go on and start what it installs.
pub(super) fn keep(prefix: &[&str], install: &Command) -> Result<command::Finished, Failure> {
    if is_forgotten(Path::new(POLICY)) {
        command::output(
            &mut command::prefixed(prefix, &["rm", "-f", POLICY]),
            DEADLINE,
        )?;
    }
    let (_folder, log) = log().doing("cannot make a temporary file")?;
    let mut kept = kept(prefix, [Path::new(POLICY), Path::new(UNITS), &log], install);
    let mut finished = command::finish_without_limit(&mut kept)?;
    finished.stdout = fs::read_to_string(&log).doing("cannot read what apt-get printed")?;
    Ok(finished)
}

/// An empty file, in a folder of this user's own: where everybody may write, the kernel keeps root from opening what
/// is another user's.
fn log() -> io::Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    fs::write(&log, "")?;
    Ok((folder, log))
}

/// The command under the script. A Ctrl-C in the terminal does not reach its group.
fn kept(prefix: &[&str], [policy, units, log]: [&Path; 3], install: &Command) -> Command {
    let mut command = command::prefixed(prefix, &["sh", "-c", SCRIPT, "sh"]);
    command
        .args([policy, units, log])
        .arg(install.get_program());
    command.args(install.get_args()).process_group(0);
    command
}

/// Whether a policy is one of ours whose script was ended by a power cut, or by force.
fn is_forgotten(policy: &Path) -> bool {
    let is_ours = fs::read_to_string(policy).is_ok_and(|text| text.contains(OURS));
    let allows = || {
        Command::new(policy)
            .status()
            .is_ok_and(|status| status.success())
    };
    is_ours && allows()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A host with a unit that is enabled, and a "package" that enables another one and waits until it is told to end.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let wants = folder.path().join("units/multi-user.target.wants");
            fs::create_dir_all(&wants).expect("it is writable");
            std::os::unix::fs::symlink("x", wants.join("old.service")).expect("it is writable");
            Self(folder)
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn install(&self, end: &str) -> Command {
            let mut install = Command::new("sh");
            let script = "cd \"$0\" && ln -s x units/multi-user.target.wants/new.service && : >begun; \
                          until [ -e go ]; do sleep 0.02; done; ";
            install
                .arg("-c")
                .arg(format!("{script}{end}"))
                .arg(self.0.path());
            let places = [&self.path("policy"), &self.path("units"), &self.path("log")];
            kept(&[], places.map(|path| path.as_path()), &install)
        }

        fn waits_for(&self, name: &str, there: bool) {
            let path = self.path(name);
            let is_so = command::wait_until(PATIENCE, || path.exists() == there);
            assert!(is_so, "{name}, {there}");
        }

        fn forbids(&self) -> bool {
            let asked = Command::new(self.path("policy")).status();
            asked.expect("a policy").code() == Some(101)
        }
    }

    fn started(mut command: Command) -> Child {
        command.stdout(Stdio::null()).spawn().expect("a shell")
    }

    #[test]
    fn nothing_is_started_while_packages_are_installed_and_no_policy_is_left_after_any_end() {
        for end in ["exit 0", "exit 7"] {
            let host = Host::new();
            let mut child = started(host.install(end));
            host.waits_for("begun", true);
            assert!(host.forbids());
            fs::write(host.path("go"), "").expect("it is writable");
            let status = command::wait(&mut child, PATIENCE, "it").expect("it ends");
            assert_eq!(status.success(), end == "exit 0");
            assert!(!host.path("policy").exists());
        }
    }

    #[test]
    fn signals_end_neither_the_installation_nor_leave_a_policy() {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let host = Host::new();
            let mut child = started(host.install("exit 0"));
            host.waits_for("begun", true);
            kill_process(Pid::from_child(&child), signal).expect("it runs");
            fs::write(host.path("go"), "").expect("it is writable");
            let status = command::wait(&mut child, PATIENCE, "it").expect("it ends");
            assert!(status.success(), "{signal:?}");
            assert!(!host.path("policy").exists(), "{signal:?}");
        }
    }

    #[test]
    fn what_installs_ignores_no_signal_that_it_would_not_ignore_by_itself() {
        let host = Host::new();
        fs::write(host.path("go"), "").expect("it is writable");
        let mut child = started(host.install("grep SigIgn: /proc/$$/status >ignored"));
        command::wait(&mut child, PATIENCE, "it").expect("it ends");
        let line = fs::read_to_string(host.path("ignored")).expect("it was written");
        let ignored = line.trim().strip_prefix("SigIgn:").expect("its name");
        let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
        // The others may be ignored by who runs the tests.
        for signal in [Signal::PIPE, Signal::TERM] {
            assert_eq!(ignored >> (signal.as_raw() - 1) & 1, 0, "{signal:?}");
        }
    }

    #[test]
    fn the_log_is_a_file_of_ours_that_root_may_open_under_any_rule_of_the_kernels() {
        let (folder, log) = log().expect("it is writable");
        assert_eq!(log.parent(), Some(folder.path()));
        assert_eq!(fs::read(&log).expect("it is there"), b"");
        let found = fs::metadata(folder.path()).expect("it is there");
        let mode = std::os::unix::fs::MetadataExt::mode(&found);
        assert_eq!(mode & 0o1022, 0, "neither sticky nor for others");
    }

    #[test]
    fn no_policy_is_left_where_the_program_that_installs_is_killed() {
        let host = Host::new();
        let install = host.install("exit 0");
        // A program that waits for the installation, as this one does.
        let mut parent = Command::new("sh");
        parent
            .args(["-c", "\"$@\" & wait", "sh"])
            .arg(install.get_program());
        let mut parent = started({
            parent.args(install.get_args());
            parent
        });
        host.waits_for("begun", true);
        parent.kill().expect("it runs");
        parent.wait().expect("it ends");
        assert!(host.forbids());
        fs::write(host.path("go"), "").expect("it is writable");
        host.waits_for("policy", false);
    }

    #[test]
    fn a_policy_whose_installation_was_killed_forbids_nothing_and_is_known_for_one_of_ours() {
        let host = Host::new();
        let mut child = started(host.install("exit 0"));
        host.waits_for("begun", true);
        assert!(!is_forgotten(&host.path("policy")));
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        assert!(!host.forbids());
        assert!(is_forgotten(&host.path("policy")));
        fs::write(host.path("go"), "").expect("it is writable");
    }

    #[test]
    fn a_policy_of_the_hosts_own_stays() {
        let host = Host::new();
        let own = "#!/bin/sh\nexit 101\n";
        fs::write(host.path("policy"), own).expect("it is writable");
        fs::write(host.path("go"), "").expect("it is writable");
        let mut child = started(host.install("exit 0"));
        command::wait(&mut child, PATIENCE, "it").expect("it ends");
        assert_eq!(
            fs::read_to_string(host.path("policy")).expect("it is there"),
            own
        );
        assert!(!is_forgotten(&host.path("policy")));
    }

    #[test]
    fn units_that_a_package_enables_are_disabled_again_and_no_others() {
        let host = Host::new();
        let bin = host.path("bin");
        fs::create_dir(&bin).expect("it is writable");
        let told = host.path("told");
        let systemctl = format!("#!/bin/sh\necho \"$@\" >>{}\n", told.display());
        fs::write(bin.join("systemctl"), systemctl).expect("it is writable");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(bin.join("systemctl"), mode).expect("it is ours");
        fs::write(host.path("go"), "").expect("it is writable");
        let mut install = host.install("exit 0");
        let path = std::env::var("PATH").unwrap_or_default();
        install.env("PATH", format!("{}:{path}", bin.display()));
        command::wait(&mut started(install), PATIENCE, "it").expect("it ends");
        let told = fs::read_to_string(told).expect("it was asked");
        assert_eq!(told, "--quiet disable new.service\n");
    }
}
