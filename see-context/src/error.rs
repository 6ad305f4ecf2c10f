//! libvirt's errors at the wall to the framework's.

use std::path::Path;
use std::sync::Arc;

use see_core::config::{Origin, Place};
use see_core::{Error, ErrorKind};
use see_libvirt::Cause;
use see_libvirt::xml::XmlError;

/// An error of libvirt as one of the framework's.
pub(crate) fn libvirt(error: see_libvirt::Error) -> Error {
    let kind = if error.is_timed_out() {
        ErrorKind::Timeout
    } else if error.is_denied() || says_denied(&error) {
        ErrorKind::PermissionDenied
    } else if error.is_connection_lost() {
        ErrorKind::Unavailable
    } else if error.is_no_domain() || error.is_no_network() {
        ErrorKind::NotFound
    } else if error.is_existing() {
        ErrorKind::AlreadyExists
    } else if error.is_unsupported() {
        ErrorKind::Unsupported
    } else if error.is_bad_xml() {
        ErrorKind::Configuration
    } else {
        ErrorKind::Hypervisor
    };
    Error::new(kind, error.to_string()).caused_by(error)
}

/// Whether libvirt passes on that the system refused somebody, such as an emulator that may not open its disk: it
/// has no error number for that.
fn says_denied(error: &see_libvirt::Error) -> bool {
    let Cause::Libvirt { message, .. } = error.cause() else {
        return false;
    };
    ["Permission denied", "Operation not permitted"]
        .iter()
        .any(|words| message.contains(words))
}

/// A domain that libvirt refuses to define: a mistake in the user's domain, which was asked for at that place, or
/// else a failure of what the built-in one was made for.
pub(crate) fn undefinable(error: see_libvirt::Error, asked_at: Option<&Place>) -> Error {
    let is_refused = error.code().is_some();
    let error = libvirt(error);
    let kind = match (error.kind(), asked_at) {
        (
            ErrorKind::Timeout
            | ErrorKind::PermissionDenied
            | ErrorKind::Unavailable
            | ErrorKind::AlreadyExists,
            _,
        ) => error.kind(),
        (_, Some(_)) if is_refused => ErrorKind::Configuration,
        (ErrorKind::Configuration, None) => ErrorKind::Hypervisor,
        (kind, _) => kind,
    };
    let message = error.message().to_owned();
    let error = Error::new(kind, message)
        .caused_by(error)
        .during("define the domain");
    match asked_at {
        Some(place) => error.or_at(place),
        None => error,
    }
}

/// A mistake in an XML file that the configuration names at `place`: the place in the XML itself.
pub(crate) fn xml(error: XmlError, file: &Path, place: &Place) -> Error {
    let place = match error.position() {
        Some(position) => Place {
            origin: Origin::File {
                path: Arc::from(file),
                line: position.line,
                column: position.column,
            },
            key: place.key.clone(),
        },
        None => place.clone(),
    };
    // The position is in the place already.
    let text = error.to_string();
    let message = match error.position() {
        Some(position) => text
            .strip_suffix(&format!(" ({position})"))
            .unwrap_or(&text)
            .to_owned(),
        None => text,
    };
    Error::configuration(place, message)
}

/// Runs file work on a thread where blocking is allowed; it ends even when the future is dropped.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> see_core::Result<T> + Send + 'static,
) -> see_core::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "the work panicked")
                .during(operation)
                .caused_by(error))
        })
}
