//! One server for many tests, and at times for one alone.

use std::ops::Deref;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A server that starts when the first test asks for it.
#[derive(Debug)]
pub struct Turn<T> {
    start: fn() -> T,
    server: OnceLock<T>,
    users: RwLock<()>,
}

/// The server, beside other tests that use it.
#[derive(Debug)]
pub struct Shared<T: 'static> {
    server: &'static T,
    _user: RwLockReadGuard<'static, ()>,
}

/// The server, while no other test uses it.
#[derive(Debug)]
pub struct Alone<T: 'static> {
    server: &'static T,
    _user: RwLockWriteGuard<'static, ()>,
}

impl<T: Sync> Turn<T> {
    pub(super) const fn new(start: fn() -> T) -> Self {
        Self {
            start,
            server: OnceLock::new(),
            users: RwLock::new(()),
        }
    }

    /// The server, for a test that leaves it running. A test takes it once: with one that waits for its turn
    /// alone in between, a second time would wait for ever.
    ///
    /// # Panics
    /// When the server cannot be started.
    pub fn shared(&'static self) -> Shared<T> {
        // Who panicked with it left it running: servers guard themselves.
        let user = self.users.read().unwrap_or_else(PoisonError::into_inner);
        Shared {
            server: self.server.get_or_init(self.start),
            _user: user,
        }
    }

    /// The server, for a test that stops it, or changes what others rely on.
    ///
    /// # Panics
    /// When the server cannot be started.
    pub fn alone(&'static self) -> Alone<T> {
        let user = self.users.write().unwrap_or_else(PoisonError::into_inner);
        Alone {
            server: self.server.get_or_init(self.start),
            _user: user,
        }
    }
}

impl<T> Shared<T> {
    /// The server for what cannot hold this guard, such as other threads; they are done with it before the guard
    /// goes.
    pub fn server(&self) -> &'static T {
        self.server
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.server
    }
}

impl<T> Deref for Alone<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.server
    }
}
