//! A libvirtd of a test's own, to be killed, stopped, restarted, or reached over the network.
//!
//! It runs as root in mount, network and process namespaces of its own, so any number of them stand beside each
//! other and beside the host's daemon: each with its own domains, networks, bridges and firewall. Its folders
//! (`/run/libvirt`, `/var/lib/libvirt`, `/var/cache/libvirt`, `/var/log/libvirt`, `/etc/libvirt`) are its own, and
//! [`remains`](crate::remains) looks into them; every other file is the test's at the same path, so disks, sockets and
//! consoles are shared. Emulators that outlive a killed daemon are
//! reaped at once, and all of it is gone when the value is dropped, or when the test's process dies.
//!
//! ```no_run
//! use see_tests::{Home, PrivateDaemon};
//!
//! let mut daemon = PrivateDaemon::start();
//! let home = Home::passable();
//! let context = serde_json::json!({
//!     "hypervisor": daemon.uri(), // qemu+unix:///system?socket=…; daemon.lxc_uri() for containers
//!     "disk": { "image": home.guest("guest.qcow2") },
//! });
//! let run_file = home.run_file(context);
//! daemon.pause(); // SIGSTOP: it hangs; daemon.cont() goes on
//! daemon.cont();
//! daemon.kill(); // SIGKILL: its emulators and networks live on
//! daemon.restart(); // and are found again by the next one
//! let rules = daemon.inside("nft").args(["list", "ruleset"]).output();
//! // Guests' addresses are reachable only from the daemon's network:
//! let mut seectl = daemon.beside(home.seectl());
//! seectl.arg("run").arg(run_file);
//! ```
//!
//! A daemon that only the network reaches, and that has no file in common with the test:
//!
//! ```no_run
//! use see_tests::{DaemonOptions, PrivateDaemon, Transport};
//!
//! let options = DaemonOptions { transports: vec![Transport::Ssh], apart: true, ..Default::default() };
//! let remote = PrivateDaemon::with(&options);
//! assert!(remote.remote_uri(Transport::Ssh).starts_with("qemu+ssh://root@127.0.0.1:"));
//! ```

mod groups;
mod look;
mod relay;
mod transports;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use self::relay::Relay;
pub use self::transports::{Credentials, Transport};
use self::transports::{Way, make_credentials};
use crate::parts::target_folder;

/// Where libvirt keeps what it knows of the emulators.
const CAPABILITIES: &str = "/var/cache/libvirt/qemu/capabilities";
/// Without the host's knowledge of the emulators the daemon asks each of them first.
const START: Duration = Duration::from_secs(60);
/// The longest wait for an answer of the first process, and for its end.
const ANSWER: Duration = Duration::from_secs(20);

/// What a private daemon is to be like; the default listens on a unix socket only and shares the test's files.
#[derive(Debug, Clone, Default)]
pub struct DaemonOptions {
    /// Over which it is reached from the host's loopback, too.
    pub transports: Vec<Transport>,
    /// Whether it has no folder in common with the test: `/tmp`, `/var/tmp`, `/home`, `/root` and the target
    /// folder are empty ones of its own. Its unix socket is then not to be reached.
    pub apart: bool,
    /// The group that may use its socket beside root, as Debian has `libvirt`.
    pub group: Option<String>,
    /// Further lines of `libvirtd.conf`.
    pub libvirtd_conf: String,
    /// Further lines of `qemu.conf`.
    pub qemu_conf: String,
}

/// A running libvirtd in namespaces of its own; see the module's head.
#[derive(Debug)]
pub struct PrivateDaemon {
    /// The program that made the namespaces, parent of their first process.
    outside: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
    /// The first process, as the host numbers it.
    first: u32,
    ways: Vec<Way>,
    folder: TempDir,
    groups: String,
    apart: bool,
}

impl PrivateDaemon {
    /// Starts one that shares the test's files, and waits until it answers.
    ///
    /// # Panics
    /// Without root, without libvirtd, and when it does not answer in a minute.
    pub fn start() -> Self {
        Self::with(&DaemonOptions::default())
    }

