//! The error of this crate: what was tried, on what, and why it failed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use virt_sys as sys;

use crate::ability::Ability;
use crate::close_reason::CloseReason;

/// Why a libvirt operation failed, with the operation and its subject.
///
/// Ask it through the predicates (`is_no_domain`, `is_timed_out`, …) rather than by its text.
#[derive(Debug, Clone)]
pub struct Error {
    operation: &'static str,
    subject: String,
    cause: Cause,
}

/// The cause inside an [`Error`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Cause {
    /// libvirt refused or failed.
    Libvirt {
        /// libvirt's error number (`virErrorNumber`).
        code: u32,
        /// The part of libvirt that reported it (`virErrorDomain`).
        domain: u32,
        /// libvirt's own words.
        message: String,
    },
    /// The caller's time was over. The operation itself was not cancelled, libvirt cannot do
    /// that: it may still take effect after this error.
    TimedOut {
        /// How long the caller waited.
        after: Duration,
        /// What the time went into.
        waiting_for: &'static str,
    },
    /// The connection was lost before the call, and could not be made anew in time.
    Lost {
        /// Why it was lost.
        reason: CloseReason,
        /// How long ago.
        after: Duration,
        /// Why the last attempt to connect again failed.
        again: Box<Cause>,
    },
    /// The driver is known not to be able to do that, and was not asked.
    Lacking {
        /// The scheme of its URIs.
        driver: &'static str,
        /// What it cannot do.
        ability: Ability,
    },
    /// A text holds a NUL byte, which libvirt's interface cannot carry.
    NulByte {
        /// The offset of the byte.
        at: usize,
    },
    /// More bytes came than the caller allows.
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// libvirt answered with something its documentation does not allow.
    Malformed(String),
    /// This process already runs the embedded driver on another root; libvirt allows one for the
    /// life of a process.
    OtherRoot {
        /// The root that this process uses.
        open: PathBuf,
    },
    /// Another living process holds the embedded root.
    RootLocked {
        /// The process, where its pid could be read.
        pid: Option<u32>,
        /// libvirt's own words.
        message: String,
    },
    /// The root of an embedded driver cannot serve.
    UnfitRoot(String),
    /// A file operation of the embedded root failed.
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        error: Arc<std::io::Error>,
    },
    /// The runtime ended before the work did, or the work panicked.
    Aborted(String),
}

impl Error {
    pub(crate) fn new(
        operation: &'static str,
        subject: impl Into<String>,
        cause: impl Into<Cause>,
    ) -> Self {
        Self {
            operation,
            subject: subject.into(),
            cause: cause.into(),
        }
    }

