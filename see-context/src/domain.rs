//! The domain itself: named, labelled and defined once everything it uses is there, and removed before any of that.
//!
//! A domain of a daemon is removed only when its UUID is the recorded one, or the label in its metadata names the
//! environment. The embedded driver of a dead process cannot be opened here, since libvirt knows one root in the life
//! of a process: its emulator is found by the UUID on its command line, and ended by itself. That of this very process
//! is asked as a daemon is.

mod look;

use std::path::Path;

use async_trait::async_trait;
use see_core::config::Place;
use see_core::ledger::{CollectRequest, Collected, Collector, Details, Entry, Looked, Resource};
use see_core::{Error, ErrorKind, Identifier, Result};
use see_libvirt::xml::DomainXml;
use see_libvirt::{Ability, Connection, Domain};
use uuid::Uuid;

use crate::allocation::{Site, exactly, refused};
use crate::driver::Driver;
use crate::error::{blocking, libvirt, undefinable};
use crate::hypervisor;
use crate::label::stranger;
use crate::residue::{self, emulator, traces_of};

/// The kind of the ledger's entries for a domain.
pub(crate) const DOMAIN: &str = "libvirt.domain";

/// What is written down of it.
pub(crate) fn intents(site: &Site<'_>) -> Vec<Resource> {
    let name = site.identifier.to_string();
    vec![Resource::new(DOMAIN, name, &site.location)]
}

/// A domain under the sandbox's own name, with its label and hardware addresses that no other machine of the same XML
/// has.
pub(crate) fn named(model: &DomainXml, identifier: Identifier) -> DomainXml {
    let mut domain = model.clone();
    let name = identifier.to_string();
    domain.set_identity(&name, &name);
    domain.set_label(&name);
    let [first, second, third, ..] = *identifier.as_bytes();
    domain.set_hardware_addresses([first, second, third]);
    domain
}

/// Defines it. `asked_at` is where the user asked for this domain; none for a built-in one.
pub(crate) async fn define(
    xml: &DomainXml,
    entries: Vec<Entry>,
    connection: &Connection,
    (site, asked_at): (&Site<'_>, Option<&Place>),
) -> Result<Domain> {
    let [entry] = exactly(entries)?;
    site.stop.check("define the domain")?;
    if let Err(error) = check_free(connection, site.identifier).await {
        return Err(refused(entry, error).await);
    }
    let domain = match connection.define_domain(&xml.to_string()).await {
        Ok(domain) => domain,
        Err(error) => return Err(refused(entry, undefinable(error, asked_at)).await),
    };
    let mut identity = Details::new();
    identity.insert("uuid".to_owned(), domain.uuid().to_string().into());
    entry.created(identity).await?;
    check_firmware(xml, &domain).await?;
    Ok(domain)
}

/// Refuses a machine whose firmware is qcow2 where this libvirt dropped that: QEMU would take the files for raw ones, and
/// the guest start without a word.
async fn check_firmware(asked: &DomainXml, domain: &Domain) -> Result<()> {
    if !asked.qcow2_firmware().contains(&true) {
        return Ok(());
    }
    let defined = domain.xml().await.map_err(libvirt)?;
    let defined = DomainXml::parse(&defined).map_err(|error| {
        Error::new(ErrorKind::Hypervisor, "the defined XML cannot be read").caused_by(error)
    })?;
    if keeps_firmware(asked, &defined) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "this libvirt ignores `format='qcow2'` of <loader> and <nvram>",
    )
    .during("define the domain")
    .advice("libvirt 9.2 and later know firmware in qcow2; or give the machine raw files"))
}

