//! The domain itself: named, labelled and defined once everything it uses is there.

use async_trait::async_trait;
use see_core::Result;
use see_core::ledger::{Details, Resource};
use see_libvirt::Domain;

use super::{Entries, Holding, Making, Part, Site, refused};
use crate::error::libvirt;
use crate::machine::{Native, remove_domain};

/// The kind of the ledger's entries for a domain.
pub(crate) const DOMAIN: &str = "libvirt.domain";

#[derive(Debug)]
pub(super) struct Definition;

#[async_trait]
impl Part for Definition {
    fn intents(&self, site: &Site) -> Result<Vec<Resource>> {
        let name = site.identifier.to_string();
        Ok(vec![Resource::new(DOMAIN, name, &site.hypervisor)])
    }

    async fn make(&self, mut entries: Entries, making: &mut Making<'_>) -> Result<()> {
        let entry = entries.next()?;
        let name = making.identifier.to_string();
        making.domain.set_identity(&name, &name);
        making.domain.set_label(&name);
        making.stop.check("define the domain")?;
        let connection = making.connection()?.clone();
        let domain = match connection.define_domain(&making.domain.to_string()).await {
            Ok(domain) => domain,
            Err(error) => {
                let error = libvirt(error).during("define the domain");
                return Err(refused(entry, error).await);
            }
        };
        let mut identity = Details::new();
        identity.insert("uuid".to_owned(), domain.uuid().to_string().into());
        let recorded = entry.created(identity).await;
        making.hold_as(entry, Defined(domain.clone()));
        making.native = Some(Native { connection, domain });
        recorded
    }
}

#[derive(Debug)]
struct Defined(Domain);

#[async_trait]
impl Holding for Defined {
    async fn remove(&mut self) -> Result<()> {
        remove_domain(&self.0).await
    }

    fn rests_on_others(&self) -> bool {
        true
    }
}
