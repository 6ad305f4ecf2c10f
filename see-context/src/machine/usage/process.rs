//! A process of this host, and what the kernel says it takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::collect::emulator::is_emulator_of;

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
    /// The emulator of the machine with this UUID.
    pub(super) fn emulator(uuid: &str) -> Option<Self> {
        pids().into_iter().find_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            is_emulator_of(&line, uuid).then(|| Self::at(pid))?
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