/// Whether what was asked for as qcow2 is qcow2 still.
fn keeps_firmware(asked: &DomainXml, defined: &DomainXml) -> bool {
    let mut files = asked
        .qcow2_firmware()
        .into_iter()
        .zip(defined.qcow2_firmware());
    files.all(|(asked, defined)| defined || !asked)
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

/// Ends domains, and removes their definitions and what libvirt keeps of them.
#[derive(Debug)]
pub(crate) struct Domains;

#[async_trait]
impl Collector for Domains {
    fn kind(&self) -> &str {
        DOMAIN
    }

    fn runs(&self) -> bool {
        true
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let location = &request.resource.location;
        let connection = if location.starts_with('/') {
            // What runs in this very process only libvirt may end: it would note the end in the root that is removed.
            match Connection::embedded_on(Path::new(location)) {
                Some(connection) => connection.within(hypervisor::time_left(request)),
                None => return forgotten(request).await,
            }
        } else {
            hypervisor::open(request).await?
        };
        let domain = match connection.domain_by_name(&request.resource.name).await {
            Ok(domain) => domain,
            Err(error) if error.is_no_domain() => return forgotten(request).await,
            Err(error) => return Err(libvirt(error)),
        };
        let by_uuid = another(request, domain.uuid());
        // A recorded UUID that agrees proves it, whatever somebody did to its label or its XML.
        let is_proven = by_uuid.is_none() && request.identity.is_some();
        let reason = if is_proven || !connection.may(Ability::Metadata) {
            by_uuid
        } else {
            match domain.xml().await {
                Ok(text) => stranger(request, &text),
                Err(error) if error.is_no_domain() => return Ok(Collected::AlreadyGone),
                Err(error) => return Err(libvirt(error)),
            }
        };
        if let Some(reason) = reason {
            return Ok(Collected::Refused(reason));
        }
        if !request.dry_run {
            let ended = remove(&domain).await?;
            // A daemon that was restarted may take a machine for off whose emulator lives, and of a container whose
            // controller died libvirt leaves the processes.
            match ended {
                true => clear_files(location, &request.resource.name).await?,
                false => drop(forgotten(request).await?),
            }
        }
        Ok(Collected::Removed)
    }

    async fn look(&self, request: &CollectRequest) -> Vec<Looked> {
        look::look(request).await
    }
}

/// Ends a domain that was just looked up, and removes its definition; one that is gone is no error. Whether libvirt
/// ended it.
async fn remove(domain: &Domain) -> Result<bool> {
    let ended = match domain.destroy().await {
        Ok(()) => true,
        Err(error) if error.is_no_domain() => return Ok(false),
        // Not every driver tells by its error that there was nothing to end, and one that says so is not believed.
        Err(error) => match domain.is_active().await {
            Ok(false) => false,
            Err(gone) if gone.is_no_domain() => return Ok(false),
            _ => return Err(libvirt(error)),
        },
    };
    match domain.undefine().await {
        Err(error) if error.is_no_domain() => Ok(ended),
        Err(error) => match domain.is_active().await {
            // A transient domain went with its run.
            Err(gone) if gone.is_no_domain() => Ok(ended),
            _ => Err(libvirt(error)),
        },
        Ok(()) => Ok(ended),
    }
}

/// Removes the files that libvirt keeps of a domain which is gone. What stays of them costs nothing but its names.
///
/// # Errors
/// When processes of the domain live on.
async fn clear_files(location: &str, name: &str) -> Result<()> {
    let (location, name) = (location.to_owned(), name.to_owned());
    let cleared = blocking("remove a domain's files", move || {
        match traces_of(&location) {
            Some(traces) => traces.clear_domain(&location, &name),
            None => Ok(()),
        }
    });
    match cleared.await {
        Err(error) if error.kind() == ErrorKind::Timeout => Err(error),
        cleared => {
            residue::note(cleared);
            Ok(())
        }
    }
}

/// Ends an emulator or a container that libvirt does not know: its daemon died while it started it, or the process
/// that had the embedded driver is gone.
async fn forgotten(request: &CollectRequest) -> Result<Collected> {
    if request.resource.location.starts_with('/') {
        // The files go with the root.
        let request = request.clone();
        return blocking("end the emulator", move || residue::end_emulator(&request)).await;
    }
    let request = request.clone();
    blocking("end a forgotten machine", move || {
        let (location, name) = (&request.resource.location, &request.resource.name);
        let traces = traces_of(location).filter(|_| !request.dry_run);
        let clear_groups = || match &traces {
            Some(traces) if rustix::process::geteuid().is_root() => {
                traces.clear_groups(Driver::of(location).scheme, name)
            }
            _ => Ok(false),
        };
        // Of a container nobody else may be left to tell which processes are its own, and they may be frozen.
        let had_groups = clear_groups()?;
        let ended = emulator::collect_forgotten(&request)?;
        if ended == Collected::Removed {
            // Until its end, a container's controller may make groups.
            clear_groups()?;
        }
        if let Some(traces) = traces {
            residue::note(traces.clear_files(location, name));
        }
        Ok(match ended {
            Collected::AlreadyGone if had_groups => Collected::Removed,
            ended => ended,
        })
    })
    .await
}

/// Why a domain is not the environment's, by its UUID. The one that was written down once it was made must agree, or the
/// one that it was to get where its maker ended in between.
fn another(request: &CollectRequest, uuid: Uuid) -> Option<String> {
    let found = uuid.to_string();
    let recorded = match &request.identity {
        Some(identity) => identity.get("uuid").and_then(|uuid| uuid.as_str()),
        None => None,
    };
    let planned = request.identifier.to_string();
    let wanted = match (&request.identity, recorded) {
        (None, _) => planned.as_str(),
        (Some(_), Some(recorded)) => recorded,
        (Some(_), None) => return Some("the ledger has no UUID to tell it by".to_owned()),
    };
    (found != wanted).then(|| format!("its UUID is {found}, and the ledger's is {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_without_a_label_is_told_by_the_uuid_in_the_ledger() {
        let identifier = Identifier::random();
        let planned: Uuid = identifier.to_string().parse().unwrap();
        let stranger = Uuid::new_v4();
        let resource = Resource::new(DOMAIN, identifier.to_string(), "vbox:///session");
        let mut request = CollectRequest::new(identifier, resource);
        // Its maker ended before it could write down what it made.
        assert_eq!(another(&request, planned), None);
        assert!(another(&request, stranger).is_some());

        let recorded = Uuid::new_v4();
        let mut identity = Details::new();
        identity.insert("uuid".to_owned(), recorded.to_string().into());
        request.identity = Some(identity);
        assert_eq!(another(&request, recorded), None);
        let reason = another(&request, planned).unwrap();
        assert!(reason.contains(&recorded.to_string()), "{reason}");

        request.identity = Some(Details::new());
        assert!(another(&request, planned).is_some());
    }

    #[test]
    fn a_libvirt_that_drops_the_format_of_qcow2_firmware_is_noticed() {
        const QCOW2: &str = " format='qcow2'";
        let firmware = [("", ""), (QCOW2, ""), (QCOW2, QCOW2)].map(|(code, variables)| {
            let os = format!("<os><loader{code}>/f</loader><nvram{variables}>/v</nvram></os>");
            DomainXml::parse(&format!("<domain><name>a</name>{os}<devices/></domain>")).unwrap()
        });
        let [raw, code, both] = &firmware;
        for (asked, defined) in [(code, raw), (both, raw), (both, code)] {
            assert!(!keeps_firmware(asked, defined), "{asked} {defined}");
        }
        for (asked, defined) in [(raw, raw), (raw, both), (code, code), (both, both)] {
            assert!(keeps_firmware(asked, defined), "{asked} {defined}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_domain_that_lost_its_label_goes_by_its_recorded_uuid_and_by_no_other() {
        const HYPERVISOR: &str = "test:///default";
        let limit = std::time::Duration::from_secs(30);
        let connection = Connection::open(HYPERVISOR, limit).await.unwrap();
        let identifier = Identifier::random();
        let xml = format!(
            "<domain type='test'><name>{identifier}</name><uuid>{identifier}</uuid>
             <memory>8192</memory><os><type>hvm</type></os></domain>"
        );
        let domain = connection.define_domain(&xml).await.unwrap();
        domain.start().await.unwrap();
        let resource = Resource::new(DOMAIN, identifier.to_string(), HYPERVISOR);
        let mut request = CollectRequest::new(identifier, resource);
        let identity = |uuid: Uuid| Resource::new("x", "x", "").detail("uuid", uuid.to_string());
        for other in [None, Some(identity(Uuid::new_v4()).details)] {
            request.identity = other;
            let collected = Domains.collect(&request).await.unwrap();
            assert!(matches!(collected, Collected::Refused(_)), "{collected:?}");
            assert!(domain.is_active().await.unwrap());
        }
        request.identity = Some(identity(domain.uuid()).details);
        let collected = Domains.collect(&request).await.unwrap();
        assert_eq!(collected, Collected::Removed);
        let gone = connection.domain_by_name(&identifier.to_string()).await;
        assert!(gone.unwrap_err().is_no_domain());
    }
}
