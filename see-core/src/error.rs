//! The one error of the framework: what was attempted, on what, where it was asked for, and what would work.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::place::Place;

/// The result of every fallible operation of the framework.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is: what a caller decides on.
///
/// Front ends derive their exit codes from it, and tests compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is wrong; nothing was made.
    Configuration,
    /// Something that was named does not exist.
    NotFound,
    /// A name, path, subnet or bridge that was to be made exists already.
    AlreadyExists,
    /// The rights to do it are missing.
    PermissionDenied,
    /// This backend, driver or host cannot do it.
    Unsupported,
    /// The machine's state does not allow the transition.
    IllegalTransition,
    /// A deadline passed.
    Timeout,
    /// A stop was asked for: a signal, a drop, or the environment's end.
    Stopped,
    /// A limit or a supply ran out: disk, quota, subnets, queue.
    Exhausted,
    /// A service that is needed does not answer: hypervisor, server, guest agent.
    Unavailable,
    /// The guest, or something that came from it, misbehaved.
    Guest,
    /// The walls around a guest have a hole, or do not stand as they were built.
    Isolation,
    /// A hook failed or panicked.
    Hook,
    /// The sample's run did not go as its protocol says.
    Protocol,
    /// The host's file system or operating system refused.
    Io,
    /// The hypervisor reported a failure that fits nowhere else.
    Hypervisor,
    /// An error inside the framework itself: please report it.
    Internal,
}

/// A failed operation.
///
/// The display form is one line, whatever others' words are in it: the place where there is one, what
/// happened, and the advice.
/// The cause chain is reached by [`std::error::Error::source`].
///
/// ```
/// use see_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "there is no such image")
///     .subject("guest.qcow2")
///     .advice("check the path");
/// assert_eq!(error.to_string(), "guest.qcow2: there is no such image (check the path)");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    operation: Option<Cow<'static, str>>,
    subject: Option<String>,
    place: Option<Place>,
    advice: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    further: Vec<Error>,
}

impl Error {
    /// An error of this kind; `message` says what happened, in a sentence without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            subject: None,
            place: None,
            advice: None,
            source: None,
            further: Vec::new(),
        }))
    }

    /// All of these as one, with the kind of the first; `None` where there are none. One that is several counts as
    /// these.
    pub fn all(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        for mut error in errors {
            let further = std::mem::take(&mut error.0.further);
            first.0.further.push(error);
            first.0.further.extend(further);
        }
        Some(first)
    }

    /// A mistake in the configuration, found at `place`.
    pub fn configuration(place: Place, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Configuration, message).at(place)
    }

    /// An operating system error; its kind follows the [`std::io::ErrorKind`].
    pub fn io(message: impl Into<Cow<'static, str>>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            std::io::ErrorKind::TimedOut => ErrorKind::Timeout,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ErrorKind::Exhausted
            }
            _ => ErrorKind::Io,
        };
        Self::new(kind, message).caused_by(source)
    }

    /// A deadline passed while waiting for `what`.
    pub fn timeout(what: impl fmt::Display, waited: std::time::Duration) -> Self {
        Self::new(
            ErrorKind::Timeout,
            format!("waited {waited:.1?} for {what}"),
        )
    }

    /// The stop that a long step looked at was asked for.
    pub fn stopped(operation: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Stopped, "stopped on request").during(operation)
    }

    /// An ability that this backend or driver does not have.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{what} is not supported"))
    }

    /// Names the operation that failed, such as `allocate` or `cleanup`.
    #[must_use]
    pub fn during(mut self, operation: impl Into<Cow<'static, str>>) -> Self {
        self.0.operation = Some(operation.into());
        self
    }

    /// Names the thing that it failed on: a path, a domain, a hook.
    #[must_use]
    pub fn subject(mut self, subject: impl fmt::Display) -> Self {
        self.0.subject = Some(subject.to_string());
        self
    }

    /// Says where in the configuration it was asked for.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.0.place = Some(place);
        self
    }

    /// Says where it was asked for, unless a closer place is known already.
    #[must_use]
    pub fn or_at(mut self, place: &Place) -> Self {
        self.0.place.get_or_insert_with(|| place.clone());
        self
    }

    /// Says what would have worked.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Keeps the error beneath this one.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The sort of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What happened, without place, subject and advice.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed, where it was named.
    pub fn operation(&self) -> Option<&str> {
        self.0.operation.as_deref()
    }

    /// The thing that it failed on, where it was named.
    pub fn subject_text(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// The place in the configuration, where there is one.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// What would have worked, where that is known.
    pub fn advice_text(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// What was found beside it, each as wrong by itself: see [`Self::all`].
    pub fn further(&self) -> &[Self] {
        &self.0.further
    }

    /// The whole chain in one line, the causes after colons: what logs and reports show.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let text = on_one_line(error);
            // A wrapper that already quotes its cause says nothing new.
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        for error in &self.0.further {
            line.push_str("; ");
            line.push_str(&error.chain());
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        // Others' words may be in any part.
        let f = &mut OneLine(f);
        if let Some(place) = &inner.place {
            write!(f, "{place}: ")?;
        }
        if let Some(operation) = &inner.operation {
            write!(f, "{operation}: ")?;
        }
        if let Some(subject) = &inner.subject {
            write!(f, "{subject}: ")?;
        }
        f.write_str(&inner.message)?;
        if let Some(advice) = &inner.advice {
            write!(f, " ({advice})")?;
        }
        match inner.further.len() {
            0 => Ok(()),
            1 => f.write_str(", and one more"),
            more => write!(f, ", and {more} more"),
        }
    }
}

/// Writes control characters, line feeds among them, as their escapes.
struct OneLine<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for OneLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            match piece.chars().next_back() {
                Some(last) if last.is_control() => {
                    self.0.write_str(&piece[..piece.len() - last.len_utf8()])?;
                    write!(self.0, "{}", last.escape_debug())?;
                }
                _ => self.0.write_str(piece)?,
            }
        }
        Ok(())
    }
}

fn on_one_line(text: impl fmt::Display) -> String {
    let mut line = String::new();
    // Writing to a text fails only where its display does; what there is of it then serves.
    let _ = write!(OneLine(&mut line), "{text}");
    line
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_errors_are_one_that_tells_all() {
        let errors = ["first", "second", "third"].map(|what| Error::new(ErrorKind::Io, what));
        let error = Error::all(errors).unwrap();
        assert_eq!(error.to_string(), "first, and 2 more");
        assert_eq!(error.chain(), "first, and 2 more; second; third");
        let more = Error::all([Error::new(ErrorKind::Io, "zeroth"), error]).unwrap();
        assert_eq!(more.further().len(), 3);
        assert!(Error::all([]).is_none());
    }

    #[test]
    fn whatever_words_are_in_it_an_error_is_one_line() {
        let cause = std::io::Error::other("first\nsecond");
        let error = Error::new(ErrorKind::Io, "a\nb\u{1b}[2J")
            .subject("c\rd")
            .advice("é\u{85}")
            .caused_by(cause);
        let line = error.chain();
        assert_eq!(line, "c\\rd: a\\nb\\u{1b}[2J (é\\u{85}): first\\nsecond");
        assert_eq!(format!("{error:?}"), format!("Io: {line}"));
    }
}
