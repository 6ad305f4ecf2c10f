//! The first process of a host: process 1 of its process namespace, in mount, network and control group namespaces
//! of its own. It mounts the root, starts the daemons, and reaps what ends. When its standard input ends, so does
//! it, and the kernel kills whatever else is in the namespace.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FileType, Mode, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use rustix::process::{WaitOptions, pivot_root};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::command;
use crate::failure::{Failure, While};
use crate::libvirtd;
use crate::workspace;

/// What the first process prints once the host is there and libvirtd was started.
pub(super) const READY: &str = "ready";
/// Where the outer root is seen.
pub(super) const OUTER_ROOT: &str = "/outer";
/// What the daemons print.
pub(super) const LOG: &str = "/run/see-host.log";
const DEADLINE: Duration = Duration::from_secs(60);

/// The devices that the host has, as this one has them. The rest are others'.
const DEVICES: &[&str] = &[
    "full",
    "fuse",
    "kvm",
    "loop-control",
    "loop0",
    "loop1",
    "loop2",
    "loop3",
    "loop4",
    "loop5",
    "loop6",
    "loop7",
    "net/tun",
    "null",
    "random",
    "tty",
    "urandom",
    "vhost-net",
    "zero",
];

/// What the first process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The mount namespace of who wrote this, which is to be another one than the first process's.
    pub(super) outside: PathBuf,
    /// The folder with the root, in which the rest is mounted.
    pub(super) folder: PathBuf,
    /// The control groups, by the names of their hierarchies.
    pub(super) groups: Vec<(String, PathBuf)>,
    /// Folders that are the same inside and outside, and whether they can be written there.
    pub(super) shared: Vec<(PathBuf, bool)>,
    /// Folders of the host's own, by the place where they are seen.
    pub(super) own: Vec<(PathBuf, PathBuf)>,
    /// The folder that is the same inside and outside, and can be written also where the outer root is seen.
    pub(super) target: PathBuf,
}

