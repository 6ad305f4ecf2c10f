//! What can remove one kind of resource.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::files::PathCollector;
use super::look::{Looked, by_dry_run};
use super::process::ProcessCollector;
use super::resource::{Details, Resource};
use crate::{Error, ErrorKind, Identifier, Result};

/// Removes resources of one kind that a record names, when their owner is dead or asks for it.
///
/// An implementation removes a resource only where a label, or the identity that was recorded at its
/// creation, shows that it is the one: a name alone proves nothing. It is called again for what it
/// could not remove, and must take a resource that is gone, or never came to be, as
/// [`Collected::AlreadyGone`].
#[async_trait]
pub trait Collector: std::fmt::Debug + Send + Sync {
    /// The kind of resource that it removes.
    fn kind(&self) -> &str;

    /// Removes one resource, or in a dry run finds out whether it would.
    ///
    /// It ends by the request's deadline, with an error if need be; it is not dropped before.
    ///
    /// # Errors
    /// When it cannot be found out, or the removal failed.
    async fn collect(&self, request: &CollectRequest) -> Result<Collected>;

    /// Whether everything that was intended before one of these has to stay as long as it does, as the network and the
    /// firewall of a machine that could not be ended. Files and folders stay with whatever is no file or folder.
    fn needs_what_came_before(&self) -> bool {
        false
    }

    /// Looks whether anything of a resource is on the host, and changes nothing. It is asked once the environment has
    /// ended, also about what was removed and struck off.
    ///
    /// Left out, a dry run tells. A collector whose resource leaves other things behind, such as a hypervisor's logs,
    /// names each place that it looked at.
    async fn look(&self, request: &CollectRequest) -> Vec<Looked> {
        vec![by_dry_run(self, request).await]
    }
}

/// What a collector is asked to remove.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CollectRequest {
    /// The environment.
    pub identifier: Identifier,
    /// The number of the resource in its record.
    pub entry: u32,
    /// The resource, as it was intended.
    pub resource: Resource,
    /// How it is recognised, as recorded at its creation. Without it the resource may exist or not:
    /// its maker died in between, or never began.
    pub identity: Option<Details>,
    /// Whether the record was made since this host booted, so that numbers that a boot changes
    /// (processes, devices) are still good.
    pub same_boot: bool,
    /// Whether nothing is to be changed.
    pub dry_run: bool,
    /// When the collector must have ended.
    pub deadline: Instant,
}

impl CollectRequest {
    /// A request for a resource of this boot, with half a minute of time.
    pub fn new(identifier: Identifier, resource: Resource) -> Self {
        Self {
            identifier,
            entry: 0,
            resource,
            identity: None,
            same_boot: true,
            dry_run: false,
            deadline: Instant::now() + Duration::from_secs(30),
        }
    }

    /// Goes on, unless the deadline passed.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it did.
    pub fn check(&self) -> Result<()> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Timeout,
            format!("the {} was not removed in time", self.resource.kind),
        )
        .subject(&self.resource.name))
    }
}

/// What a collector did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collected {
    /// It was removed; in a dry run, it would be.
    Removed,
    /// It was not there.
    AlreadyGone,
    /// It is there, but nothing shows that it is the environment's: it was left alone. The text says
    /// what was found.
    Refused(String),
}

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
