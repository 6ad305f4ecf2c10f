//! What this process holds of libvirt, counted so that tests see what is not given back.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts one as long as it lives.
pub(crate) struct Counted(&'static AtomicUsize);

impl Counted {
    pub(crate) fn new(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// References to connections, domains, networks, storage pools, volumes and streams.
pub(crate) static REFERENCES: AtomicUsize = AtomicUsize::new(0);
/// Callbacks of events that libvirt knows.
pub(crate) static CALLBACKS: AtomicUsize = AtomicUsize::new(0);
/// Watches of domains.
pub(crate) static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// What of libvirt a process holds.
#[cfg(feature = "testing")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// References to connections, domains, networks, storage pools, volumes and streams.
    pub references: usize,
    /// Callbacks of domain events that libvirt knows.
    pub callbacks: usize,
    /// Watches of domains.
    pub watches: usize,
}

/// What of libvirt this process holds now, through this crate.
#[cfg(feature = "testing")]
#[must_use]
pub fn alive() -> Alive {
    let now = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    Alive {
        references: now(&REFERENCES),
        callbacks: now(&CALLBACKS),
        watches: now(&WATCHES),
    }
}