/// Becomes the first process of a host.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let plan: Plan = match words {
        [plan] => serde_json::from_str(plan).doing("cannot read the plan of the host")?,
        _ => return Err(Failure::usage("the first process of a host is not a duty")),
    };
    check_namespaces(&plan)?;
    enter(&plan)?;
    prepare()?;
    start_daemons()?;
    println!("{READY}");
    std::thread::spawn(|| {
        let mut nothing = Vec::new();
        // However its input ends, the host does.
        let _ = std::io::stdin().read_to_end(&mut nothing);
        std::process::exit(0);
    });
    loop {
        // Whatever ends in the namespace is reaped; without any child it is waited for one.
        if rustix::process::wait(WaitOptions::empty()).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Refuses to mount anything where others would see it: a person may call the word by hand.
fn check_namespaces(plan: &Plan) -> Result<(), Failure> {
    let is_first = rustix::process::getpid().is_init();
    if is_first && mount_namespace()? != plan.outside {
        return Ok(());
    }
    Err(Failure::usage(
        "the first process of a host is not a duty: it is process 1 of namespaces of its own, or nothing",
    ))
}

/// The mount namespace of this process, by the name that the kernel gives it.
pub(super) fn mount_namespace() -> Result<PathBuf, Failure> {
    fs::read_link("/proc/self/ns/mnt").doing("cannot look at the mount namespace")
}

/// Mounts the root with everything in it, and makes it this process's. The mounts are private already.
fn enter(plan: &Plan) -> Result<(), Failure> {
    std::env::set_current_dir(&plan.folder)
        .doing(format_args!("cannot enter {}", plan.folder.display()))?;
    // What is written into the root is gone with the namespace, so it is as new the next time.
    let layers = Path::new("layers");
    make_folder(layers)?;
    mount_new("tmpfs", layers, MountFlags::empty(), "mode=755")?;
    for layer in ["upper", "work", "root"] {
        make_folder(&layers.join(layer))?;
    }
    let root = plan.folder.join("layers/root");
    // Relative paths: any character may be in the folder's.
    mount_new(
        "overlay",
        Path::new("layers/root"),
        MountFlags::empty(),
        "lowerdir=root,upperdir=layers/upper,workdir=layers/work",
    )?;
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let system = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_new("proc", &inside(Path::new("/proc")), system, "")?;
    // The outer one shows the interfaces of another network namespace.
    mount_new("sysfs", &inside(Path::new("/sys")), system, "")?;
    mount_groups(plan, &inside(Path::new("/sys/fs/cgroup")))?;
    devices(&inside(Path::new("/dev")))?;
    // The temporary folders stay in the root, so that a file in one can have a second name in the other.
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount_new("tmpfs", &inside(Path::new("/run")), flags, "mode=755")?;
    for (folder, is_writable) in &plan.shared {
        let there = inside(folder);
        bind(folder, &there)?;
        if !is_writable {
            mount_remount(&there, MountFlags::BIND | MountFlags::RDONLY, c"")
                .doing(format_args!("cannot protect {}", folder.display()))?;
        }
    }
    for (own, place) in &plan.own {
        bind(own, &inside(place))?;
    }
    outer_root(plan, &root)?;
    std::env::set_current_dir(&root).doing("cannot enter the root of the host")?;
    pivot_root(".", ".").doing("cannot make the root of the host this process's")?;
    unmount(".", UnmountFlags::DETACH).doing("cannot leave the outer root")?;
    std::env::set_current_dir("/").doing("cannot enter the root of the host")
}

/// Shows the outer root, in which the servers are that the tests fetch images from. Programs that are run in it have
/// the host's devices, processes and temporary files, and write nowhere but into these and the target folder.
fn outer_root(plan: &Plan, root: &Path) -> Result<(), Failure> {
    let place = root.join(OUTER_ROOT.trim_start_matches('/'));
    bind(Path::new("/"), &place)?;
    mount_remount(&place, MountFlags::BIND | MountFlags::RDONLY, c"")
        .doing("cannot protect the outer root")?;
    for folder in ["dev", "proc", "tmp"] {
        bind(&root.join(folder), &place.join(folder))?;
    }
    let target = plan.target.strip_prefix("/").unwrap_or(&plan.target);
    bind(&plan.target, &place.join(target))
}

/// Shows the host its own control groups alone.
fn mount_groups(plan: &Plan, place: &Path) -> Result<(), Failure> {
    if let [(name, group)] = &plan.groups[..]
        && name.is_empty()
    {
        bind(group, place)?;
        // A group with groups of processes in it has none of its own.
        let first = place.join("first");
        make_folder(&first)?;
        return fs::write(first.join("cgroup.procs"), "0")
            .doing("cannot enter the first control group of the host");
    }
    mount_new("tmpfs", place, MountFlags::empty(), "mode=755")?;
    for (name, group) in &plan.groups {
        bind(group, &place.join(name))?;
    }
    Ok(())
}

/// Makes the host's own devices: their owners and modes are not this host's.
fn devices(place: &Path) -> Result<(), Failure> {
    mount_new("tmpfs", place, MountFlags::NOSUID, "mode=755")?;
    for name in DEVICES {
        let Ok(found) = fs::metadata(Path::new("/dev").join(name)) else {
            continue;
        };
        let device = place.join(name);
        if let Some(folder) = device.parent() {
            make_folder(folder)?;
        }
        let kind = FileType::from_raw_mode(found.mode());
        let mode = Mode::from_raw_mode(found.mode() & 0o777);
        mknodat(rustix::fs::CWD, &device, kind, mode, found.rdev())
            .doing(format_args!("cannot make the device {name}"))?;
        // The group that this host opens it to is not there.
        let mode = match *name {
            "kvm" => 0o666,
            _ => found.mode() & 0o777,
        };
        fs::set_permissions(&device, fs::Permissions::from_mode(mode))
            .doing(format_args!("cannot open the device {name}"))?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("ptmx", "pts/ptmx"),
        ("stderr", "/proc/self/fd/2"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
    ] {
        symlink(target, place.join(link)).doing(format_args!("cannot make /dev/{link}"))?;
    }
    for folder in ["pts", "shm"] {
        make_folder(&place.join(folder))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let terminals = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount_new("devpts", &place.join("pts"), flags, terminals)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount_new("tmpfs", &place.join("shm"), flags, "mode=1777")
}

/// What a start of the host would have prepared.
fn prepare() -> Result<(), Failure> {
    let locks = Path::new("/run/lock");
    make_folder(locks)?;
    fs::set_permissions(locks, fs::Permissions::from_mode(0o1777))
        .doing("cannot open the folder of locks")?;
    let mut up = Command::new("ip");
    command::output(up.args(["link", "set", "lo", "up"]), DEADLINE)?;
    // libvirt asks for the host's own name, and no name server is reached from here.
    let name =
        fs::read_to_string("/proc/sys/kernel/hostname").doing("cannot read the host's name")?;
    let hosts = format!("127.0.0.1 localhost {0}\n::1 localhost {0}\n", name.trim());
    fs::write("/etc/hosts", hosts).doing("cannot name the host")?;
    fs::write("/etc/libvirt/libvirtd.conf", libvirtd::OWN_CONFIGURATION)
        .doing("cannot configure libvirtd")
}

fn start_daemons() -> Result<(), Failure> {
    let log = File::create(LOG).doing("cannot make the log of the host")?;
    let spawn = |program: &str| {
        let path = workspace::program(program)
            .ok_or_else(|| Failure::new(format!("the host has no {program}")))?;
        let mut daemon = Command::new(path);
        daemon
            .stdin(Stdio::null())
            .stdout(log.try_clone().doing("cannot share the log")?)
            .stderr(log.try_clone().doing("cannot share the log")?)
            .spawn()
            .map(drop)
            .doing(format_args!("cannot start {program}"))
    };
    libvirtd::open_run_folder()?;
    spawn("virtlogd")?;
    // Some processors say which core was asked, and libvirt then probes the emulators again: all is asked on one.
    let usual = sched_getaffinity(None).doing("cannot ask for the processors")?;
    let mut one = CpuSet::new();
    if let Some(core) = (0..CpuSet::MAX_CPU).find(|core| usual.is_set(*core)) {
        one.set(core);
    }
    sched_setaffinity(None, &one).doing("cannot choose a processor")?;
    spawn("libvirtd")?;
    sched_setaffinity(None, &usual).doing("cannot choose a processor")
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).doing(format_args!("cannot make {}", folder.display()))
}

fn bind(folder: &Path, there: &Path) -> Result<(), Failure> {
    make_folder(there)?;
    mount_bind(folder, there).doing(format_args!("cannot show {} inside", folder.display()))
}

fn mount_new(kind: &str, there: &Path, flags: MountFlags, data: &str) -> Result<(), Failure> {
    let data = std::ffi::CString::new(data).doing("an option of a mount")?;
    mount(kind, there, kind, flags, &*data)
        .doing(format_args!("cannot mount {kind} on {}", there.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_process_1_of_namespaces_of_its_own_mounts_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let plan = Plan {
            outside: PathBuf::from("mnt:[1]"),
            folder: folder.path().to_owned(),
            groups: Vec::new(),
            shared: Vec::new(),
            own: Vec::new(),
            target: PathBuf::new(),
        };
        let plan = serde_json::to_string(&plan).expect("a plan");
        let failure = run(&[plan]).expect_err("it is refused");
        assert!(failure.message.contains("is not a duty"), "{failure}");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
