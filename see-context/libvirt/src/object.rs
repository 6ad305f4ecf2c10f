//! What domains, networks, storage pools and volumes have in common: a shared reference to one
//! of libvirt's objects that is found or made on a connection, named in errors, and called within
//! a time limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::ability::Ability;
use crate::connection::{Connection, Link, Session};
use crate::error::{Cause, Error};
use crate::handle::{Handle, Release};

/// One of libvirt's objects as the `virt` crate gives it.
pub(crate) trait Native: Release + Sized + Send + Sync + 'static {
    /// What tells it from all others of its kind on a connection, beside its name.
    type Id: std::fmt::Debug + Send + Sync + 'static;

    /// Its name; costs no call to a daemon.
    fn name(&self) -> Result<String, Cause>;

    /// What tells it from others; costs no call to a daemon.
    fn id(&self) -> Result<Self::Id, Cause>;

    /// Finds it again on another connection to the same driver; blocks.
    fn again(connect: &virt::connect::Connect, id: &Self::Id) -> Result<Self, Cause>;
}

/// The public type over an [`Object`].
pub(crate) trait Reference: From<Object<Self::Native>> + Send + 'static {
    /// What libvirt has for it.
    type Native: Native;
}

/// A reference to one of libvirt's objects; cloning shares it.
pub(crate) struct Object<N: Native> {
    held: Arc<Held<N>>,
    connection: Connection,
}

struct Held<N: Native> {
    name: String,
    id: N::Id,
    bound: Mutex<Arc<Bound<N>>>,
}

/// libvirt's object on one session of the connection.
pub(crate) struct Bound<N: Native> {
    // Before the session, so that it is released first.
    handle: Handle<N>,
    session: Arc<Session>,
}

impl<N: Native> std::ops::Deref for Bound<N> {
    type Target = N;

    fn deref(&self) -> &N {
        &self.handle
    }
}

impl<N: Native> Held<N> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Bound<N>>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object on this session, looked up again where it was on an earlier one; blocks.
    fn on(&self, session: &Arc<Session>) -> Result<Arc<Bound<N>>, Cause> {
        let known = Arc::clone(&self.lock());
        if Arc::ptr_eq(&known.session, session) {
            return Ok(known);
        }
        let bound = Arc::new(Bound {
            handle: Handle::new(N::again(session.connect(), &self.id)?),
            session: Arc::clone(session),
        });
        let before = std::mem::replace(&mut *self.lock(), Arc::clone(&bound));
        drop(before);
        Ok(bound)
    }
}

impl<N: Native> Clone for Object<N> {
    fn clone(&self) -> Self {
        Self {
            held: Arc::clone(&self.held),
            connection: self.connection.clone(),
        }
    }
}

impl<N: Native> Object<N> {
    /// Takes a fresh object over.
    fn adopt(
        native: N,
        session: &Arc<Session>,
        link: &Arc<Link>,
        limit: Duration,
    ) -> Result<Self, Cause> {
        let bound = Bound {
            handle: Handle::new(native),
            session: Arc::clone(session),
        };
        Ok(Self {
            held: Arc::new(Held {
                name: bound.name()?,
                id: bound.id()?,
                bound: Mutex::new(Arc::new(bound)),
            }),
            connection: Connection {
                link: Arc::clone(link),
                limit,
            },
        })
    }

    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self {
            held: Arc::clone(&self.held),
            connection: self.connection.within(limit),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn name(&self) -> &str {
        &self.held.name
    }

    pub(crate) fn id(&self) -> &N::Id {
        &self.held.id
    }

    /// libvirt's object as it was last used, which tells only what it keeps itself.
    pub(crate) fn last(&self) -> Arc<Bound<N>> {
        Arc::clone(&self.held.lock())
    }

    /// Refuses an operation for which the driver lacks the ability.
    pub(crate) fn require(&self, ability: Ability, operation: &'static str) -> Result<(), Error> {
        self.connection.require(ability, operation, &self.subject())
    }

    /// Runs a libvirt call on the object.
    pub(crate) async fn call<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&N) -> Result<T, Cause> + Send + 'static,
    {
        self.call_with(operation, move |native, _| work(native))
            .await
    }

    /// Runs a libvirt call on the object that needs its connection, too.
    pub(crate) async fn call_with<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&N, &Arc<Session>) -> Result<T, Cause> + Send + 'static,
    {
        let held = Arc::clone(&self.held);
        self.connection
            .call_on(operation, self.subject(), move |session| {
                work(&*held.on(session)?, session)
            })
            .await
    }

    /// Runs a libvirt call on the object that may as well be made twice, and is where the
    /// connection was lost meanwhile: one that only reads, or that removes.
    pub(crate) async fn repeat<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&N) -> Result<T, Cause> + Send + Sync + 'static,
    {
        let held = Arc::clone(&self.held);
        self.connection
            .repeat_on(operation, self.subject(), move |session| {
                work(&*held.on(session)?)
            })
            .await
    }

    /// Runs a libvirt call on the object that finds or makes another one.
    pub(crate) async fn adopt_from<R, F>(
        &self,
        operation: &'static str,
        work: F,
    ) -> Result<R, Error>
    where
        R: Reference,
        F: FnOnce(&N, &Arc<Session>) -> Result<R::Native, Cause> + Send + 'static,
    {
        let (link, limit) = self.connection.parts();
        self.call_with(operation, move |native, session| {
            Ok(Object::adopt(work(native, session)?, session, &link, limit)?.into())
        })
        .await
    }

    /// Runs a libvirt call on the object that lists others.
    pub(crate) async fn list_from<R, F>(
        &self,
        operation: &'static str,
        work: F,
    ) -> Result<Vec<R>, Error>
    where
        R: Reference,
        F: FnOnce(&N) -> Result<Vec<R::Native>, Cause> + Send + 'static,
    {
        let (link, limit) = self.connection.parts();
        self.call_with(operation, move |native, session| {
            adopt_all(work(native)?, session, &link, limit)
        })
        .await
    }

    fn subject(&self) -> String {
        format!("{} {}", N::KIND, self.held.name)
    }
}

