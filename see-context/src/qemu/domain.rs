//! The domain's XML before anything is made: read and checked.

use see_core::config::{ConfigPath, Place};
use see_core::{Error, Result};
use see_libvirt::xml::{DiskSource, DomainXml, Element};

use super::configuration::{DomainSection, QemuConfiguration};
use super::elsewhere;
use super::files::{self, Files};
use super::template::{self, Shape};
use crate::admission;
use crate::error::xml;
use crate::host::read_xml;
use crate::hypervisor::{Hypervisor, Owners};
use crate::network::NetworkPlan;

/// The least memory that a guest can be given, and the most that is no slip, in bytes.
const MEMORY: std::ops::RangeInclusive<u64> = (16 << 20)..=(16 << 40);
/// The processors that QEMU's machine `pc` takes.
const CPUS: std::ops::RangeInclusive<u32> = 1..=255;

/// Reads the domain's XML, or the template, and checks that everything can be filled in.
pub(super) async fn prepare(
    configuration: &QemuConfiguration,
    hypervisor: &Hypervisor,
    network: &NetworkPlan,
) -> Result<(DomainXml, Files)> {
    let (mut domain, files) = match &configuration.domain {
        None => (template(configuration)?, Files::default()),
        Some(section) => {
            let path = &section.configuration;
            let mut domain = read(path, configuration)?;
            check(&mut domain, section, hypervisor, network)?;
            let files = if hypervisor.is_remote() {
                let found = Error::all(elsewhere::files(&domain, path, hypervisor.owners()));
                found.map_or(Ok(()), Err)?;
                domain.protect_media(hypervisor.owners() == Owners::Kept);
                Files::default()
            } else {
                files::prepare(&mut domain, path, hypervisor.owners()).await?
            };
            (domain, files)
        }
    };
    if let Some(graphics) = &configuration.graphics {
        graphics.fill_in(&mut domain)?;
    }
    Ok((domain, files))
}

fn template(configuration: &QemuConfiguration) -> Result<DomainXml> {
    let mut shape = Shape::default();
    if let Some(memory) = &configuration.memory {
        if !MEMORY.contains(&memory.0) {
            return Err(Error::configuration(
                memory.place().clone(),
                format!("found {} of memory, possible are 16MiB to 16TiB", **memory),
            ));
        }
        shape.memory = memory.0;
    }
    if let Some(cpus) = &configuration.cpus {
        if !CPUS.contains(cpus) {
            return Err(Error::configuration(
                cpus.place().clone(),
                format!("found {} processors, possible are 1 to 255", **cpus),
            ));
        }
        shape.cpus = **cpus;
    }
    template::domain(shape).map_err(|error| {
        Error::new(
            see_core::ErrorKind::Internal,
            "the built-in domain is broken",
        )
        .caused_by(error)
    })
}

fn read(path: &ConfigPath, configuration: &QemuConfiguration) -> Result<DomainXml> {
    let shaped: [Option<(&Place, &str)>; 2] = [
        configuration
            .memory
            .as_ref()
            .map(|value| (value.place(), "memory")),
        configuration
            .cpus
            .as_ref()
            .map(|value| (value.place(), "cpus")),
    ];
    if let Some((place, key)) = shaped.into_iter().flatten().next() {
        return Err(Error::configuration(
            place.clone(),
            format!("`{key}` shapes the built-in domain, and `domain.configuration` gives another"),
        )
        .advice("say it in the domain's XML"));
    }
    let bytes = read_xml(path, "a libvirt domain XML")?;
    DomainXml::parse_bytes(&bytes).map_err(|error| xml(error, path.path(), path.place()))
}

fn check(
    domain: &mut DomainXml,
    section: &DomainSection,
    hypervisor: &Hypervisor,
    network: &NetworkPlan,
) -> Result<()> {
    let path = &section.configuration;
    let located = |error| xml(error, path.path(), path.place());
    let wrong = |element: &Element, message: String| {
        xml(
            see_libvirt::xml::XmlError::Conflict {
                position: element.position(),
                problem: message,
            },
            path.path(),
            path.place(),
        )
    };
    match domain.hypervisor_type().as_deref() {
        Some("qemu" | "kvm") => {}
        Some(other) => {
            return Err(wrong(
                domain.root(),
                format!(
                    "the domain is of type `{}`, and the backend is `qemu`",
                    other.escape_debug()
                ),
            )
            .advice("the backend `qemu` takes the types `qemu` and `kvm`"));
        }
        None => {
            return Err(wrong(domain.root(), "the domain has no type".to_owned())
                .advice("write <domain type='qemu'> or <domain type='kvm'>"));
        }
    }
    // The edit itself tells whether there is a disk to take the image.
    let probe = DiskSource {
        file: "/".into(),
        format: String::new(),
        backing: Vec::new(),
        relabel: false,
    };
    domain.clone().set_disk(&probe).map_err(located)?;
    network.unplug(domain);
    if *hypervisor == Hypervisor::Embedded
        && let Some(interface) = domain.devices("interface").next()
    {
        return Err(wrong(
            interface,
            "the domain has an interface, and the embedded hypervisor has no networks".to_owned(),
        )
        .advice(
            "set `network` to {\"mode\": \"none\"} to run it without, or `hypervisor` to \
             qemu:///system",
        ));
    }
    let promise = section.promise(network.promise());
    admission::admit(domain, promise, !hypervisor.is_remote(), path)
}
