//! Why an image does not come: the errors of transfers.

use std::time::Duration;

use see_core::config::{DurationValue, Size};
use see_core::{Error, ErrorKind};

pub(super) fn gave_up(
    error: Error,
    asked: Option<Duration>,
    patience: Duration,
    (came, total): (u64, Option<u64>),
) -> Error {
    let of = total.map_or(String::new(), |total| format!(" of {total}"));
    let kept = format!("the {came}{of} bytes that came are kept, and the next run continues them");
    let why = match asked {
        Some(asked) => format!(
            "the server asks to come back in {}, and `cache.patience` is {}; {kept}",
            DurationValue(asked),
            DurationValue(patience)
        ),
        None => format!(
            "tried again without progress for {}; {kept}",
            DurationValue(patience)
        ),
    };
    let mut failure = Error::new(error.kind(), error.message().to_owned()).advice(why);
    if let Some(subject) = error.subject_text() {
        failure = failure.subject(subject);
    }
    failure.caused_by(error)
}

pub(super) fn too_large(size: u64, limit: u64) -> Error {
    Error::new(
        ErrorKind::Exhausted,
        format!(
            "the image has {} or more, at most {} are allowed",
            Size(size),
            Size(limit)
        ),
    )
    .advice("`max_size` says how large it may be")
}

pub(super) fn no_room(size: u64, room: u64) -> Error {
    Error::new(
        ErrorKind::Exhausted,
        format!(
            "the image has {} or more, and the disk of the image store has room for {}",
            Size(size),
            Size(room)
        ),
    )
    .advice(
        "make room, `seectl image gc --partial` and `rm` help; or choose another `cache.folder`",
    )
}
