//! Folders of this host that a guest reads.

use std::path::Path;

use see_libvirt::xml::{DomainXml, Element};

use super::Finding;

/// Where the host keeps its devices, processes and sockets: who may open those need not write to do harm.
const NO_FILES: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
/// Where everybody's sockets lie among files.
const EVERYBODYS: [&str; 2] = ["/tmp", "/var/tmp"];

/// Finds those that are no folders, or hold more than files.
pub(super) fn look(domain: &DomainXml) -> Vec<Finding> {
    let is_container = domain.hypervisor_type().as_deref() == Some("lxc");
    let shared = domain.devices("filesystem").filter(|device| {
        let kind = device.attribute("type");
        // The container's root is copied, and looked at where it is.
        matches!(kind, None | Some("mount")) && !(is_container && is_root(device))
    });
    let findings = shared.filter_map(|device| {
        let source = device.attribute_of("source", "dir")?;
        let (problem, advice) = wrong(Path::new(source))?;
        Some(Finding {
            position: device.position(),
            problem,
            advice,
        })
    });
    findings.collect()
}

fn is_root(device: &Element) -> bool {
    device.attribute_of("target", "dir") == Some("/")
}

fn wrong(source: &Path) -> Option<(String, &'static str)> {
    let shown = source.display().to_string();
    let shown = shown.escape_debug();
    let real = match source.canonicalize() {
        Ok(real) if source.is_absolute() && real.is_dir() => real,
        _ => {
            return Some((
                format!("the guest is to read {shown}, which is no folder"),
                "give the absolute path of a folder",
            ));
        }
    };
    let within = NO_FILES.iter().any(|own| real.starts_with(own));
    let above = |own: &&str| Path::new(own).starts_with(&real);
    let above = NO_FILES.iter().chain(&EVERYBODYS).any(above);
    (within || above).then(|| {
        (
            format!("the guest is to read {shown}, where this host has sockets or devices"),
            "share a folder that holds files alone",
        )
    })
}