    /// What was tried, as the object of "cannot": `suspend`, `look up`.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// What it was tried on: a URI, `domain NAME`, a path.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Why it failed.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// libvirt's error number, where libvirt itself reported the failure.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        match self.cause {
            Cause::Libvirt { code, .. } => Some(code),
            _ => None,
        }
    }

    fn has(&self, codes: &[u32]) -> bool {
        self.code().is_some_and(|code| codes.contains(&code))
    }

    /// There is no such domain (any more).
    #[must_use]
    pub fn is_no_domain(&self) -> bool {
        self.has(&[sys::VIR_ERR_NO_DOMAIN])
    }

    /// There is no such network (any more).
    #[must_use]
    pub fn is_no_network(&self) -> bool {
        self.has(&[sys::VIR_ERR_NO_NETWORK])
    }

    /// There is no such storage pool (any more).
    #[must_use]
    pub fn is_no_storage_pool(&self) -> bool {
        self.has(&[sys::VIR_ERR_NO_STORAGE_POOL])
    }

    /// There is no such volume (any more).
    #[must_use]
    pub fn is_no_volume(&self) -> bool {
        self.has(&[sys::VIR_ERR_NO_STORAGE_VOL])
    }

    /// There is no such metadata element.
    #[must_use]
    pub fn is_no_metadata(&self) -> bool {
        self.has(&[
            sys::VIR_ERR_NO_DOMAIN_METADATA,
            sys::VIR_ERR_NO_NETWORK_METADATA,
        ])
    }

    /// The object is not in a state that allows the operation, for example not running.
    #[must_use]
    pub fn is_invalid_state(&self) -> bool {
        self.has(&[sys::VIR_ERR_OPERATION_INVALID])
    }

    /// The name or UUID, the volume, or a file that was to be new exists already.
    #[must_use]
    pub fn is_existing(&self) -> bool {
        let is_file = matches!(
            &self.cause,
            Cause::File { error, .. } if error.kind() == std::io::ErrorKind::AlreadyExists
        );
        is_file
            || self.has(&[
                sys::VIR_ERR_DOM_EXIST,
                sys::VIR_ERR_NETWORK_EXIST,
                sys::VIR_ERR_STORAGE_VOL_EXIST,
            ])
    }

    /// This driver or hypervisor cannot do it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        let said = self.has(&[
            sys::VIR_ERR_NO_SUPPORT,
            sys::VIR_ERR_OPERATION_UNSUPPORTED,
            sys::VIR_ERR_CONFIG_UNSUPPORTED,
            sys::VIR_ERR_ARGUMENT_UNSUPPORTED,
        ]);
        said || matches!(self.cause, Cause::Lacking { .. })
    }

    /// The caller lacks the right: authentication, polkit, or a read-only connection.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        if self.has(&[
            sys::VIR_ERR_AUTH_FAILED,
            sys::VIR_ERR_AUTH_CANCELLED,
            sys::VIR_ERR_AUTH_UNAVAILABLE,
            sys::VIR_ERR_OPERATION_DENIED,
            sys::VIR_ERR_ACCESS_DENIED,
        ]) {
            return true;
        }
        // The daemon's socket gives a bare system error, whose errno libvirt keeps only as text.
        matches!(
            &self.cause,
            Cause::Libvirt { code, domain, message }
                if *code == sys::VIR_ERR_SYSTEM_ERROR
                    && *domain == sys::VIR_FROM_RPC
                    && message.ends_with("Permission denied")
        )
    }

    /// The connection to the daemon broke during the call, or before and could not be made anew.
    #[must_use]
    pub fn is_connection_lost(&self) -> bool {
        matches!(self.cause, Cause::Lost { .. }) || self.was_cut_off()
    }

    /// The connection broke during the call, so that nobody knows whether it took effect.
    pub(crate) fn was_cut_off(&self) -> bool {
        self.cause.is_cut_off() && !self.is_denied()
    }

    /// The XML was refused, as text or for its content.
    #[must_use]
    pub fn is_bad_xml(&self) -> bool {
        self.has(&[
            sys::VIR_ERR_XML_ERROR,
            sys::VIR_ERR_XML_DETAIL,
            sys::VIR_ERR_XML_INVALID_SCHEMA,
            // Older codes for one missing or impossible element each.
            sys::VIR_ERR_NO_NAME,
            sys::VIR_ERR_NO_OS,
            sys::VIR_ERR_OS_TYPE,
            sys::VIR_ERR_NO_DEVICE,
            sys::VIR_ERR_NO_ROOT,
            sys::VIR_ERR_NO_SOURCE,
            sys::VIR_ERR_NO_TARGET,
        ])
    }

    /// The caller's time was over; the work may still finish.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(self.cause, Cause::TimedOut { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {} {}: {}",
            self.operation, self.subject, self.cause
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Libvirt { code, message, .. } => {
                write!(f, "{} (libvirt error {code})", message.trim_end())
            }
            Self::TimedOut { after, waiting_for } => write!(
                f,
                "no end within {after:.1?}, waiting for {waiting_for}; it may still take effect"
            ),
            Self::Lost {
                reason,
                after,
                again,
            } => write!(
                f,
                "the connection was lost {after:.1?} ago ({reason}) and cannot be made again: \
                 {again}"
            ),
            Self::Lacking { driver, ability } => {
                write!(f, "libvirt's driver `{driver}` does not know {ability}")
            }
            Self::NulByte { at } => {
                write!(
                    f,
                    "the text holds a NUL byte at offset {at}; libvirt takes none"
                )
            }
            Self::TooLarge { limit } => write!(f, "more than the allowed {limit} bytes came"),
            Self::Malformed(what) => f.write_str(what),
            Self::OtherRoot { open } => write!(
                f,
                "this process already runs the embedded driver on {}; libvirt allows one root a \
                 process, so open that one or use another process",
                open.display()
            ),
            Self::RootLocked { pid: Some(pid), .. } => write!(
                f,
                "process {pid} uses this root; give each process a root of its own"
            ),
            Self::RootLocked { pid: None, message } => write!(
                f,
                "another process uses this root ({message}); give each process a root of its own"
            ),
            Self::UnfitRoot(why) => f.write_str(why),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Aborted(why) => write!(f, "the work ended early: {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::File { error, .. } => Some(error.as_ref()),
            _ => None,
        }
    }
}

impl From<virt::error::Error> for Cause {
    fn from(error: virt::error::Error) -> Self {
        Self::Libvirt {
            code: error.code().to_raw(),
            domain: error.domain().to_raw(),
            message: error.message().to_owned(),
        }
    }
}

impl From<std::ffi::NulError> for Cause {
    fn from(error: std::ffi::NulError) -> Self {
        Self::NulByte {
            at: error.nul_position(),
        }
    }
}

impl Cause {
    /// libvirt's words for a connection that broke; some of a refused log-in sound alike.
    pub(crate) fn is_cut_off(&self) -> bool {
        matches!(
            self,
            Self::Libvirt { code, domain, .. }
                if *code == sys::VIR_ERR_INVALID_CONN
                    || (*domain == sys::VIR_FROM_RPC
                        && [
                            sys::VIR_ERR_INTERNAL_ERROR,
                            sys::VIR_ERR_SYSTEM_ERROR,
                            sys::VIR_ERR_RPC,
                        ]
                        .contains(code))
        )
    }

    /// libvirt's last error on this thread. Only meaningful right after a failed call.
    pub(crate) fn last() -> Self {
        virt::error::Error::last_error().into()
    }

    pub(crate) fn file(path: impl Into<PathBuf>, error: std::io::Error) -> Self {
        Self::File {
            path: path.into(),
            error: Arc::new(error),
        }
    }
}
