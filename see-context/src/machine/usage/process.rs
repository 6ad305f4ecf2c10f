//! A process of this host, and what the kernel says it takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use see_core::Result;

use crate::residue::emulator::is_emulator_of;

/// A process, which no other one of the same number is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
    /// When it started, in the kernel's ticks since the boot.
    born: u64,
}

/// What processes take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Processor time since their start.
    pub(super) cpu: Duration,
    /// Memory, resident or swapped out, in bytes.
    pub(super) memory: u64,
    /// The number of threads.
    pub(super) threads: u64,
}

/// A process as its `stat` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
    threads: u64,
    born: u64,
}

impl Process {
    /// The emulator of the machine with this UUID. Every user may start a program with such arguments: it has to be
    /// the one whose number libvirt wrote down or, where that may not be read, one of the hypervisor's accounts.
    pub(super) fn emulator(uuid: &str, known: &Result<Option<u32>>) -> Option<Self> {
        let known = match known {
            Ok(None) => return None,
            Ok(Some(pid)) => Some(*pid),
            Err(_) => None,
        };
        let accounts = match known {
            Some(_) => Vec::new(),
            None => hypervisor_accounts(&fs::read_to_string("/etc/passwd").unwrap_or_default()),
        };
        pids().into_iter().find_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            if !is_emulator_of(&line, uuid) {
                return None;
            }
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let is_it = match known {
                Some(known) => last_of(&status, "NSpid:") == Some(known),
                None => first_of(&status, "Uid:").is_some_and(|uid| accounts.contains(&uid)),
            };
            is_it.then(|| Self::at(pid))?
        })
    }

    /// The process of this number.
    pub(super) fn at(pid: u32) -> Option<Self> {
        let born = stat(pid)?.born;
        Some(Self { pid, born })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// What it takes; `None` once it has ended.
    pub(super) fn taken(&self) -> Option<Taken> {
        let stat = stat(self.pid).filter(|stat| stat.born == self.born)?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        Some(Taken {
            cpu: duration(stat.ticks),
            memory: memory(&status),
            threads: stat.threads,
        })
    }

    /// What it and everything below it take, but for memory, which processes share.
    pub(super) fn tree(&self) -> Option<Taken> {
        let all: BTreeMap<u32, Stat> = pids()
            .into_iter()
            .filter_map(|pid| Some((pid, stat(pid)?)))
            .collect();
        all.get(&self.pid).filter(|stat| stat.born == self.born)?;
        let mut below: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (pid, stat) in &all {
            below.entry(stat.parent).or_default().push(*pid);
        }
        let mut sum = Taken::default();
        let mut waiting = vec![self.pid];
        while let Some(pid) = waiting.pop() {
            if let Some(stat) = all.get(&pid) {
                sum.cpu += duration(stat.ticks);
                sum.threads += stat.threads;
            }
            // Taken out, so that no loop can be walked twice.
            waiting.extend(below.remove(&pid).unwrap_or_default());
        }
        Some(sum)
    }

    /// How many processes of its control group the kernel killed because the group's memory was full.
    pub(super) fn starved(&self) -> Option<u64> {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).ok()?;
        let events = fs::read_to_string(memory_events(&groups)?).ok()?;
        Self::at(self.pid).filter(|same| same == self)?;
        killed(&events)
    }
}

/// The names of the accounts on which a daemon of the system runs its emulators, beside root's.
const ACCOUNTS: [&str; 2] = ["libvirt-qemu", "qemu"];

/// Their numbers, by the host's list of accounts.
fn hypervisor_accounts(passwd: &str) -> Vec<u32> {
    let accounts = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        ACCOUNTS.contains(&name).then_some(uid)
    });
    accounts.chain([0]).collect()
}

/// The numbers behind a word in a process's status.
fn numbers<'a>(status: &'a str, word: &str) -> impl Iterator<Item = u32> + use<'a> {
    let line = status.lines().find_map(|line| line.strip_prefix(word));
    let words = line.unwrap_or_default().split_ascii_whitespace();
    words.filter_map(|number| number.parse().ok())
}

fn first_of(status: &str, word: &str) -> Option<u32> {
    numbers(status, word).next()
}

/// In the innermost namespace of processes, which is that of a daemon with one of its own.
fn last_of(status: &str, word: &str) -> Option<u32> {
    numbers(status, word).last()
}

/// The file that tells of a memory group's events, by a process's list of its groups.
fn memory_events(groups: &str) -> Option<String> {
    let mut lines = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    let first_version = lines
        .clone()
        .find(|(kinds, _)| kinds.split(',').any(|kind| kind == "memory"));
    if let Some((_, path)) = first_version {
        return Some(format!("/sys/fs/cgroup/memory{path}/memory.oom_control"));
    }
    let (_, path) = lines.find(|(kinds, _)| kinds.is_empty())?;
    Some(format!("/sys/fs/cgroup{path}/memory.events"))
}

/// The number of processes killed, in such a file of either version.
fn killed(events: &str) -> Option<u64> {
    let count = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    count.trim().parse().ok()
}

