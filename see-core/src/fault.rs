//! The points at which the conformance suite can make core itself fail. Without the feature `testing` they
//! are nothing.

#[cfg(feature = "testing")]
mod injected;

#[cfg(feature = "testing")]
pub(crate) use injected::{Act, Faults, Injected, pass_on};

/// Where core can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before something is written down.
    Intend,
    /// Before it is recorded that something exists.
    Created,
    /// Before it is recorded that something is gone.
    Gone,
    /// When a stop token is looked at.
    Look,
}

/// A panic in work that was done elsewhere: it is only reported.
#[cfg(not(feature = "testing"))]
pub(crate) fn pass_on(panic: Box<dyn std::any::Any + Send>) -> Box<dyn std::any::Any + Send> {
    panic
}

/// No faults.
#[cfg(not(feature = "testing"))]
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {}

#[cfg(not(feature = "testing"))]
impl Faults {
    /// Passes a point.
    ///
    /// # Errors
    /// None: only the suite has faults.
    #[inline]
    pub(crate) fn reach(&self, _point: Point) -> crate::Result<()> {
        Ok(())
    }
}
