//! From libvirt's events to the changes of a machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use see_core::{ChangeSender, Result, SandboxChange, SandboxState};
use see_libvirt::{Domain, DomainEvent, DomainEvents, IoErrorAction, StopCause};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::container::Container;
use super::{Native, state_of};
use crate::error::libvirt;

/// A guest does not restart twice within this. QEMU's firmware resets the machine once more when it finds
/// that it ran already, so that each restart is reported twice.
const ONE_RESTART: Duration = Duration::from_secs(2);

/// How often a machine is asked whose driver tells nothing: often enough that a run ends soon after its guest,
/// and far below what the asking costs.
const INTERVAL: Duration = Duration::from_millis(500);
/// The time for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Where the changes of a machine are learnt.
#[derive(Debug)]
pub(super) enum Source {
    /// The driver tells them.
    Told(DomainEvents),
    /// The driver tells nothing, and is asked.
    Asked(Domain),
}

impl Source {
    /// The best that the driver has.
    pub(super) async fn of(native: &Native) -> Result<Self> {
        let domain = &native.domain;
        match native.connection.domain_events(domain.uuid()).await {
            Ok(events) => Ok(Self::Told(events)),
            Err(error) if error.is_unsupported() => Ok(Self::Asked(domain.within(ANSWER))),
            Err(error) => Err(libvirt(error)),
        }
    }
}

/// Tells core of every change.
#[derive(Debug)]
pub(super) struct Watch {
    known: Arc<Mutex<Known>>,
    reader: AbortHandle,
    /// The machine's power was changed by us.
    changed: Arc<Notify>,
}

/// What is known of the machine.
#[derive(Debug, Default)]
struct Known {
    /// Why the hypervisor stopped the guest by itself.
    halted: Option<String>,
    runs: Runs,
}

/// Which run of the machine the driver tells of, and which of them we cut short ourselves.
///
/// libvirt's LXC driver tells some machines that it destroys as failed. What is told may be read late, so that the
/// order of our own commands alone does not tell whose end it is.
#[derive(Debug, Default)]
struct Runs {
    /// The runs that we asked for.
    asked: u64,
    /// The runs whose beginning was told.
    told: u64,
    /// The last run whose power we cut.
    cut: Option<u64>,
}

impl Runs {
    fn begin(&mut self) {
        // Somebody else may start it, too.
        self.asked = self.asked.max(self.told) + 1;
    }

    fn cut(&mut self) {
        self.cut = Some(self.asked.max(self.told));
    }

    fn hear(&mut self, event: &DomainEvent) {
        match event {
            DomainEvent::Started => self.told += 1,
            // What was lost may be a beginning.
            DomainEvent::Missed(_) | DomainEvent::Reconnected => {
                self.told = self.told.max(self.asked);
            }
            _ => {}
        }
    }

    /// Whether the run that is told of now was cut short by us.
    fn is_cut(&self) -> bool {
        self.cut.is_some_and(|cut| cut >= self.told)
    }
}

impl Watch {
    /// Follows the machine in a task of its own, until [`Self::end`] or the connection's end.
    ///
    /// A container that restarted is started again until libvirt hears of it, and only then is its restart told.
    pub(super) fn start(
        source: Source,
        changes: ChangeSender,
        container: Option<Arc<Container>>,
    ) -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let changed = Arc::new(Notify::new());
        let (told, looked) = (Arc::clone(&known), Arc::clone(&changed));
        let reader = tokio::spawn(async move {
            match source {
                Source::Told(events) => read(events, &told, &changes, container).await,
                Source::Asked(domain) => ask(&domain, &changes, &looked).await,
            }
        });
        Self {
            known,
            reader: reader.abort_handle(),
            changed,
        }
    }

    /// The machine's power was changed by us: where changes are asked for, it is asked at once, and the answer
    /// told even if it is the last one's.
    pub(super) fn look(&self) {
        self.changed.notify_one();
    }

    /// Whoever starts the machine, or cuts its power, says so before.
    pub(super) fn orders(&self) -> Orders {
        Orders(Arc::clone(&self.known))
    }

    /// Why the hypervisor stopped the guest by itself, unless it runs again.
    pub(super) fn halted(&self) -> Option<String> {
        lock(&self.known).halted.clone()
    }

    /// Tells nobody any more.
    pub(super) fn end(&self) {
        self.reader.abort();
    }
}