fn pids() -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect()
}

fn stat(pid: u32) -> Option<Stat> {
    read_stat(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

fn read_stat(text: &str) -> Option<Stat> {
    // The program's name stands in brackets, and may hold brackets and spaces itself.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The manual counts from 1, and the state, the first one here, is its third.
    let number = |manual: usize| fields.get(manual - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(4)?).ok()?,
        ticks: number(14)? + number(15)?,
        threads: number(20)?,
        born: number(22)?,
    })
}

/// The kernel's ticks as time.
fn duration(ticks: u64) -> Duration {
    let each_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs_f64(ticks as f64 / each_second as f64)
}

/// The memory in a process's `status`, in bytes.
fn memory(status: &str) -> u64 {
    let kibibytes: u64 = status
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            let counts = matches!(key, "VmRSS" | "VmSwap" | "HugetlbPages");
            let number = value.trim().strip_suffix("kB")?.trim();
            counts.then(|| number.parse::<u64>().ok())?
        })
        .sum();
    kibibytes * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_only_says_that_it_is_the_emulator_is_not_measured() {
        use std::os::unix::process::CommandExt as _;
        let uuid = see_core::Identifier::random().to_string();
        let mut child = std::process::Command::new("sh")
            .arg0("qemu-system-none")
            .args(["-c", "read line", "-uuid", &uuid])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let found = |known| Process::emulator(&uuid, &Ok(known)).map(|process| process.pid());
        // The arguments are a process's only once it executes the program.
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while found(Some(child.id())) != Some(child.id()) {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
        let others = [found(None), found(Some(child.id() + 1))];
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(others, [None, None]);
    }

    #[test]
    fn only_the_hypervisors_accounts_are_trusted_where_its_notes_cannot_be_read() {
        let passwd = "root:x:0:0::/:/bin/sh\nmallory:x:1000:1000::/:/bin/sh\n\
                      libvirt-qemu:x:64055:108::/:/bin/false\n";
        assert_eq!(hypervisor_accounts(passwd), [64_055, 0]);
        let status = "Name:\tq\nUid:\t64055\t0\t0\t0\nNSpid:\t4711\t12\n";
        assert_eq!(first_of(status, "Uid:"), Some(64_055));
        assert_eq!(last_of(status, "NSpid:"), Some(12));
        assert_eq!(last_of(status, "None:"), None);
    }

    #[test]
    fn a_processs_name_cannot_forge_its_numbers() {
        let text = "42 (a) R 1 2 3) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 6 7 20 0 9 0 12345 1 2";
        let stat = read_stat(text).unwrap();
        let expected = Stat {
            parent: 7,
            ticks: 200,
            threads: 9,
            born: 12345,
        };
        assert_eq!(stat, expected);
        assert_eq!(read_stat("42 (a"), None);
        assert_eq!(read_stat("42 (a) S 7"), None);
    }

    #[test]
    fn the_kernels_count_of_killed_processes_is_found_in_both_versions_of_control_groups() {
        let first = "5:cpu:/machine/a\n4:memory:/machine/lxc-1-a.libvirt-lxc\n0::/\n";
        let expected = "/sys/fs/cgroup/memory/machine/lxc-1-a.libvirt-lxc/memory.oom_control";
        assert_eq!(memory_events(first).as_deref(), Some(expected));
        let second = "0::/machine.slice/a.scope\n";
        let expected = "/sys/fs/cgroup/machine.slice/a.scope/memory.events";
        assert_eq!(memory_events(second).as_deref(), Some(expected));
        assert_eq!(memory_events("3:cpu:/a\n"), None);
        assert_eq!(
            killed("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            Some(2)
        );
        assert_eq!(killed("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n"), Some(1));
        assert_eq!(killed("oom_kill_disable 0\n"), None);
    }

    #[test]
    fn memory_counts_what_is_swapped_out_and_huge_pages() {
        let status = "Name:\tq\nVmPeak:\t 9 kB\nVmRSS:\t  100 kB\nRssAnon:\t 80 kB\n\
                      VmSwap:\t 20 kB\nHugetlbPages:\t 2048 kB\nThreads:\t3\n";
        assert_eq!(memory(status), (100 + 20 + 2048) * 1024);
    }

    #[test]
    fn a_process_and_its_children_are_measured_until_it_ends() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & sleep 60 & wait"])
            .spawn()
            .unwrap();
        let process = Process::at(shell.id()).unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while process.tree().unwrap().threads != 3 {
            assert!(std::time::Instant::now() < end, "{:?}", process.tree());
            std::thread::yield_now();
        }
        let taken = process.taken().unwrap();
        assert_eq!(taken.threads, 1);
        assert!(taken.memory > 0);
        let children: Vec<u32> = pids()
            .into_iter()
            .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == shell.id()))
            .collect();
        shell.kill().unwrap();
        shell.wait().unwrap();
        for child in children {
            let pid = rustix::process::Pid::from_raw(child.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        assert_eq!(process.taken(), None);
        assert_eq!(process.tree(), None);
    }
}
