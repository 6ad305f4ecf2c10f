//! From libvirt's events to the changes of a machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use see_core::{ChangeSender, Result, SandboxChange, SandboxState};
use see_libvirt::{Domain, DomainEvent, DomainEvents, IoErrorAction, StopCause};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::container::Container;
use super::orders::Orders;
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
    halted: Arc<Mutex<Halted>>,
    orders: Orders,
    reader: AbortHandle,
    /// The machine's power was changed by us.
    changed: Arc<Notify>,
}

/// Why the hypervisor stopped the guest by itself.
#[derive(Debug, Default)]
struct Halted(Option<String>);

impl Watch {
    /// Follows the machine in a task of its own, until [`Self::end`] or the connection's end.
    ///
    /// A container that restarted is started again until libvirt hears of it, and only then is its restart told.
    pub(super) fn start(
        source: Source,
        changes: ChangeSender,
        container: Option<Arc<Container>>,
    ) -> Self {
        let halted = Arc::<Mutex<Halted>>::default();
        let orders = Orders::default();
        let changed = Arc::new(Notify::new());
        let (told, looked) = ((Arc::clone(&halted), orders.clone()), Arc::clone(&changed));
        let reader = tokio::spawn(async move {
            match source {
                Source::Told(events) => read(events, told, &changes, container).await,
                Source::Asked(domain) => ask(&domain, &changes, &looked).await,
            }
        });
        Self {
            halted,
            orders,
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
        self.orders.clone()
    }

    /// Why the hypervisor stopped the guest by itself, unless it runs again.
    pub(super) fn halted(&self) -> Option<String> {
        lock(&self.halted).0.clone()
    }

    /// Tells nobody any more.
    pub(super) fn end(&self) {
        self.reader.abort();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Halted {
    fn hear(&mut self, event: &DomainEvent) {
        match event {
            DomainEvent::Started | DomainEvent::Resumed | DomainEvent::Stopped(_) => {
                self.0 = None;
            }
            DomainEvent::IoError {
                path,
                reason,
                action: IoErrorAction::Pause,
                ..
            } => {
                let path = path.escape_debug();
                self.0 = Some(match reason.as_str() {
                    "enospc" => format!("no space is left on the host's disk for {path}"),
                    _ => format!("reading or writing {path} failed"),
                });
            }
            _ => {}
        }
    }
}

fn lock(halted: &Mutex<Halted>) -> std::sync::MutexGuard<'_, Halted> {
    halted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells what the driver tells, until the connection is lost for good.
async fn read(
    mut events: DomainEvents,
    (halted, orders): (Arc<Mutex<Halted>>, Orders),
    changes: &ChangeSender,
    container: Option<Arc<Container>>,
) {
    let mut restarts = Restarts::default();
    while let Some(event) = events.next().await {
        if let (DomainEvent::Rebooted, Some(container)) = (&event, &container) {
            container.settle(&orders).await;
        }
        lock(&halted).hear(&event);
        let is_cut = orders.hear(&event);
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
        let orders = Orders::default();
        let read = |event| change_of(&event, orders.hear(&event));
        let failed = DomainEvent::Stopped(StopCause::Failed);
        let state = |state| Some(SandboxChange::State(state));
        // Started, cut off, started again, and only then read.
        orders.start();
        orders.cut();
        orders.start();
        read(DomainEvent::Started);
        let first = read(failed.clone());
        assert_eq!(first, state(SandboxState::Shutoff));
        read(DomainEvent::Started);
        let second = read(failed.clone());
        assert_eq!(second, state(SandboxState::Crashed), "nobody cut it off");
        // A cut of a machine that is off is none of its next run.
        orders.cut();
        orders.start();
        read(DomainEvent::Started);
        assert_eq!(read(failed), state(SandboxState::Crashed));
    }

    #[test]
    fn a_guest_whose_disk_cannot_grow_is_halted_until_it_runs_again() {
        let mut known = Halted::default();
        let failed = |action| DomainEvent::IoError {
            device: "virtio-disk0".to_owned(),
            path: "/disk.qcow2".to_owned(),
            reason: "enospc".to_owned(),
            action,
        };
        known.hear(&failed(IoErrorAction::Reported));
        assert_eq!(known.0, None);
        known.hear(&failed(IoErrorAction::Pause));
        known.hear(&DomainEvent::Rebooted);
        let reason = known.0.clone().unwrap();
        assert!(
            reason.contains("no space") && reason.contains("/disk.qcow2"),
            "{reason}"
        );
        known.hear(&DomainEvent::Resumed);
        assert_eq!(known.0, None);
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
