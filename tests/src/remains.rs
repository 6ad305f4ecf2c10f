//! What of an environment is on this host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::virsh;

/// How long the kernel and the daemon may take to let go of what has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything on this host that carries an identifier: processes, sockets, files in the folders for temporary
/// and runtime files, shared memory, libvirt's and swtpm's logs and state, AppArmor's profiles, control groups, network
/// devices, firewall tables, and the system daemon's domains, networks and pools. Of a libvirtd in namespaces of its
/// own, such as a [`PrivateDaemon`](crate::PrivateDaemon), the sockets, files, groups and devices that it sees, too.
pub fn remains(identifier: &str) -> Vec<String> {
    let marks = Marks::of(identifier);
    let mut found = Vec::new();
    processes(&marks, &mut found);
    tables(&marks, &mut found);
    entries(&std::env::temp_dir(), 0, &marks, &mut found);
    let daemons = daemons_apart();
    let own = (PathBuf::from("/"), PathBuf::from("/proc/net/unix"));
    let theirs = daemons
        .iter()
        .map(|process| (process.join("root"), process.join("net/unix")));
    for (root, table) in std::iter::once(own).chain(theirs) {
        sockets(&table, &marks, &mut found);
        // Deeper in the temporary folders are the tests' own homes, with the results that are to stay.
        for (folder, depth) in [
            ("tmp", 0),
            ("var/tmp", 0),
            ("run/libvirt", 3),
            ("var/lib/libvirt", 3),
            ("etc/libvirt", 3),
            ("var/log/libvirt", 1),
            ("var/log/swtpm", 2),
            ("dev/shm", 0),
            ("etc/apparmor.d/libvirt", 0),
            ("sys/class/net", 0),
            ("sys/fs/cgroup", 2),
        ] {
            entries(&root.join(folder), depth, &marks, &mut found);
        }
    }
    firewall(identifier, &mut found);
    found.extend(daemon_objects(identifier));
    found
}

/// The host's rules that name it, as root sees them.
fn firewall(identifier: &str, found: &mut Vec<String>) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // A host without the program has no rules of ours.
    let Ok(output) = Command::new("nft").args(["list", "ruleset"]).output() else {
        return;
    };
    let rules = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = rules.lines().filter(|line| bears(line, identifier));
    found.extend(ours.map(|line| format!("firewall: {}", line.trim())));
}

/// Whether a line that somebody else told (a path, a device, a rule of the firewall) names an environment.
pub fn bears(line: &str, identifier: &str) -> bool {
    let digits: String = identifier.chars().filter(char::is_ascii_hexdigit).collect();
    // Names of devices and rules have room for eight digits.
    line.contains(identifier) || digits.get(..8).is_some_and(|start| line.contains(start))
}

