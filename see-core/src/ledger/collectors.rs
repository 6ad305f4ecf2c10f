//! The collectors that a program has.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::collector::Collector;
use super::files::PathCollector;
use super::process::ProcessCollector;
use super::resource::Resource;
use crate::{Error, ErrorKind, Result};

/// The collectors of a program, one for each kind. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Collectors(Arc<BTreeMap<String, Arc<dyn Collector>>>);

impl Collectors {
    /// The core's own: files, folders, leases and processes.
    pub fn core() -> Self {
        let own: [Arc<dyn Collector>; 4] = [
            Arc::new(PathCollector::files()),
            Arc::new(PathCollector::folders()),
            Arc::new(PathCollector::leases()),
            Arc::new(ProcessCollector),
        ];
        let by_kind = own
            .into_iter()
            .map(|collector| (collector.kind().to_owned(), collector));
        Self(Arc::new(by_kind.collect()))
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when its kind has one.
    pub fn add(&mut self, collector: Arc<dyn Collector>) -> Result<()> {
        let kind = collector.kind().to_owned();
        if self.0.contains_key(&kind) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "this kind of resource has a collector already",
            )
            .subject(kind));
        }
        Arc::make_mut(&mut self.0).insert(kind, collector);
        Ok(())
    }

    /// Whether resources of this kind run; of a kind that is not known nobody can tell, nor end one.
    pub(super) fn runs(&self, kind: &str) -> bool {
        self.0.get(kind).is_some_and(|collector| collector.runs())
    }

    /// Whether a resource of this kind may need one that was intended before it; one of an unknown kind may need any.
    pub(super) fn needs(&self, kind: &str, earlier: &Resource) -> bool {
        let collector = self.0.get(kind);
        collector.is_none_or(|collector| collector.needs(earlier))
    }

    pub(super) fn find(&self, kind: &str) -> Result<&Arc<dyn Collector>> {
        self.0.get(kind).ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            Error::new(
                ErrorKind::Unsupported,
                format!("this program cannot remove resources of kind {kind:?}"),
            )
            .advice(format!("it knows {}", known.join(", ")))
        })
    }
}

impl Default for Collectors {
    fn default() -> Self {
        Self::core()
    }
}