impl Connection {
    fn parts(&self) -> (Arc<Link>, Duration) {
        (Arc::clone(&self.link), self.limit)
    }

    /// Runs a libvirt call that makes an object.
    pub(crate) async fn make<R, F>(&self, operation: &'static str, make: F) -> Result<R, Error>
    where
        R: Reference,
        F: FnOnce(&Session) -> Result<R::Native, Cause> + Send + 'static,
    {
        let (link, limit) = self.parts();
        self.call(operation, move |session| {
            Ok(Object::adopt(make(session)?, session, &link, limit)?.into())
        })
        .await
    }

    /// Runs a libvirt call that finds the object `subject`.
    pub(crate) async fn find<R, F>(&self, subject: String, find: F) -> Result<R, Error>
    where
        R: Reference,
        F: Fn(&virt::connect::Connect) -> Result<R::Native, virt::error::Error>
            + Send
            + Sync
            + 'static,
    {
        let (link, limit) = self.parts();
        self.repeat_on("look up", subject, move |session| {
            Ok(Object::adopt(find(session.connect())?, session, &link, limit)?.into())
        })
        .await
    }

    /// Runs a libvirt call that lists objects.
    pub(crate) async fn list<R, F>(&self, operation: &'static str, list: F) -> Result<Vec<R>, Error>
    where
        R: Reference,
        F: Fn(&virt::connect::Connect) -> Result<Vec<R::Native>, virt::error::Error>
            + Send
            + Sync
            + 'static,
    {
        let (link, limit) = self.parts();
        self.read(operation, move |session| {
            adopt_all(list(session.connect())?, session, &link, limit)
        })
        .await
    }
}

fn adopt_all<R: Reference>(
    found: Vec<R::Native>,
    session: &Arc<Session>,
    link: &Arc<Link>,
    limit: Duration,
) -> Result<Vec<R>, Cause> {
    // Each is taken over before the first failure is told, so that none is dropped as it is.
    let adopted: Vec<_> = found
        .into_iter()
        .map(|native| Object::adopt(native, session, link, limit))
        .collect();
    adopted
        .into_iter()
        .map(|object| Ok(object?.into()))
        .collect()
}

macro_rules! natives {
    ($($object:ty => $id:ty, $read:ident, $find:expr;)*) => {$(
        impl Native for $object {
            type Id = $id;

            fn name(&self) -> Result<String, Cause> {
                Ok(<$object>::name(self)?)
            }

            fn id(&self) -> Result<$id, Cause> {
                Ok(<$object>::$read(self)?)
            }

            fn again(connect: &virt::connect::Connect, id: &$id) -> Result<Self, Cause> {
                let find: fn(&virt::connect::Connect, &$id) -> Result<Self, virt::error::Error> =
                    $find;
                Ok(find(connect, id)?)
            }
        }
    )*};
}

natives! {
    virt::domain::Domain => Uuid, uuid, |on, id| on.lookup_domain_by_uuid(*id);
    virt::network::Network => Uuid, uuid, |on, id| on.lookup_network_by_uuid(*id);
    virt::storage_pool::StoragePool => Uuid, uuid, |on, id| on.lookup_storage_pool_by_uuid(*id);
    virt::storage_vol::StorageVol => String, key, |on, id| on.lookup_storage_vol_by_key(id);
}

/// What every public type over an [`Object`] in its field `object` has.
macro_rules! reference {
    ($reference:ident, $native:ty) => {
        impl $reference {
            /// The same object with another time limit a call.
            #[must_use]
            pub fn within(&self, limit: std::time::Duration) -> Self {
                self.object.within(limit).into()
            }

            /// The connection that it belongs to.
            #[must_use]
            pub fn connection(&self) -> &crate::connection::Connection {
                self.object.connection()
            }

            /// The name it had when it was looked up or made.
            #[must_use]
            pub fn name(&self) -> &str {
                self.object.name()
            }
        }

        impl From<crate::object::Object<$native>> for $reference {
            fn from(object: crate::object::Object<$native>) -> Self {
                Self { object }
            }
        }

        impl crate::object::Reference for $reference {
            type Native = $native;
        }

        impl std::fmt::Debug for $reference {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($reference))
                    .field("name", &self.object.name())
                    .field("id", self.object.id())
                    .finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use reference;