/// Fails unless nothing of an environment is left.
///
/// A process that was killed, and what the kernel or the daemon holds for it, may need a moment to go.
pub fn assert_nothing_remains(identifier: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = remains(identifier);
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind: {found:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The system daemon's domains, containers, networks and storage pools of this name, running or not; none where
/// no daemon answers.
pub fn daemon_objects(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !Path::new("/run/libvirt/libvirt-sock").exists() {
        return found;
    }
    for (daemon, kind) in [
        ("qemu:///system", "list"),
        ("lxc:///system", "list"),
        ("qemu:///system", "net-list"),
        ("qemu:///system", "pool-list"),
    ] {
        let names = listed(daemon, kind);
        let ours = names.lines().filter(|line| line.contains(name));
        found.extend(ours.map(|line| format!("virsh -c {daemon} {kind}: {line}")));
    }
    found
}

/// What virsh lists, once the daemon answers: one that crashed is started again by those who watch over it.
fn listed(daemon: &str, kind: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        match virsh(daemon, [kind, "--all", "--name"]) {
            Ok(names) => return names,
            Err(complaint) => assert!(Instant::now() < end, "{complaint}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The texts by which something is known to belong to an environment.
struct Marks {
    identifier: String,
    /// As much of it as libvirt has in the names of its folders.
    short: String,
    /// The embedded driver's root, unless other environments of the same process live in it.
    root: Option<String>,
    /// The network's bridge.
    bridge: String,
}

impl Marks {
    fn of(identifier: &str) -> Self {
        let digits: String = identifier.chars().filter(char::is_ascii_hexdigit).collect();
        assert_eq!(digits.len(), 32, "not an identifier: {identifier}");
        let root = format!("see-{}", &digits[..16]);
        let others_live_there = [std::env::temp_dir(), "/tmp".into()]
            .iter()
            .any(|folder| has_other_users(&folder.join(&root), identifier));
        Self {
            identifier: identifier.to_owned(),
            short: identifier.chars().take(20).collect(),
            root: (!others_live_there).then_some(root),
            bridge: format!("virbr-{}", &digits[..8]),
        }
    }

    fn are_in(&self, text: &str) -> bool {
        // As systemd spells the name of a scope.
        let text = text.replace("\\x2d", "-");
        let has = |mark: &String| text.contains(mark);
        has(&self.short) || has(&self.bridge) || self.root.as_ref().is_some_and(has)
    }
}

/// Whether environments live in an embedded root, and this one does not.
fn has_other_users(root: &Path, identifier: &str) -> bool {
    let users = std::fs::read_dir(root.join("users"));
    let names: Vec<_> = users.into_iter().flatten().flatten().collect();
    !names.is_empty() && names.iter().all(|user| user.file_name() != identifier)
}

fn processes(marks: &Marks, found: &mut Vec<String>) {
    let own = std::process::id().to_string();
    for process in std::fs::read_dir("/proc")
        .expect("/proc is there")
        .flatten()
    {
        let pid = process.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // It may end while it is looked at; a zombie has no command line.
        let Ok(line) = std::fs::read(process.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // A container's own programs say by their environment alone whose they are.
        let contained = || {
            let wanted = format!("LIBVIRT_LXC_UUID={}", marks.identifier);
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| variable == wanted.as_bytes())
        };
        if marks.are_in(&line) || contained() {
            let short: String = line.chars().take(200).collect();
            found.push(format!("process {pid}: {short}"));
        }
    }
}

/// The folders in /proc of the libvirtds whose file system is not this process's. Only root sees any.
fn daemons_apart() -> Vec<PathBuf> {
    let files = |process: &Path| std::fs::read_link(process.join("ns/mnt")).ok();
    let own = files(Path::new("/proc/self"));
    let processes = std::fs::read_dir("/proc").expect("/proc is there");
    let processes = processes.flatten().map(|process| process.path());
    processes
        .filter(|process| {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let is_daemon = program == b"libvirtd" || program.ends_with(b"/libvirtd");
            is_daemon && files(process).is_some_and(|files| Some(files) != own)
        })
        .collect()
}

/// What a table of unix sockets has; none of a process that ended meanwhile.
fn sockets(table: &Path, marks: &Marks, found: &mut Vec<String>) {
    let table = std::fs::read_to_string(table).unwrap_or_default();
    found.extend(
        table
            .lines()
            .filter(|line| marks.are_in(line))
            .map(|line| format!("socket: {line}")),
    );
}

/// None are seen without root's rights, who alone can have made them.
fn tables(marks: &Marks, found: &mut Vec<String>) {
    let listed = Command::new("nft").args(["list", "tables"]).output();
    let listed = listed.map_or_else(|_| Vec::new(), |listed| listed.stdout);
    found.extend(
        String::from_utf8_lossy(&listed)
            .lines()
            .filter(|line| marks.are_in(line))
            .map(|line| format!("firewall: {line}")),
    );
}

/// What is in a folder, and this many folders deeper, but never through a link.
fn entries(folder: &Path, depth: usize, marks: &Marks, found: &mut Vec<String>) {
    // What others remove, or keep to themselves, is not looked at.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // libvirt itself leaves the number of a network's dnsmasq there, and an empty folder, until the host's
        // next start: its own files in memory, which are not for others to remove.
        if path == Path::new("/run/libvirt/network") {
            continue;
        }
        if marks.are_in(&entry.file_name().to_string_lossy()) {
            found.push(format!("file: {}", path.display()));
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            entries(&path, depth - 1, marks, found);
        }
    }
}
