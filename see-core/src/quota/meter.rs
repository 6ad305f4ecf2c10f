//! What a sandbox takes of the host's processors, memory and processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{exceeded, full};
use crate::config::DurationValue;
use crate::settings::Limits;
use crate::{Error, ErrorKind, Sandbox, Usage};

/// The longest wait for one measurement.
const PATIENCE: Duration = Duration::from_secs(5);

/// A sandbox, with what it may take.
#[derive(Debug)]
pub(super) struct Metered {
    sandbox: Arc<dyn Sandbox>,
    cpu: Duration,
    memory: u64,
    pids: u64,
    disk: u64,
    /// The time that was used before the run.
    before: Duration,
    /// The room on another host's disks that was used before the run.
    disk_before: u64,
    /// Whether it was told already that nothing can be measured.
    told: AtomicBool,
}

impl Metered {
    pub(super) async fn begin(sandbox: &Arc<dyn Sandbox>, limits: &Limits) -> Self {
        let mut metered = Self {
            sandbox: Arc::clone(sandbox),
            cpu: limits.cpu().0,
            memory: limits.memory.0,
            pids: limits.pids,
            disk: limits.disk.0,
            before: Duration::ZERO,
            disk_before: 0,
            told: AtomicBool::new(false),
        };
        let before = metered.usage().await;
        metered.before = before.cpu.unwrap_or_default();
        metered.disk_before = before.disk.unwrap_or_default();
        metered
    }

    /// The error, where a limit is reached.
    pub(super) async fn reached(&self) -> Option<Error> {
        let usage = self.usage().await;
        if let Some(reason) = usage.halted {
            return Some(Error::new(
                ErrorKind::Exhausted,
                format!("the hypervisor stopped the guest: {reason}"),
            ));
        }
        if let Some(what) = usage.starved {
            return Some(Error::new(ErrorKind::Exhausted, what).advice(
                "give it more, or run what needs less: the kernel killed a process of it",
            ));
        }
        let cpu = usage.cpu.map(|cpu| cpu.saturating_sub(self.before));
        if cpu.is_some_and(|cpu| cpu > self.cpu) {
            return Some(exceeded("processor time", "cpu", DurationValue(self.cpu)));
        }
        if usage.memory.is_some_and(|memory| memory > self.memory) {
            return Some(full("host's memory for the sandbox", "memory", self.memory));
        }
        let disk = usage.disk.map(|disk| disk.saturating_sub(self.disk_before));
        if disk.is_some_and(|disk| disk > self.disk) {
            return Some(full("disk", "disk", self.disk));
        }
        if usage.pids.is_some_and(|pids| pids > self.pids) {
            let what = "number of processes and threads";
            return Some(exceeded(what, "pids", self.pids));
        }
        None
    }

    /// What cannot be measured ends nobody's run.
    async fn usage(&self) -> Usage {
        let Some(meter) = self.sandbox.meter() else {
            return Usage::default();
        };
        let failed = match tokio::time::timeout(PATIENCE, meter.usage()).await {
            Ok(Ok(usage)) => return usage,
            Ok(Err(error)) => error,
            Err(_) => Error::timeout("the hypervisor to say what the sandbox uses", PATIENCE),
        };
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!("what the sandbox uses is not known for now: {failed}");
        }
        Usage::default()
    }
}
