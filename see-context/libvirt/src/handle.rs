//! References to libvirt's objects that never panic on their way out.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::raw::c_int;

use virt_sys as sys;

use crate::alive::{Counted, REFERENCES};
use crate::error::Cause;

/// An object of the `virt` crate whose reference can be given back.
pub(crate) trait Release {
    /// What the log calls it.
    const KIND: &'static str;

    /// Gives the one reference back; negative on failure.
    ///
    /// # Safety
    /// At most once a reference, and the object must not be used afterwards.
    unsafe fn release(&self) -> c_int;
}

/// Owns one reference. The `virt` crate's own `Drop` panics when libvirt reports an error, which
/// it may after a connection is lost; this one notes it in the log.
pub(crate) struct Handle<T: Release> {
    object: ManuallyDrop<T>,
    counted: Counted,
}

impl<T: Release> Handle<T> {
    pub(crate) fn new(object: T) -> Self {
        Self {
            object: ManuallyDrop::new(object),
            counted: Counted::new(&REFERENCES),
        }
    }

    /// Gives the reference back and returns libvirt's answer.
    pub(crate) fn give_back(self) -> c_int {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped or used again, so its count is moved out once.
        drop(unsafe { std::ptr::read(&raw const this.counted) });
        // SAFETY: `self` is consumed and its `Drop` suppressed, so this is the only release and
        // nothing can use the object afterwards.
        unsafe { this.object.release() }
    }
}

impl<T: Release> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: Release> Drop for Handle<T> {
    fn drop(&mut self) {
        // SAFETY: a value is dropped once, and `give_back` suppresses this drop.
        if unsafe { self.object.release() } < 0 {
            tracing::debug!(kind = T::KIND, cause = %Cause::last(), "libvirt kept a reference");
        }
    }
}

macro_rules! releases {
    ($($object:ty, $kind:literal, $free:path;)*) => {$(
        impl Release for $object {
            const KIND: &'static str = $kind;

            unsafe fn release(&self) -> c_int {
                // SAFETY: the pointer is valid as long as its reference is held, and the caller
                // promises that this is where it ends.
                unsafe { $free(self.as_ptr()) }
            }
        }
    )*};
}

releases! {
    virt::connect::Connect, "connection", sys::virConnectClose;
    virt::domain::Domain, "domain", sys::virDomainFree;
    virt::network::Network, "network", sys::virNetworkFree;
    virt::storage_pool::StoragePool, "storage pool", sys::virStoragePoolFree;
    virt::storage_vol::StorageVol, "volume", sys::virStorageVolFree;
    virt::stream::Stream, "stream", sys::virStreamFree;
}
