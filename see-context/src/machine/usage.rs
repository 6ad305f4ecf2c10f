//! What a machine takes of the host, besides files.
//!
//! On this host the kernel tells it, of the processes that run the machine: it answers at once, also when a
//! daemon does not. Elsewhere libvirt tells what it knows.

mod process;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use see_core::config::Size;
use see_core::{Error, ErrorKind, Meter, Result, Usage};
use see_libvirt::{DomainState, is_on_this_host};
use tokio::sync::{OnceCell, Semaphore};

use self::process::{Process, Taken};
use super::{Machine, Native};
use crate::driver::{Driver, Runner};
use crate::error::{blocking, libvirt};
use crate::residue;

/// How often a process that is not there is looked for.
const SEARCH: Duration = Duration::from_secs(1);

/// What runs the machines behind a URI, where its processes are this host's.
fn runner(uri: &str) -> Runner {
    match is_on_this_host(uri) {
        true => Driver::of(uri).runner,
        false => Runner::Unknown,
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
    /// What finds the hypervisor again.
    location: String,
    /// Held while libvirt is asked.
    asking: Arc<Semaphore>,
}

/// What was seen of it so far.
#[derive(Debug, Default)]
struct Seen {
    process: Option<Process>,
    searched: Option<Instant>,
    /// The machine ran, and no process was found that runs it.
    hidden: bool,
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
    pub(super) fn new(native: &Native, location: &str) -> Self {
        Self {
            location: location.to_owned(),
            asking: Arc::new(Semaphore::new(1)),
            runner: runner(native.connection.uri()),
            uuid: native.domain.uuid().to_string(),
            given: OnceCell::new(),
            seen: Arc::default(),
        }
    }

    /// One question at a time: an answer that nobody waits for any more keeps its place among the connection's calls.
    async fn alone<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let place = Arc::clone(&self.asking).try_acquire_owned().map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "the hypervisor has not answered yet what it was asked before",
            )
        })?;
        let asked = tokio::spawn(async move {
            let answer = question.await;
            drop(place);
            answer
        });
        asked.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "the question was cut off").caused_by(error))
        })
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
                let (location, name) = (self.location.clone(), native.domain.name().to_owned());
                let (usage, found) = blocking("measure the emulator", move || {
                    let find = || Process::emulator(&uuid, &residue::pid_of(&location, &name));
                    Ok(lock(&seen).emulator(find, given))
                })
                .await?;
                if found == Found::Nothing {
                    // A machine that is off, or stands still before its start, takes nothing.
                    let runs = match native.domain.status().await {
                        Ok(status) => status.state == DomainState::Running,
                        Err(error) if error.is_no_domain() => false,
                        Err(error) => return Err(libvirt(error)),
                    };
                    lock(&self.seen).hidden = runs;
                }
                match lock(&self.seen).hidden {
                    true => Err(hidden("the emulator")),
                    false => Ok(usage),
                }
            }
            Runner::Controller => self.container(native, given).await,
            Runner::Unknown => self.elsewhere(native, given).await,
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
            if controller.is_some() && tree.is_none() {
                return Err(hidden("the container's controller"));
            }
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

/// What a look for the emulator gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is the one that is known, or was not looked for again.
    AsBefore,
    /// No process was found that is the emulator.
    Nothing,
}

/// A machine runs, and what runs it is not known.
fn hidden(what: &str) -> Error {
    let message = format!("{what} runs, and is not found among the processes that this user sees");
    Error::new(ErrorKind::Unavailable, message).advice(
        "`user` in libvirt's qemu.conf, another folder for its state, or `hidepid` may hide it: run SEE as root, or as \
         a user who may see it",
    )
}

impl Seen {
    fn emulator(&mut self, find: impl FnOnce() -> Option<Process>, given: u64) -> (Usage, Found) {
        let mut taken = self.process.as_ref().and_then(Process::taken);
        let mut found = Found::AsBefore;
        if taken.is_none() && self.searched.is_none_or(|at| at.elapsed() >= SEARCH) {
            self.searched = Some(Instant::now());
            self.follow(find());
            taken = self.process.as_ref().and_then(Process::taken);
            if taken.is_none() {
                found = Found::Nothing;
            }
        }
        if taken.is_some() {
            self.hidden = false;
        }
        let Taken {
            cpu,
            memory,
            threads,
        } = taken.unwrap_or_default();
        let usage = Usage {
            cpu: Some(self.time.with(cpu)),
            memory: Some(memory.saturating_sub(given)),
            pids: Some(threads),
            ..Usage::default()
        };
        (usage, found)
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
        let (gauge, native) = (Arc::clone(&self.gauge), self.native.clone());
        let volumes = self.abilities.volumes.clone();
        let question = async move {
            let usage = gauge.usage(&native).await?;
            let mut disk = None;
            for volume in &volumes {
                let taken = volume.info().await.map_err(libvirt)?.allocation;
                disk = Some(disk.unwrap_or(0) + taken);
            }
            Ok((usage, disk))
        };
        let (usage, disk) = self.gauge.alone(question).await?;
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

    #[tokio::test]
    async fn one_question_is_under_way_at_a_time_also_when_nobody_waits_for_its_answer() {
        let gauge = Gauge {
            runner: Runner::Unknown,
            uuid: String::new(),
            given: OnceCell::new(),
            seen: Arc::default(),
            location: String::new(),
            asking: Arc::new(Semaphore::new(1)),
        };
        let (answer, waits) = tokio::sync::oneshot::channel::<()>();
        let first = gauge.alone(async move {
            waits.await.ok();
            Ok(())
        });
        // Whoever asked gives up.
        let given_up = tokio::time::timeout(Duration::from_millis(1), first).await;
        assert!(given_up.is_err());
        let refused = gauge.alone(async { Ok(()) }).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        answer.send(()).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while gauge.alone(async { Ok(()) }).await.is_err() {
            assert!(Instant::now() < end, "the place is never free again");
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn an_emulator_that_is_not_found_is_told_apart_from_one_that_takes_nothing() {
        let mut seen = Seen::default();
        let (_, found) = seen.emulator(|| None, 0);
        assert_eq!(found, Found::Nothing);
        // It is not looked for each time.
        let (_, found) = seen.emulator(|| panic!("too often"), 0);
        assert_eq!(found, Found::AsBefore);
        seen = Seen::default();
        seen.hidden = true;
        let (usage, found) = seen.emulator(|| Process::at(std::process::id()), 0);
        assert_eq!((found, seen.hidden), (Found::AsBefore, false));
        assert!(usage.pids.unwrap() > 0);
    }

    #[test]
    fn only_processes_of_this_host_are_looked_for() {
        assert_eq!(runner("qemu:///system"), Runner::Emulator);
        assert_eq!(runner("qemu:///embed?root=/tmp/see-1"), Runner::Emulator);
        assert_eq!(runner("lxc:///"), Runner::Controller);
        assert_eq!(runner("qemu+tcp://host/system"), Runner::Unknown);
        assert_eq!(runner("vbox:///session"), Runner::Unknown);
    }
}
