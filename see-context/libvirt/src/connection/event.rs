//! The events by meaning, and how libvirt's numbers map to them.

use virt_sys as sys;

/// One thing that happened to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DomainEvent {
    /// It was defined, or its definition changed.
    Defined,
    /// Its definition was removed.
    Undefined,
    /// It started.
    Started,
    /// Its CPUs were halted.
    Suspended,
    /// Its CPUs run again.
    Resumed,
    /// It ended.
    Stopped(StopCause),
    /// The guest has shut down; [`DomainEvent::Stopped`] follows.
    Shutdown,
    /// The guest went to sleep.
    PmSuspended,
    /// The guest crashed, and told so.
    Crashed,
    /// The guest rebooted.
    Rebooted,
    /// Reading or writing a disk failed.
    IoError {
        /// The disk's alias, for example `virtio-disk0`.
        device: String,
        /// The image on the host.
        path: String,
        /// libvirt's word for the reason, for example `enospc`; may be empty.
        reason: String,
        /// What happened to the domain.
        action: IoErrorAction,
    },
    /// So many events found the queue full and are lost. Ask for the state.
    Missed(u64),
    /// The connection was lost and made anew; what happened meanwhile is not told. Ask for the
    /// state.
    Reconnected,
    /// A lifecycle event that this version does not know, by libvirt's numbers.
    Other {
        /// The event.
        event: i32,
        /// Its detail.
        detail: i32,
    },
}

/// Why a domain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopCause {
    /// The guest shut down.
    Shutdown,
    /// Somebody destroyed it.
    Destroyed,
    /// The guest or the hypervisor crashed.
    Crashed,
    /// It moved to another host.
    Migrated,
    /// It was saved to a file.
    Saved,
    /// The hypervisor failed.
    Failed,
    /// A snapshot was reverted to that is off.
    FromSnapshot,
    /// libvirt's number for another cause.
    Other(i32),
}

/// What a disk error did to the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoErrorAction {
    /// Nothing; the error is ignored.
    Ignored,
    /// Paused it.
    Pause,
    /// The guest was told.
    Reported,
    /// libvirt's number for another action.
    Other(i32),
}

impl DomainEvent {
    pub(super) fn lifecycle(event: i32, detail: i32) -> Self {
        match u32::try_from(event) {
            Ok(sys::VIR_DOMAIN_EVENT_DEFINED) => Self::Defined,
            Ok(sys::VIR_DOMAIN_EVENT_UNDEFINED) => Self::Undefined,
            Ok(sys::VIR_DOMAIN_EVENT_STARTED) => Self::Started,
            Ok(sys::VIR_DOMAIN_EVENT_SUSPENDED) => Self::Suspended,
            Ok(sys::VIR_DOMAIN_EVENT_RESUMED) => Self::Resumed,
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED) => Self::Stopped(StopCause::new(detail)),
            Ok(sys::VIR_DOMAIN_EVENT_SHUTDOWN) => Self::Shutdown,
            Ok(sys::VIR_DOMAIN_EVENT_PMSUSPENDED) => Self::PmSuspended,
            Ok(sys::VIR_DOMAIN_EVENT_CRASHED) => Self::Crashed,
            _ => Self::Other { event, detail },
        }
    }
}

impl StopCause {
    fn new(detail: i32) -> Self {
        match u32::try_from(detail) {
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN) => Self::Shutdown,
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED) => Self::Destroyed,
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED) => Self::Crashed,
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED) => Self::Migrated,
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED_SAVED) => Self::Saved,
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED_FAILED) => Self::Failed,
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT) => Self::FromSnapshot,
            _ => Self::Other(detail),
        }
    }
}

impl IoErrorAction {
    pub(super) fn new(action: i32) -> Self {
        match u32::try_from(action) {
            Ok(sys::VIR_DOMAIN_EVENT_IO_ERROR_NONE) => Self::Ignored,
            Ok(sys::VIR_DOMAIN_EVENT_IO_ERROR_PAUSE) => Self::Pause,
            Ok(sys::VIR_DOMAIN_EVENT_IO_ERROR_REPORT) => Self::Reported,
            _ => Self::Other(action),
        }
    }
}
