//! What domains, networks, storage pools and volumes have in common: a shared reference to one
//! of libvirt's objects that is found or made on a connection, named in errors, and called within
//! a time limit.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::connection::{Connection, Inner};
use crate::error::{Cause, Error};
use crate::handle::{Handle, Release};

/// One of libvirt's objects as the `virt` crate gives it.
pub(crate) trait Native: Release + Send + Sync + 'static {
    /// What tells it from all others of its kind on a connection, beside its name.
    type Id: std::fmt::Debug + Send + Sync + 'static;

    /// Its name; costs no call to a daemon.
    fn name(&self) -> Result<String, Cause>;

    /// What tells it from others; costs no call to a daemon.
    fn id(&self) -> Result<Self::Id, Cause>;
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
    // Before the connection, so that it is released first.
    handle: Handle<N>,
    _connection: Arc<Inner>,
    name: String,
    id: N::Id,
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
    pub(crate) fn adopt(
        native: N,
        connection: &Arc<Inner>,
        limit: Duration,
    ) -> Result<Self, Cause> {
        let handle = Handle::new(native);
        let (name, id) = (handle.name()?, handle.id()?);
        Ok(Self {
            held: Arc::new(Held {
                handle,
                _connection: Arc::clone(connection),
                name,
                id,
            }),
            connection: Connection {
                inner: Arc::clone(connection),
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

    /// The object itself, for use inside another object's call.
    pub(crate) fn native(&self) -> &N {
        &self.held.handle
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
        F: FnOnce(&N, &Arc<Inner>) -> Result<T, Cause> + Send + 'static,
    {
        let held = Arc::clone(&self.held);
        let subject = format!("{} {}", N::KIND, held.name);
        self.connection
            .call_on(operation, subject, move |inner| work(&held.handle, inner))
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
        F: FnOnce(&N) -> Result<R::Native, Cause> + Send + 'static,
    {
        let limit = self.connection.limit;
        self.call_with(operation, move |native, inner| {
            Ok(Object::adopt(work(native)?, inner, limit)?.into())
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
        let limit = self.connection.limit;
        self.call_with(operation, move |native, inner| {
            adopt_all(work(native)?, inner, limit)
        })
        .await
    }
}

impl Connection {
    /// Runs a libvirt call that makes an object.
    pub(crate) async fn make<R, F>(&self, operation: &'static str, make: F) -> Result<R, Error>
    where
        R: Reference,
        F: FnOnce(&Inner) -> Result<R::Native, Cause> + Send + 'static,
    {
        let limit = self.limit;
        self.call(operation, move |inner| {
            Ok(Object::adopt(make(inner)?, inner, limit)?.into())
        })
        .await
    }

    /// Runs a libvirt call that finds the object `subject`.
    pub(crate) async fn find<R, F>(&self, subject: String, find: F) -> Result<R, Error>
    where
        R: Reference,
        F: FnOnce(&virt::connect::Connect) -> Result<R::Native, virt::error::Error>
            + Send
            + 'static,
    {
        let limit = self.limit;
        self.call_on("look up", subject, move |inner| {
            Ok(Object::adopt(find(inner.connect())?, inner, limit)?.into())
        })
        .await
    }

    /// Runs a libvirt call that lists objects.
    pub(crate) async fn list<R, F>(&self, operation: &'static str, list: F) -> Result<Vec<R>, Error>
    where
        R: Reference,
        F: FnOnce(&virt::connect::Connect) -> Result<Vec<R::Native>, virt::error::Error>
            + Send
            + 'static,
    {
        let limit = self.limit;
        self.call(operation, move |inner| {
            adopt_all(list(inner.connect())?, inner, limit)
        })
        .await
    }
}

fn adopt_all<R: Reference>(
    found: Vec<R::Native>,
    connection: &Arc<Inner>,
    limit: Duration,
) -> Result<Vec<R>, Cause> {
    // Each is taken over before the first failure is told, so that none is dropped as it is.
    let adopted: Vec<_> = found
        .into_iter()
        .map(|native| Object::adopt(native, connection, limit))
        .collect();
    adopted
        .into_iter()
        .map(|object| Ok(object?.into()))
        .collect()
}

macro_rules! natives {
    ($($object:ty => $id:ty, $read:ident;)*) => {$(
        impl Native for $object {
            type Id = $id;

            fn name(&self) -> Result<String, Cause> {
                Ok(<$object>::name(self)?)
            }

            fn id(&self) -> Result<$id, Cause> {
                Ok(<$object>::$read(self)?)
            }
        }
    )*};
}

natives! {
    virt::domain::Domain => Uuid, uuid;
    virt::network::Network => Uuid, uuid;
    virt::storage_pool::StoragePool => Uuid, uuid;
    virt::storage_vol::StorageVol => String, key;
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
