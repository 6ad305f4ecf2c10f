//! Ending an emulator, or a container's controller, that libvirt does not know any more.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use see_core::ledger::{CollectRequest, Collected};
use see_core::{Error, ErrorKind, Result};

use super::late;
use crate::driver::{Driver, Runner};

/// The variable by which libvirt tells a container's first process, and all that it starts, whose they are.
const CONTAINER: &str = "LIBVIRT_LXC_UUID";

/// The processes of a container, whose controller may be dead.
pub(super) fn contained(uuid: &str) -> Result<Vec<(i32, OwnedFd)>> {
    let wanted = format!("{CONTAINER}={uuid}");
    find_by("environ", |environment| {
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == wanted.as_bytes())
    })
}

/// The emulators of a machine at a location of the ledger's, or the processes of a container.
pub(super) fn all_of(location: &str, uuid: &str) -> Result<Vec<(i32, OwnedFd)>> {
    if Driver::of(location).runner != Runner::Controller {
        return find(|line| is_emulator_of(line, uuid));
    }
    let mut found = find(|line| is_controller_of(line, uuid))?;
    found.extend(contained(uuid)?);
    Ok(found)
}

/// Ends the emulators or the container of the environment that are left when libvirt knows no domain of it.
pub(crate) fn collect_forgotten(request: &CollectRequest) -> Result<Collected> {
    let uuid = request.identifier.to_string();
    if Driver::of(&request.resource.location).runner == Runner::Controller {
        return collect_container(request, &uuid);
    }
    end_those(request, |line| is_emulator_of(line, &uuid))
}

