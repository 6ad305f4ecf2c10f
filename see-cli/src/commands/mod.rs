//! One file a command.

mod gc;
mod image;
mod ls;
mod progress;
mod run;

pub(crate) use gc::gc;
pub(crate) use image::image;
pub(crate) use ls::ls;
pub(crate) use run::run;

use see_core::{Error, ErrorKind};

use crate::exit_code;

/// The exit code of an error that ended a command.
pub(crate) fn code_of(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Configuration => exit_code::CONFIGURATION,
        ErrorKind::PermissionDenied => exit_code::MISSING_RIGHTS,
        _ => exit_code::SANDBOX_FAILED,
    }
}
