//! What a machine takes of the host, besides files.
//!
//! On this host the kernel tells it, of the processes that run the machine: it answers at once, also when a
//! daemon does not. Elsewhere libvirt tells what it knows.

mod process;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use see_core::config::Size;
use see_core::{Meter, Result, Usage};
use tokio::sync::OnceCell;

use self::process::{Process, Taken};
use super::{Machine, Native};
use crate::error::{blocking, libvirt};

/// How often a process that is not there is looked for.
const SEARCH: Duration = Duration::from_secs(1);

/// What runs a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    /// An emulator, whose command line has the machine's UUID.
    Emulator,
    /// A controller with the guest's processes below it.
    Controller,
    /// Something on another host, or unknown.
    Elsewhere,
}

impl Runner {
    fn of(uri: &str) -> Self {
        let local = uri
            .split_once("://")
            .is_some_and(|(_, rest)| rest.starts_with('/'));
        match crate::hypervisor::driver_of(uri) {
            "qemu" if local => Self::Emulator,
            "lxc" if local => Self::Controller,
            _ => Self::Elsewhere,
        }
    }
}

/// Measures one machine.
#[derive(Debug)]
pub(super) struct Gauge {
    runner: Runner,
    uuid: String,
    /// The memory that the guest was given, in bytes.
    given: OnceCell<u64>,
    seen: Arc<Mutex<Seen>>,
}

/// What was seen of it so far.
#[derive(Debug, Default)]
struct Seen {
    process: Option<Process>,
    searched: Option<Instant>,
    time: ProcessorTime,
}

/// Processor time that goes on counting when the machine is started again.
#[derive(Debug, Default)]
struct ProcessorTime {
    earlier: Duration,
    last: Duration,
}

impl ProcessorTime {
    /// The sum, where the machine as it runs now has taken this much.
    fn with(&mut self, now: Duration) -> Duration {
        if now < self.last {
            self.earlier += self.last;
        }
        self.last = now;
        self.earlier + now
    }
}

impl Gauge {
    pub(super) fn new(native: &Native) -> Self {
        Self {
            runner: Runner::of(native.connection.uri()),
            uuid: native.domain.uuid().to_string(),
            given: OnceCell::new(),
            seen: Arc::default(),
        }
    }

    async fn usage(&self, native: &Native) -> Result<Usage> {
        let given = || async {
            let info = native.domain.info().await.map_err(libvirt)?;
            Ok::<_, see_core::Error>(info.max_memory)
        };
        let given = *self.given.get_or_try_init(given).await?;
        match self.runner {
            Runner::Emulator => {
                let (seen, uuid) = (Arc::clone(&self.seen), self.uuid.clone());
                blocking("measure the emulator", move || {
                    Ok(lock(&seen).emulator(&uuid, given))
                })
                .await
            }
            Runner::Controller => self.container(native, given).await,
            Runner::Elsewhere => self.elsewhere(native, given).await,
        }
    }

    /// Its control groups know the memory and time of a container, the list of processes their number.
    async fn container(&self, native: &Native, given: u64) -> Result<Usage> {
        let info = native.domain.info().await.map_err(libvirt)?;
        let known = lock(&self.seen).process.as_ref().map(Process::pid);
        let controller = match known {
            Some(pid) => Some(pid),
            // An object of libvirt's keeps the number from when it was looked up.
            None => {
                let found = native.connection.domain(native.domain.uuid()).await;
                found.map_err(libvirt)?.id()
            }
        };
        let seen = Arc::clone(&self.seen);
        blocking("measure the container", move || {
            let mut seen = lock(&seen);
            seen.follow(controller.and_then(Process::at));
            let tree = seen.process.as_ref().and_then(Process::tree);
            let tree = tree.unwrap_or_default();
            let starved = seen.process.as_ref().and_then(Process::starved);
            let starved = starved.is_some_and(|killed| killed > 0).then(|| {
                let all = Size(given);
                format!(
                    "the container used up its {all} of memory (`<memory>` in the domain's XML)"
                )
            });
            Ok(Usage {
                starved,
                cpu: Some(seen.time.with(info.cpu_time.max(tree.cpu))),
                memory: Some(info.memory.saturating_sub(given)),
                pids: Some(tree.threads),
                ..Usage::default()
            })
        })
        .await
    }

    async fn elsewhere(&self, native: &Native, given: u64) -> Result<Usage> {
        let info = native.domain.info().await.map_err(libvirt)?;
        // Not every driver knows it, and none does of a machine that is off.
        let resident = native.domain.resident_memory().await.ok().flatten();
        Ok(Usage {
            cpu: Some(lock(&self.seen).time.with(info.cpu_time)),
            memory: resident.map(|resident| resident.saturating_sub(given)),
            pids: None,
            ..Usage::default()
        })
    }
}

impl Seen {
    fn emulator(&mut self, uuid: &str, given: u64) -> Usage {
        let mut taken = self.process.as_ref().and_then(Process::taken);
        if taken.is_none() && self.searched.is_none_or(|at| at.elapsed() >= SEARCH) {
            self.searched = Some(Instant::now());
            self.follow(Process::emulator(uuid));
            taken = self.process.as_ref().and_then(Process::taken);
        }
        let Taken {
            cpu,
            memory,
            threads,
        } = taken.unwrap_or_default();
        Usage {
            cpu: Some(self.time.with(cpu)),
            memory: Some(memory.saturating_sub(given)),
            pids: Some(threads),
            ..Usage::default()
        }
    }

    /// The machine is run by this process now.
    fn follow(&mut self, process: Option<Process>) {
        if self.process != process {
            // Another run of the machine counts from nothing.
            self.time.with(Duration::ZERO);
            self.process = process;
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Meter for Machine {
    async fn usage(&self) -> Result<Usage> {
        let halted = self.watch.halted();
        let usage = self.gauge.usage(&self.native).await?;
        let mut disk = None;
        for volume in &self.abilities.volumes {
            let taken = volume.info().await.map_err(libvirt)?.allocation;
            disk = Some(disk.unwrap_or(0) + taken);
        }
        Ok(Usage {
            halted,
            disk,
            ..usage
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_goes_on_counting_when_the_machine_is_started_again() {
        let mut time = ProcessorTime::default();
        let seconds = [3, 5, 0, 2, 2, 1].map(|now| time.with(Duration::from_secs(now)).as_secs());
        assert_eq!(seconds, [3, 5, 5, 7, 7, 8]);
    }

    #[test]
    fn only_processes_of_this_host_are_looked_for() {
        assert_eq!(Runner::of("qemu:///system"), Runner::Emulator);
        assert_eq!(
            Runner::of("qemu:///embed?root=/tmp/see-1"),
            Runner::Emulator
        );
        assert_eq!(Runner::of("lxc:///"), Runner::Controller);
        assert_eq!(Runner::of("qemu+tcp://host/system"), Runner::Elsewhere);
        assert_eq!(Runner::of("vbox:///session"), Runner::Elsewhere);
    }
}