/// What we are about to do to the machine's power.
#[derive(Debug)]
pub(super) struct Orders(Arc<Mutex<Known>>);

impl Orders {
    /// A start.
    pub(super) fn start(&self) {
        lock(&self.0).runs.begin();
    }

    /// A start that failed began no run.
    pub(super) fn start_failed(&self) {
        let runs = &mut lock(&self.0).runs;
        runs.asked = runs.asked.saturating_sub(1).max(runs.told);
    }

    /// A cut of the power: the machine's end is no crash.
    pub(super) fn cut(&self) {
        lock(&self.0).runs.cut();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Known {
    fn halted_by(&mut self, event: &DomainEvent) {
        match event {
            DomainEvent::Started | DomainEvent::Resumed | DomainEvent::Stopped(_) => {
                self.halted = None;
            }
            DomainEvent::IoError {
                path,
                reason,
                action: IoErrorAction::Pause,
                ..
            } => {
                let path = path.escape_debug();
                self.halted = Some(match reason.as_str() {
                    "enospc" => format!("no space is left on the host's disk for {path}"),
                    _ => format!("reading or writing {path} failed"),
                });
            }
            _ => {}
        }
    }
}

fn lock(known: &Mutex<Known>) -> std::sync::MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells what the driver tells, until the connection is lost for good.
async fn read(
    mut events: DomainEvents,
    known: &Arc<Mutex<Known>>,
    changes: &ChangeSender,
    container: Option<Arc<Container>>,
) {
    let mut restarts = Restarts::default();
    while let Some(event) = events.next().await {
        if let (DomainEvent::Rebooted, Some(container)) = (&event, &container) {
            container.settle(&Orders(Arc::clone(known))).await;
        }
        let is_cut = {
            let mut known = lock(known);
            known.halted_by(&event);
            known.runs.hear(&event);
            known.runs.is_cut()
        };
        let change = change_of(&event, is_cut);
        let change = change.filter(|change| restarts.is_news(*change, Instant::now()));
        if let Some(change) = change {
            changes.send(change);
        }
    }
}

/// Asks again and again, and tells what changed, until the domain is gone.
async fn ask(domain: &Domain, changes: &ChangeSender, changed: &Notify) {
    // It was just defined. Afterwards: what was told.
    let mut known = Some(SandboxState::Shutoff);
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            // A guest that ended between two looks stands as it stood before its start.
            () = changed.notified() => known = None,
        }
        match domain.status().await {
            Ok(status) => {
                let state = state_of(status);
                if known.replace(state) != Some(state) {
                    changes.send(SandboxChange::State(state));
                }
            }
            Err(error) if error.is_no_domain() => return,
            Err(error) => {
                tracing::debug!(%error, "a machine does not answer");
                known = None;
            }
        }
    }
}

/// Tells a restart from the same one's echo.
#[derive(Debug, Default)]
struct Restarts {
    last: Option<Instant>,
}

impl Restarts {
    fn is_news(&mut self, change: SandboxChange, now: Instant) -> bool {
        if change != SandboxChange::Rebooted {
            return true;
        }
        let before = self.last.replace(now);
        before.is_none_or(|before| now.duration_since(before) >= ONE_RESTART)
    }
}

