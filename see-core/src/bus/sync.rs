//! What the bus is synchronised with. The model of it (`tests/bus_model.rs`) puts its own in this place.

pub(super) use std::sync::Arc;
pub(crate) use std::sync::Mutex;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Cache};

pub(super) use crate::sync::lock;

/// A value that is replaced as a whole, so that who reads it never waits.
pub(crate) struct Published<T>(Arc<ArcSwap<T>>);

/// What one reader keeps of it, so that it only looks whether it has changed.
pub(crate) struct Reader<T>(Cache<Arc<ArcSwap<T>>, Arc<T>>);

impl<T> Published<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    pub(super) fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    pub(super) fn publish(&self, value: T) {
        self.0.store(Arc::new(value));
    }

    pub(super) fn reader(&self) -> Reader<T> {
        Reader(Cache::new(Arc::clone(&self.0)))
    }
}

impl<T> Reader<T> {
    #[inline]
    pub(super) fn get(&mut self) -> &Arc<T> {
        self.0.load()
    }
}
