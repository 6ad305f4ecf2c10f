//! What can remove one kind of resource.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::looked::Looked;
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

    /// Whether one of these runs, as a machine or a process does. What runs is removed before everything else, the first
    /// intended first, and waits for nothing: the backend's machine goes before what hooks made later.
    fn runs(&self) -> bool {
        false
    }

    /// Whether `earlier`, which was intended before one of these, has to stay as long as it does, as the network and the
    /// firewall of a machine that could not be ended. Left out, everything has to where it [runs](Self::runs), and
    /// nothing where it does not. A folder stays with what lies in it in any case.
    fn needs(&self, earlier: &Resource) -> bool {
        let _ = earlier;
        self.runs()
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

    /// The resource's kind, and its name or path.
    pub(super) fn name(&self) -> String {
        let resource = &self.resource;
        match resource.path() {
            Some(path) => format!("{} {}", resource.kind, path.display()),
            None => format!("{} {}", resource.kind, resource.name),
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

/// What [`Collector::look`] does unless a collector knows better: a dry run.
async fn by_dry_run<C: Collector + ?Sized>(collector: &C, request: &CollectRequest) -> Looked {
    let looked = Looked::clear(request.name());
    match collector.collect(request).await {
        Ok(Collected::AlreadyGone) => looked,
        Ok(Collected::Removed) => looked.with([request.name()]),
        Ok(Collected::Refused(reason)) => looked.failed(reason),
        Err(error) => looked.ended_by(&error),
    }
}
