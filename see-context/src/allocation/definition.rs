//! The domain itself: named, labelled and defined once everything it uses is there.

use async_trait::async_trait;
use see_core::config::Place;
use see_core::ledger::{Details, Resource};
use see_core::{Error, ErrorKind, Identifier, Result};
use see_libvirt::Connection;
use uuid::Uuid;

use super::{Entries, Making, Part, Site, refused};
use crate::error::{libvirt, undefinable};
use crate::machine::Native;

/// The kind of the ledger's entries for a domain.
pub(crate) const DOMAIN: &str = "libvirt.domain";

#[derive(Debug)]
pub(super) struct Definition {
    /// Where the user asked for this domain; none for a built-in one.
    pub(super) asked_at: Option<Place>,
}

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
        if let Err(error) = check_free(&connection, making.identifier).await {
            return Err(refused(entry, error).await);
        }
        let domain = match connection.define_domain(&making.domain.to_string()).await {
            Ok(domain) => domain,
            Err(error) => {
                let error = undefinable(error, self.asked_at.as_ref());
                return Err(refused(entry, error).await);
            }
        };
        let mut identity = Details::new();
        identity.insert("uuid".to_owned(), domain.uuid().to_string().into());
        entry.created(identity).await?;
        making.native = Some(Native { connection, domain });
        Ok(())
    }
}

/// Refuses a domain that exists: libvirt would give one of the same name and UUID another definition.
async fn check_free(connection: &Connection, identifier: Identifier) -> Result<()> {
    let name = identifier.to_string();
    let uuid: Uuid = name.parse().map_err(|error: uuid::Error| {
        Error::new(ErrorKind::Internal, "an identifier is no UUID").caused_by(error)
    })?;
    let found = match connection.domain_by_name(&name).await {
        Err(error) if error.is_no_domain() => connection.domain(uuid).await,
        found => found,
    };
    match found {
        Err(error) if error.is_no_domain() => Ok(()),
        Err(error) => Err(libvirt(error).during("define the domain")),
        Ok(_) => Err(Error::new(
            ErrorKind::AlreadyExists,
            "a domain of this name or UUID exists already",
        )
        .subject(name)
        .advice(
            "it is not of this sandbox: remove it yourself, or give the sandbox another identifier",
        )),
    }
}
