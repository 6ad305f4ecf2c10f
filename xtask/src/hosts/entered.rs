//! A host that runs: held by a duty, which runs programs in it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::first::{LOG, OUTER_ROOT, Plan, READY, mount_namespace};
use super::groups::Groups;
use super::{FIRST_WORD, Host};
use crate::command;
use crate::failure::{Failure, While};
use crate::workspace;

/// The first start probes every emulator.
const START: Duration = Duration::from_secs(120);
/// The longest wait for its end.
const END: Duration = Duration::from_secs(30);
/// Enters the control groups that stand before `--`, then runs what stands behind.
const IN_GROUPS: &str = "while [ \"$1\" != -- ]; do echo 0 >\"$1\"/cgroup.procs || exit; shift; done; shift; \
                         exec \"$@\"";
/// What of this host's environment is a path that means something else, or nothing, on another.
const NOT_PASSED: &[&str] = &[
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
];
/// Tells the tests in which root the servers are that they fetch images from.
const SERVERS_ROOT: &str = "SEE_SERVERS_ROOT";
/// What is learnt on a host, kept between its runs apart from what is learnt on others.
const LIBVIRT_CACHE: &str = "/var/cache/libvirt";
/// The same in the target folder.
const TEST_CACHES: [&str; 2] = ["private-daemon", "test-cache"];

/// A running host. Everything in it ends when the value is dropped, or when this process ends, however it does.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) host: Host,
    /// The program that made the namespaces, parent of their first process.
    outside: Child,
    input: Option<ChildStdin>,
    /// The first process, as this host numbers it.
    first: u32,
    /// The folders of its control groups, as it sees them.
    groups: Vec<PathBuf>,
    _groups: Groups,
}

impl Entered {
    /// Makes the host where it is missing, and enters it.
    ///
    /// # Errors
    /// Where it cannot be made, without root, and where libvirtd does not start in it.
    pub(crate) fn new(host: Host) -> Result<Self, Failure> {
        host.make()?;
        if let Some(closed) = host.closed() {
            return Err(closed);
        }
        let groups = Groups::make()?;
        let kept = host.folder().join("kept");
        let target = workspace::target();
        let mut own = vec![(kept.join("libvirt"), PathBuf::from(LIBVIRT_CACHE))];
        own.extend(TEST_CACHES.map(|name| (kept.join(name), target.join(name))));
        for folder in own.iter().flat_map(|(kept, _)| [kept]) {
            fs::create_dir_all(folder).doing(format_args!("cannot make {}", folder.display()))?;
        }
        let plan = Plan {
            outside: mount_namespace()?,
            folder: host.folder(),
            groups: groups.folders(),
            // The target folder may lie in the checkout.
            shared: vec![(workspace::root(), false), (target.clone(), true)],
            own,
            target,
        };
        let inside = |name: &str| PathBuf::from("/sys/fs/cgroup").join(name);
        let seen = plan.groups.iter().map(|(name, _)| match name.as_str() {
            "" => inside("first"),
            name => inside(name),
        });
        let seen = seen.collect();
        let plan_text = serde_json::to_string(&plan).doing("cannot write the plan of the host")?;
        let mut outside = Command::new("sh");
        outside
            .args(["-c", IN_GROUPS, "sh"])
            .args(plan.groups.iter().map(|(_, group)| group))
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--", "unshare"])
            .args([
                "--mount",
                "--propagation",
                "private",
                "--net",
                "--pid",
                "--cgroup",
            ])
            .args(["--fork", "--kill-child", "--"])
            .arg(workspace::own_program())
            .args([FIRST_WORD, &plan_text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut outside = outside
            .spawn()
            .doing(format_args!("cannot enter the host {}", host.name))?;
        let output = outside.stdout.take();
        let mut entered = Self {
            host,
            input: outside.stdin.take(),
            outside,
            first: 0,
            groups: seen,
            _groups: groups,
        };
        let mut lines = output.into_iter().flat_map(|it| BufReader::new(it).lines());
        // It says why not on its standard error, which is this program's.
        match lines.next() {
            Some(Ok(line)) if line == READY => {}
            _ => {
                return Err(Failure::new(format!(
                    "the host {} did not start",
                    host.name
                )));
            }
        }
        entered.first = only_child(entered.outside.id())
            .ok_or_else(|| Failure::new(format!("the host {} has ended", host.name)))?;
        if !command::wait_until(START, || entered.answers()) {
            let log = format!("/proc/{}/root{LOG}", entered.first);
            return Err(Failure::new(format!(
                "libvirtd of the host {} does not answer within {} s:\n{}",
                host.name,
                START.as_secs(),
                fs::read_to_string(log).unwrap_or_default()
            )));
        }
        Ok(entered)
    }

    fn answers(&self) -> bool {
        let mut virsh = Command::new("virsh");
        virsh.args(["-q", "-c", "qemu:///system", "version"]);
        command::finish(&mut self.inside(&virsh), START).is_ok_and(|it| it.status.success())
    }

    /// The same command in the host, in the same folder.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let mut outer = Command::new("nsenter");
        outer
            .arg(format!("--target={}", self.first))
            .args(["--mount", "--net", "--pid", "--cgroup", "--"])
            .args(["sh", "-c", IN_GROUPS, "sh"])
            .args(&self.groups)
            .args(["--", "env"]);
        if let Some(folder) = command.get_current_dir() {
            outer.arg("-C").arg(folder);
        }
        outer.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        for name in NOT_PASSED {
            outer.env_remove(name);
        }
        outer.env(SERVERS_ROOT, OUTER_ROOT);
        outer
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // The first process ends with its input, and the kernel ends all that it holds before it is gone.
        self.input = None;
        if !command::wait_until(END, || !matches!(self.outside.try_wait(), Ok(None))) {
            // It may have ended in between; the first process dies with it.
            let _ = self.outside.kill();
            let _ = self.outside.wait();
        }
    }
}

fn only_child(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    children.ok()?.trim().parse().ok()
}
