//! Which ends of a machine are ours.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use see_libvirt::DomainEvent;

/// What we are about to do to the machine's power.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders(Arc<Mutex<Runs>>);

impl Orders {
    /// A start.
    pub(super) fn start(&self) {
        self.runs().begin();
    }

    /// A start that failed began no run.
    pub(super) fn start_failed(&self) {
        let mut runs = self.runs();
        runs.asked = runs.asked.saturating_sub(1).max(runs.told);
    }

    /// A cut of the power: the machine's end is no crash.
    pub(super) fn cut(&self) {
        self.runs().cut();
    }

    /// Takes note of what the driver tells; whether the run that it tells of was cut short by us.
    pub(super) fn hear(&self, event: &DomainEvent) -> bool {
        let mut runs = self.runs();
        runs.hear(event);
        runs.is_cut()
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