fn change_of(event: &DomainEvent, is_cut: bool) -> Option<SandboxChange> {
    let state = match event {
        DomainEvent::Stopped(StopCause::Failed) if is_cut => SandboxState::Shutoff,
        DomainEvent::Started | DomainEvent::Resumed => SandboxState::Running,
        DomainEvent::Suspended => SandboxState::Paused,
        DomainEvent::Stopped(StopCause::Crashed | StopCause::Failed) => SandboxState::Crashed,
        DomainEvent::Stopped(_) => SandboxState::Shutoff,
        DomainEvent::Shutdown => SandboxState::ShuttingDown,
        DomainEvent::PmSuspended => SandboxState::Suspended,
        DomainEvent::Crashed => SandboxState::Crashed,
        DomainEvent::Rebooted => return Some(SandboxChange::Rebooted),
        DomainEvent::Missed(_) | DomainEvent::Reconnected => return Some(SandboxChange::Missed),
        _ => return None,
    };
    Some(SandboxChange::State(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_stops_by_itself_is_off_and_one_that_crashes_has_crashed() {
        let change_of = |event| change_of(&event, false);
        let off = change_of(DomainEvent::Stopped(StopCause::Shutdown));
        assert_eq!(off, Some(SandboxChange::State(SandboxState::Shutoff)));
        for cause in [StopCause::Crashed, StopCause::Failed] {
            let crashed = change_of(DomainEvent::Stopped(cause));
            assert_eq!(crashed, Some(SandboxChange::State(SandboxState::Crashed)));
        }
        assert_eq!(change_of(DomainEvent::Undefined), None);
    }

    #[test]
    fn a_machine_that_we_cut_off_has_not_crashed_however_late_that_is_read() {
        let mut runs = Runs::default();
        let read = |runs: &mut Runs, event| {
            runs.hear(&event);
            change_of(&event, runs.is_cut())
        };
        let failed = DomainEvent::Stopped(StopCause::Failed);
        let state = |state| Some(SandboxChange::State(state));
        // Started, cut off, started again, and only then read.
        runs.begin();
        runs.cut();
        runs.begin();
        read(&mut runs, DomainEvent::Started);
        let first = read(&mut runs, failed.clone());
        assert_eq!(first, state(SandboxState::Shutoff));
        read(&mut runs, DomainEvent::Started);
        let second = read(&mut runs, failed.clone());
        assert_eq!(second, state(SandboxState::Crashed), "nobody cut it off");
        // A cut of a machine that is off is none of its next run.
        runs.cut();
        runs.begin();
        read(&mut runs, DomainEvent::Started);
        assert_eq!(read(&mut runs, failed), state(SandboxState::Crashed));
    }

    #[test]
    fn a_guest_whose_disk_cannot_grow_is_halted_until_it_runs_again() {
        let mut known = Known::default();
        let failed = |action| DomainEvent::IoError {
            device: "virtio-disk0".to_owned(),
            path: "/disk.qcow2".to_owned(),
            reason: "enospc".to_owned(),
            action,
        };
        known.halted_by(&failed(IoErrorAction::Reported));
        assert_eq!(known.halted, None);
        known.halted_by(&failed(IoErrorAction::Pause));
        known.halted_by(&DomainEvent::Rebooted);
        let reason = known.halted.clone().unwrap();
        assert!(
            reason.contains("no space") && reason.contains("/disk.qcow2"),
            "{reason}"
        );
        known.halted_by(&DomainEvent::Resumed);
        assert_eq!(known.halted, None);
    }

    #[test]
    fn a_restart_and_its_echo_are_one() {
        let mut restarts = Restarts::default();
        let start = Instant::now();
        let running = SandboxChange::State(SandboxState::Running);
        let heard: Vec<bool> = [
            (SandboxChange::Rebooted, 0),
            (SandboxChange::Rebooted, 300),
            (running, 400),
            (SandboxChange::Rebooted, 9_000),
        ]
        .into_iter()
        .map(|(change, after)| restarts.is_news(change, start + Duration::from_millis(after)))
        .collect();
        assert_eq!(heard, [true, false, true, true]);
    }
}