/// Ends the emulators with such command lines.
pub(super) fn end_those(
    request: &CollectRequest,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Collected> {
    let found = find(wanted)?;
    if found.is_empty() {
        return Ok(Collected::AlreadyGone);
    }
    end(found, request)?;
    Ok(Collected::Removed)
}

fn collect_container(request: &CollectRequest, uuid: &str) -> Result<Collected> {
    let controllers = find(|line| is_controller_of(line, uuid))?;
    let mut found = contained(uuid)?;
    if controllers.is_empty() && found.is_empty() {
        return Ok(Collected::AlreadyGone);
    }
    if !request.dry_run {
        for (pid, controller) in &controllers {
            // A stopped one starts no container after this look. It may have ended meanwhile.
            let _ = pidfd_send_signal(controller, Signal::STOP);
            // The first process of a container takes all others with it, and outlives its controller.
            found.extend(below(*pid));
        }
    }
    found.extend(controllers);
    end(found, request)?;
    if request.dry_run {
        return Ok(Collected::Removed);
    }
    // A process of a container may have started another one meanwhile.
    loop {
        let left = contained(uuid)?;
        if left.is_empty() {
            return Ok(Collected::Removed);
        }
        end(left, request)?;
        request.check()?;
    }
}

/// The children of a process.
fn below(pid: i32) -> Vec<(i32, OwnedFd)> {
    // Each of its threads has its own.
    let children = || -> Vec<i32> {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        let lists = threads
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children = lists.collect::<Vec<_>>().join(" ");
        children
            .split_ascii_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect()
    };
    let handles: Vec<(i32, OwnedFd)> = children()
        .into_iter()
        .filter_map(|child| {
            let handle = pidfd_open(Pid::from_raw(child)?, PidfdFlags::empty()).ok()?;
            Some((child, handle))
        })
        .collect();
    // The number may have gone to another process before the handle was taken.
    let still = children();
    handles
        .into_iter()
        .filter(|(child, _)| still.contains(child))
        .collect()
}

/// Ends what still runs in a root that nobody uses: libvirt asks emulators what they can do, and
/// one that is being asked outlives a killed libvirt, and a Ctrl-C that ended its parent alone.
pub(crate) fn clear(root: &str, deadline: Instant) -> Result<()> {
    let found = find(|line| is_emulator(line) && is_in(line, root))?;
    end_by(found, deadline).map_err(|error| error.subject(root))
}

/// Whether an emulator runs that was given a file in this folder.
pub(super) fn is_used(folder: &str) -> Result<bool> {
    find(|line| is_emulator(line) && is_in(line, folder)).map(|found| !found.is_empty())
}

pub(super) fn end(found: Vec<(i32, OwnedFd)>, request: &CollectRequest) -> Result<()> {
    if request.dry_run {
        return Ok(());
    }
    end_by(found, request.deadline).map_err(|error| match error.kind() {
        ErrorKind::Timeout => late(request, "the emulator"),
        _ => error,
    })
}

fn end_by(found: Vec<(i32, OwnedFd)>, deadline: Instant) -> Result<()> {
    let begun = Instant::now();
    for (pid, handle) in found {
        let failed = |error: rustix::io::Errno| {
            Error::io("the emulator cannot be ended", error.into())
                .subject(format!("process {pid}"))
        };
        match pidfd_send_signal(&handle, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(failed(error)),
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::timeout("an emulator to end", begun.elapsed()));
            }
            let wait = rustix::event::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut ended = [PollFd::new(&handle, PollFlags::IN)];
            match poll(&mut ended, Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(())
}

/// The living processes whose command line is such a one.
pub(super) fn find(wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<(i32, OwnedFd)>> {
    find_by("cmdline", wanted)
}

/// The living processes of which the kernel tells this in a file of theirs.
fn find_by(file: &str, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<(i32, OwnedFd)>> {
    let mut told = Vec::with_capacity(1 << 13);
    let mut is_wanted = |process: &Path| {
        told.clear();
        // `fs::read` would ask for the length first, of every process of the host.
        let read = File::open(process.join(file))
            .and_then(|file| file.take(u64::MAX).read_to_end(&mut told));
        read.is_ok() && wanted(&told)
    };
    let mut found = Vec::new();
    let processes = fs::read_dir("/proc")
        .map_err(|error| Error::io("the host's processes cannot be listed", error))?;
    for process in processes {
        // A process that ends meanwhile is none that is looked for.
        let Ok(process) = process else { continue };
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if !is_wanted(&process.path()) {
            continue;
        }
        let Some(number) = Pid::from_raw(pid) else {
            continue;
        };
        let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else {
            continue;
        };
        // The number may have gone to another process before the handle was taken.
        if is_wanted(&process.path()) {
            found.push((pid, handle));
        }
    }
    Ok(found)
}

/// The name of the program of a command line.
fn program(line: &[u8]) -> &[u8] {
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next();
    name.unwrap_or_default()
}

/// Whether the program is an emulator of QEMU's.
fn is_emulator(line: &[u8]) -> bool {
    let name = program(line);
    name.starts_with(b"qemu-system-") || name == b"qemu-kvm"
}

/// Whether an argument names a file in this root.
fn is_in(line: &[u8], root: &str) -> bool {
    let inside = format!("{root}/");
    line.windows(inside.len())
        .any(|part| part == inside.as_bytes())
}

/// By its arguments: `-uuid UUID`, and a file in the root.
pub(super) fn has_arguments(line: &[u8], uuid: &str, root: &str) -> bool {
    is_emulator_of(line, uuid) && is_in(line, root)
}

/// Whether a command line is that of an emulator of the machine with this UUID.
pub(crate) fn is_emulator_of(line: &[u8], uuid: &str) -> bool {
    is_emulator(line) && has_pair(line, b"-uuid", uuid)
}

/// Whether a command line is that of the controller of libvirt's that runs the container of this name.
fn is_controller_of(line: &[u8], name: &str) -> bool {
    program(line) == b"libvirt_lxc" && has_pair(line, b"--name", name)
}

/// Whether this option has this value.
fn has_pair(line: &[u8], option: &[u8], value: &str) -> bool {
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments
        .windows(2)
        .any(|pair| pair == [option, value.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_is_known_by_uuid_and_root_together() {
        let line = b"/usr/bin/qemu-system-x86_64\0-object\0{\"file\":\"/tmp/see-1/lib/key\"}\0-uuid\0abc\0-S\0";
        assert!(has_arguments(line, "abc", "/tmp/see-1"));
        assert!(!has_arguments(line, "abc", "/tmp/see"));
        assert!(!has_arguments(line, "ab", "/tmp/see-1"));
        assert!(!has_arguments(
            b"tail\0abc\0/tmp/see-1/x\0",
            "abc",
            "/tmp/see-1"
        ));
    }

    #[test]
    fn a_containers_controller_is_known_by_program_and_whole_name() {
        let line = b"/usr/lib/libvirt/libvirt_lxc\0--name\0abc\0--console\x0021\0--security=none\0";
        assert!(is_controller_of(line, "abc"));
        assert!(!is_controller_of(line, "ab"));
        assert!(!is_controller_of(line, "21"));
        assert!(!is_controller_of(b"sh\0--name\0abc\0", "abc"));
    }

    #[test]
    fn a_container_whose_controller_died_is_ended_and_not_told_as_gone() {
        let identifier = see_core::Identifier::random();
        let resource = see_core::ledger::Resource::new("libvirt.domain", "x", "lxc:///system");
        let request = CollectRequest::new(identifier, resource);
        assert_eq!(collect_forgotten(&request).unwrap(), Collected::AlreadyGone);
        let mut first = std::process::Command::new("sleep")
            .arg("600")
            .env(CONTAINER, identifier.to_string())
            .spawn()
            .unwrap();
        let mut looking = request.clone();
        looking.dry_run = true;
        assert_eq!(collect_forgotten(&looking).unwrap(), Collected::Removed);
        assert!(first.try_wait().unwrap().is_none(), "only looked at");
        // A zombie has no environment any more.
        assert_eq!(collect_forgotten(&request).unwrap(), Collected::Removed);
        assert!(first.wait().unwrap().code().is_none());
        assert_eq!(collect_forgotten(&request).unwrap(), Collected::AlreadyGone);
    }

    #[test]
    fn an_emulator_whose_daemon_takes_its_machine_for_off_is_found_and_ended() {
        use std::io::Read as _;
        use std::os::unix::process::CommandExt as _;
        use std::process::Stdio;
        let location = "qemu:///system";
        let identifier = see_core::Identifier::random();
        let name = identifier.to_string();
        let resource = see_core::ledger::Resource::new("libvirt.domain", &*name, location);
        let request = CollectRequest::new(identifier, resource);
        assert_eq!(collect_forgotten(&request).unwrap(), Collected::AlreadyGone);
        let mut shell = std::process::Command::new("sh");
        shell
            .arg0("qemu-system-none")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut emulator = shell
            .args(["-c", "echo; read line", "-uuid", &name])
            .spawn()
            .unwrap();
        // The kernel tells a process's arguments a moment after its start only.
        let mut begun = [0];
        emulator
            .stdout
            .take()
            .unwrap()
            .read_exact(&mut begun)
            .unwrap();
        let found = all_of(location, &name).unwrap();
        assert_eq!(found[0].0, i32::try_from(emulator.id()).unwrap());
        assert_eq!(collect_forgotten(&request).unwrap(), Collected::Removed);
        assert!(emulator.wait().unwrap().code().is_none());
        assert!(all_of(location, &name).unwrap().is_empty());
    }

    #[test]
    fn the_children_of_a_process_are_found() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let number = i32::try_from(child.id()).unwrap();
        let is_there = || below(own).iter().any(|(pid, _)| *pid == number);
        let found = is_there();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found && !is_there());
    }
}