    /// Starts one that is like this.
    ///
    /// # Panics
    /// As [`PrivateDaemon::start`].
    pub fn with(options: &DaemonOptions) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "a private daemon needs root: run `sudo -E cargo xtask test`"
        );
        let folder = tempfile::Builder::new()
            .prefix("see-daemon-")
            .tempdir_in("/tmp")
            .expect("a temporary folder");
        // Others than root look for the socket in it.
        let passable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), passable).expect("the owner may");
        std::fs::create_dir(folder.path().join("see")).expect("it is writable");
        write_configuration(folder.path(), options);
        make_credentials(folder.path(), &options.transports);
        seed_capabilities(folder.path());

        let name = folder.path().file_name().expect("it has a name");
        let groups = name.to_string_lossy().into_owned();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
            .args([
                "bash",
                "-c",
                include_str!("daemon/init.sh"),
                "private-daemon",
            ])
            .arg(folder.path())
            .arg(&groups)
            .arg(transports::listens(&options.transports));
        if options.apart {
            let target = target_folder();
            let hidden = ["/tmp", "/var/tmp", "/home", "/root"].map(Path::new);
            command.args(hidden.into_iter().chain([target.as_path()]));
        }
        let log = std::fs::File::create(folder.path().join("first.log")).expect("it is writable");
        let mut outside = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("unshare is installed");
        let commands = outside.stdin.take();
        let output = outside.stdout.take().expect("it is piped");
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut daemon = Self {
            outside,
            commands,
            answers,
            first: 0,
            ways: Vec::new(),
            folder,
            groups,
            apart: options.apart,
        };
        daemon.await_answer("its start");
        daemon.first = only_child(daemon.outside.id()).expect("its first process runs");
        daemon.await_daemon();
        for &transport in &options.transports {
            let relay = Relay::start(daemon.first, transport.inner_port());
            daemon.ways.push(Way { transport, relay });
        }
        daemon.save_capabilities();
        daemon
    }

    /// Its QEMU over the unix socket.
    pub fn uri(&self) -> String {
        self.unix_uri("qemu")
    }

    /// Its containers over the unix socket.
    pub fn lxc_uri(&self) -> String {
        self.unix_uri("lxc")
    }

    fn unix_uri(&self, driver: &str) -> String {
        assert!(!self.apart, "a daemon apart is reached over TCP only");
        format!("{driver}+unix:///system?socket={}", self.socket().display())
    }

    /// The socket on which it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("libvirt-sock")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        ["first.log", "libvirtd.log"]
            .iter()
            .filter_map(|name| std::fs::read_to_string(self.folder.path().join(name)).ok())
            .collect()
    }

    /// Kills the daemon (SIGKILL). Its emulators, containers and networks go on; connections are refused.
    pub fn kill(&mut self) {
        for way in &mut self.ways {
            // The server beside the daemon goes on.
            if way.transport != Transport::Ssh {
                way.relay.close();
            }
        }
        self.order("end");
    }

    /// Starts the daemon again after [`PrivateDaemon::kill`], on the same sockets, and waits until it answers.
    pub fn restart(&mut self) {
        self.order("start");
        self.await_daemon();
        for way in &mut self.ways {
            way.relay.open();
        }
    }

    /// Stops the daemon (SIGSTOP): it takes connections, and answers nothing.
    pub fn pause(&mut self) {
        self.order("STOP");
    }

    /// Lets a paused daemon go on (SIGCONT).
    pub fn cont(&mut self) {
        self.order("CONT");
    }

    /// Stops the first process (SIGSTOP): nobody reaps what ends, so to the daemon it does not end.
    pub fn neglect(&self) {
        self.signal_first(Signal::STOP);
    }

    /// Lets the first process reap again (SIGCONT).
    pub fn attend(&self) {
        self.signal_first(Signal::CONT);
    }

    fn signal_first(&self, signal: Signal) {
        let first = i32::try_from(self.first).ok().and_then(Pid::from_raw);
        kill_process(first.expect("a process"), signal).expect("it is ours");
    }

    /// A command in all of its namespaces: `nft`, `ip`, `ls`, as the daemon sees the world.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.first))
            .args(["--mount", "--net", "--pid", "--", program])
            .stdin(Stdio::null());
        command
    }

    /// Runs a command inside and gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn told(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.inside(program).args(arguments).output();
        let output = output.expect("nsenter is installed");
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same command in the daemon's network, where its guests' addresses are reachable, with the test's files.
    /// The process is the command itself: its pid may be signalled.
    pub fn beside(&self, command: Command) -> Command {
        let mut outer = Command::new("nsenter");
        outer
            .arg(format!("--net=/proc/{}/ns/net", self.first))
            .args([
                "--",
                "unshare",
                "--mount",
                "--propagation=slave",
                "sh",
                "-c",
            ])
            // The lock of the shared network is a daemon's, as the network is: notes in it are of another bridge.
            .arg(
                "mount -t sysfs sysfs /sys && mkdir -p -m 700 /run/see && mount --bind \"$0\" /run/see && \
                 exec \"$@\"",
            )
            .arg(self.folder.path().join("see"))
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            outer.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer.stdin(Stdio::null());
        outer
    }

    /// The processes in its namespaces, as the host numbers them, with their command lines: the daemon, its
    /// emulators and containers, dnsmasq.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let namespace =
            |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid_for_children")).ok();
        let own = namespace(&self.first.to_string());
        std::fs::read_dir("/proc")
            .expect("/proc is there")
            .flatten()
            .filter_map(|process| process.file_name().into_string().ok())
            // One that ends meanwhile is not there.
            .filter(|pid| own.is_some() && namespace(pid) == own)
            .filter_map(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                Some((pid.parse().ok()?, line))
            })
            .filter(|(pid, _)| *pid != self.outside.id())
            .collect()
    }

    /// The socket's path as the daemon sees it.
    fn inner_socket(&self) -> String {
        if self.apart {
            "/run/libvirt/libvirt-sock".to_owned()
        } else {
            self.socket().display().to_string()
        }
    }

    fn order(&mut self, word: &str) {
        let commands = self.commands.as_mut().expect("it is not dropped");
        writeln!(commands, "{word}").expect("its first process listens");
        self.await_answer(word);
    }

    fn await_answer(&self, to: &str) {
        let answer = self.answers.recv_timeout(ANSWER);
        assert!(
            answer.as_deref() == Ok("done"),
            "no answer to {to} ({answer:?}); the log: {}",
            self.log()
        );
    }

    fn await_daemon(&self) {
        let uri = format!("qemu+unix:///system?socket={}", self.inner_socket());
        let end = Instant::now() + START;
        loop {
            let mut virsh = self.inside("virsh");
            let tried = virsh.args(["-q", "-c", &uri, "version"]).output();
            if tried.expect("nsenter is installed").status.success() {
                return;
            }
            assert!(
                Instant::now() < end,
                "no answer within {START:?}; the log: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Keeps what the daemon learnt of the emulators, for the next one.
    fn save_capabilities(&self) {
        let learnt = format!("/proc/{}/root{CAPABILITIES}", self.first);
        copy_files(Path::new(&learnt), &saved_capabilities());
    }
}

impl Drop for PrivateDaemon {
    fn drop(&mut self) {
        self.ways.clear();
        // The first process ends with its input, and the kernel ends all that it holds before it is gone.
        self.commands = None;
        let end = Instant::now() + ANSWER;
        while matches!(self.outside.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                // It may have ended in between; the first process dies with it.
                let _ = self.outside.kill();
                let _ = self.outside.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        groups::remove(&self.groups);
    }
}

fn write_configuration(folder: &Path, options: &DaemonOptions) {
    let sockets = if options.apart {
        Path::new("/run/libvirt")
    } else {
        folder
    };
    let mut daemon = format!(
        "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n{}",
        sockets.display(),
        transports::configuration(&options.transports),
    );
    if let Some(group) = &options.group {
        daemon += &format!("unix_sock_group = \"{group}\"\nunix_sock_rw_perms = \"0770\"\n");
    }
    daemon += &options.libvirtd_conf;
    // No second daemon for the consoles' logs.
    let qemu = format!("stdio_handler = \"file\"\n{}", options.qemu_conf);
    std::fs::write(folder.join("libvirtd.conf"), daemon).expect("it is writable");
    std::fs::write(folder.join("qemu.conf"), qemu).expect("it is writable");
}

/// What is known of the emulators: by the host's daemon, and by earlier private ones where it never ran.
fn seed_capabilities(folder: &Path) {
    let seeds = folder.join("capabilities");
    std::fs::create_dir_all(&seeds).expect("it is writable");
    copy_files(&saved_capabilities(), &seeds);
    copy_files(Path::new(CAPABILITIES), &seeds);
}

fn saved_capabilities() -> PathBuf {
    target_folder().join("private-daemon")
}

/// Copies files, each at once, so that another test never reads half of one.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("it is writable");
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let content = std::fs::read(entry.path()).expect("root reads it");
        let target = to.join(entry.file_name());
        if std::fs::read(&target).is_ok_and(|old| old == content) {
            continue;
        }
        let mut aside = tempfile::NamedTempFile::new_in(to).expect("it is writable");
        aside.write_all(&content).expect("there is room");
        aside.persist(&target).expect("it is the same folder");
    }
}

fn only_child(parent: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    children.ok()?.trim().parse().ok()
}
