//! A look at the host once an environment has ended: whether what was made for it is really gone.
//!
//! The ledger knows what was to be made; whether that is still there only the host can tell. So the collectors are
//! asked about every resource that was ever written down, those that were struck off included.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::collector::{CollectRequest, Collected, Collector, Collectors};
use super::record::Record;
use crate::bus::lock;

/// The time for each resource.
const LIMIT: Duration = Duration::from_secs(15);

/// One thing that was looked for on the host, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// What was looked for, and where: `libvirt's logs in /var/log/libvirt/qemu`.
    pub what: String,
    /// What of the environment is there; empty where nothing is.
    pub found: Vec<String>,
    /// Why this user could not look there, or may not remove what was found.
    pub denied: Option<String>,
}

impl Looked {
    /// Looked for, and not there.
    pub fn clear(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            found: Vec::new(),
            denied: None,
        }
    }

    /// The same with what is there.
    #[must_use]
    pub fn with(mut self, found: impl IntoIterator<Item = String>) -> Self {
        self.found.extend(found);
        self
    }

    /// The same where this user could not look, or may not remove what was found.
    #[must_use]
    pub fn denied(mut self, why: impl Into<String>) -> Self {
        self.denied = Some(why.into());
        self
    }

    /// Whether it was looked for, and is not there.
    pub fn is_clear(&self) -> bool {
        self.found.is_empty() && self.denied.is_none()
    }

    /// What was found that this user's own run should have removed.
    pub fn left(&self) -> &[String] {
        match self.denied {
            None => &self.found,
            Some(_) => &[],
        }
    }
}

/// What one environment wrote into the ledger, also after its record is gone: whoever allocates keeps one, to look
/// at the host in the end. Cheap to clone; empty until the allocation begins.
#[derive(Debug, Clone, Default)]
pub struct Trail(Arc<Mutex<Option<Record>>>);

impl Trail {
    /// One that no environment is known of yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn follow(&self, record: &Record) {
        *lock(&self.0) = Some(record.clone());
    }

    /// Looks at the host for everything that was written down, by the collectors of its kinds.
    pub async fn look(&self, collectors: &Collectors) -> Vec<Looked> {
        let record = lock(&self.0).clone();
        let Some(record) = record else {
            return Vec::new();
        };
        let mut looked: Vec<Looked> = Vec::new();
        for mut request in record.recorded() {
            request.dry_run = true;
            request.deadline = Instant::now() + LIMIT;
            match collectors.find(&request.resource.kind) {
                Ok(collector) => looked.extend(collector.look(&request).await),
                Err(error) => looked.push(Looked::clear(name(&request)).denied(error.chain())),
            }
        }
        looked.dedup();
        looked
    }
}

/// What [`Collector::look`] does unless a collector knows better: a dry run.
pub(super) async fn by_dry_run<C: Collector + ?Sized>(
    collector: &C,
    request: &CollectRequest,
) -> Looked {
    let looked = Looked::clear(name(request));
    match collector.collect(request).await {
        Ok(Collected::AlreadyGone) => looked,
        Ok(Collected::Removed) => looked.with([name(request)]),
        Ok(Collected::Refused(reason)) => looked.denied(reason),
        Err(error) => looked.denied(error.chain()),
    }
}

/// Kind, and name or path.
fn name(request: &CollectRequest) -> String {
    let resource = &request.resource;
    match resource.path() {
        Some(path) => format!("{} {}", resource.kind, path.display()),
        None => format!("{} {}", resource.kind, resource.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identifier;
    use crate::ledger::{Ledger, Resource};

    #[tokio::test]
    async fn what_was_struck_off_the_ledger_and_is_still_there_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open_blocking(folder.path().join("ledger")).unwrap();
        let identifier = Identifier::random();
        let record = ledger.begin(identifier, "test").await.unwrap();
        let trail = Trail::new();
        assert_eq!(trail.look(&Collectors::core()).await, []);
        trail.follow(&record);
        let paths = ["gone", "left"].map(|name| format!("{name}-{identifier}"));
        let resources = paths
            .each_ref()
            .map(|name| Resource::folder(folder.path(), name).unwrap());
        for entry in record.intend(resources).await.unwrap() {
            entry.create_folder().await.unwrap();
            entry.gone().await.unwrap();
        }
        std::fs::remove_dir(folder.path().join(&paths[0])).unwrap();
        assert_eq!(record.close().await.unwrap(), []);
        let looked = trail.look(&Collectors::core()).await;
        let [gone, left] = &looked[..] else {
            panic!("{looked:?}");
        };
        assert!(gone.is_clear(), "{gone:?}");
        assert!(left.left()[0].ends_with(&paths[1]), "{left:?}");
    }

    #[test]
    fn what_this_user_may_not_remove_is_told_and_is_no_failure_of_the_run() {
        let log = Looked::clear("logs")
            .with(["a.log".to_owned()])
            .denied("only root");
        assert!(log.left().is_empty() && !log.is_clear());
    }
}
