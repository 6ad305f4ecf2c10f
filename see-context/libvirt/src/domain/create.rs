//! Bringing domains into being, and finding them again.

use uuid::Uuid;
use virt_sys as sys;

use super::Domain;
use crate::connection::Connection;
use crate::error::Error;

/// What goes with a definition: all of it in one call, and less for drivers that know less.
const REMOVALS: [u32; 6] = {
    const METADATA: u32 =
        sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    const CHECKPOINTS: u32 = METADATA | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
    const NVRAM: u32 = CHECKPOINTS | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
    [
        NVRAM | sys::VIR_DOMAIN_UNDEFINE_TPM,
        NVRAM,
        CHECKPOINTS,
        METADATA,
        sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA,
        0,
    ]
};

impl Connection {
    /// Defines a persistent domain without starting it. libvirt replaces the definition of a
    /// domain with the same name *and* UUID.
    ///
    /// # Errors
    /// [`Error::is_bad_xml`], [`Error::is_existing`] for a known name or UUID, whatever else
    /// libvirt reports, or the time limit.
    pub async fn define_domain(&self, xml: &str) -> Result<Domain, Error> {
        let xml = xml.to_owned();
        self.make("define a domain on", move |session| {
            session.asking(|connect| Ok(connect.define_domain_xml(&xml)?))
        })
        .await
    }

    /// Finds a domain by its UUID.
    ///
    /// # Errors
    /// [`Error::is_no_domain`], whatever else libvirt reports, or the time limit.
    pub async fn domain(&self, uuid: Uuid) -> Result<Domain, Error> {
        self.find(format!("domain {uuid}"), move |connect| {
            connect.lookup_domain_by_uuid(uuid)
        })
        .await
    }

    /// Finds a domain by its name.
    ///
    /// # Errors
    /// As [`Connection::domain`].
    pub async fn domain_by_name(&self, name: &str) -> Result<Domain, Error> {
        let name = name.to_owned();
        self.find(format!("domain {name}"), move |connect| {
            connect.lookup_domain_by_name(&name)
        })
        .await
    }

    /// All domains of the driver, running or only defined.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn domains(&self) -> Result<Vec<Domain>, Error> {
        self.list("list the domains of", |connect| connect.list_all_domains(0))
            .await
    }
}

impl Domain {
    /// Starts a defined domain.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] when it runs already, whatever else libvirt reports, or the
    /// time limit.
    pub async fn start(&self) -> Result<(), Error> {
        self.object
            .call_with("start", |domain, session| {
                session.starting(|_| Ok(domain.create()?))
            })
            .await
    }

    /// Removes the definition together with managed save image, snapshot and checkpoint
    /// metadata, NVRAM file and the state of an emulated TPM. Drivers that know less are asked for
    /// less, down to a plain removal. A running domain becomes transient.
    ///
    /// # Errors
    /// [`Error::is_no_domain`], whatever else libvirt reports, or the time limit.
    pub async fn undefine(&self) -> Result<(), Error> {
        let driver = self.connection().link.driver();
        self.object
            .repeat("undefine", |domain| {
                let mut refused = None;
                for flags in REMOVALS {
                    if !driver.takes_to_undefine(flags) {
                        continue;
                    }
                    match domain.undefine_flags(flags) {
                        Ok(()) => return Ok(()),
                        Err(error) => {
                            let code = error.code().to_raw();
                            refused = Some(error);
                            // A driver refuses a flag it does not know as an argument.
                            if code != sys::VIR_ERR_INVALID_ARG && code != sys::VIR_ERR_NO_SUPPORT {
                                break;
                            }
                        }
                    }
                }
                match refused {
                    Some(error) if error.code().to_raw() == sys::VIR_ERR_NO_SUPPORT => {
                        Ok(domain.undefine()?)
                    }
                    Some(error) => Err(error.into()),
                    None => Ok(()),
                }
            })
            .await
    }
}
