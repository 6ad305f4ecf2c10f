//! What a sandbox takes of the host's processors, memory and processes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::blind::{Blindness, Verdict};
use super::{exceeded, full};
use crate::config::DurationValue;
use crate::mishap::MishapKind;
use crate::mishap::Mishaps;
use crate::settings::Limits;
use crate::sync::lock;
use crate::{Error, ErrorKind, Machine, Result, Usage};

/// The longest wait for one measurement.
const PATIENCE: Duration = Duration::from_secs(5);

/// A sandbox, with what it may take.
#[derive(Debug)]
pub(super) struct Metered {
    machine: Machine,
    mishaps: Arc<Mishaps>,
    cpu: Duration,
    memory: u64,
    pids: u64,
    disk: u64,
    before: Mutex<Before>,
    blindness: Mutex<Blindness>,
}

/// What does not count: what was used before the run, or ended a step of it already.
#[derive(Debug, Default)]
struct Before {
    cpu: Duration,
    /// The room on another host's disks.
    disk: u64,
    halted: bool,
    starved: bool,
}

impl Metered {
    pub(super) async fn begin(machine: &Machine, mishaps: &Arc<Mishaps>, limits: &Limits) -> Self {
        let metered = Self {
            machine: machine.clone(),
            mishaps: Arc::clone(mishaps),
            cpu: limits.cpu().0,
            memory: limits.memory().0,
            pids: limits.pids(),
            disk: limits.disk.0,
            before: Mutex::default(),
            blindness: Mutex::new(Blindness::new(limits.measured())),
        };
        // What cannot be measured yet is measured later.
        let before = metered.usage().await.unwrap_or_default();
        *lock(&metered.before) = Before {
            cpu: before.cpu.unwrap_or_default(),
            disk: before.disk.unwrap_or_default(),
            ..Before::default()
        };
        metered
    }

    /// The error, where a limit is reached. What is used by then does not count any more.
    pub(super) async fn reached(&self) -> Option<Error> {
        let usage = match self.usage().await {
            Ok(usage) => usage,
            Err(error) => return self.is_blind(error),
        };
        lock(&self.blindness).sees();
        let mut before = lock(&self.before);
        if let Some(reason) = usage.halted
            && !std::mem::replace(&mut before.halted, true)
        {
            return Some(Error::new(
                ErrorKind::Exhausted,
                format!("the hypervisor stopped the guest: {reason}"),
            ));
        }
        if let Some(what) = usage.starved
            && !std::mem::replace(&mut before.starved, true)
        {
            return Some(Error::new(ErrorKind::Exhausted, what).advice(
                "give it more, or run what needs less: the kernel killed a process of it",
            ));
        }
        if let Some(cpu) = usage.cpu
            && cpu.saturating_sub(before.cpu) > self.cpu
        {
            before.cpu = cpu;
            return Some(exceeded("processor time", "cpu", DurationValue(self.cpu)));
        }
        if usage.memory.is_some_and(|memory| memory > self.memory) {
            return Some(full("host's memory for the sandbox", "memory", self.memory));
        }
        if let Some(disk) = usage.disk
            && disk.saturating_sub(before.disk) > self.disk
        {
            before.disk = disk;
            return Some(full("disk", "disk", self.disk));
        }
        if usage.pids.is_some_and(|pids| pids > self.pids) {
            let what = "number of processes and threads";
            return Some(exceeded(what, "pids", self.pids));
        }
        None
    }

    /// The error that ends the run, where it could not be measured for too long.
    fn is_blind(&self, error: Error) -> Option<Error> {
        let failed = lock(&self.blindness).failed(error, tokio::time::Instant::now());
        match failed? {
            Verdict::Ends(error) => Some(error),
            Verdict::Told(error) => {
                let what = MishapKind::Failed(error.chain());
                self.mishaps.record("measurement", "environment", what);
                None
            }
        }
    }

    async fn usage(&self) -> Result<Usage> {
        let Some(meter) = self.machine.meter() else {
            return Ok(Usage::default());
        };
        let measured = tokio::time::timeout(PATIENCE, meter.usage()).await;
        let late = "the hypervisor to say what the sandbox uses";
        let measured = measured.unwrap_or_else(|_| Err(Error::timeout(late, PATIENCE)));
        measured.inspect_err(|error| tracing::debug!("the sandbox is not measured: {error}"))
    }
}
