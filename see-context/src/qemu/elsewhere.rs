//! What a sandbox on another host cannot have, since nothing of this host's files, networks and processes is there.

use see_core::config::ConfigPath;
use see_core::{AgentTransport, Error, ErrorKind};
use see_libvirt::xml::{DomainXml, XmlError};

use super::configuration::QemuConfiguration;
use crate::error::xml;
use crate::hypervisor::Owners;

/// Limits that only this host's kernel and files could tell.
const LIMITS: [(&str, &str); 2] = [
    (
        "console",
        "the log of the guest's console is on the hypervisor's host",
    ),
    (
        "pids",
        "libvirt does not tell the number of processes on another host",
    ),
];

/// Everything of a `context` section, but for its network and its domain, that there is not on another host.
pub(super) fn findings(configuration: &QemuConfiguration) -> Vec<Error> {
    let mut findings = Vec::new();
    if let Some(agent) = &configuration.agent
        && agent.transport == AgentTransport::Tcp
    {
        let error = Error::configuration(
            agent.place().clone(),
            "the agent of a guest on another host cannot be reached over the guest's network",
        );
        findings.push(
            error.advice("set `agent.transport` to `serial`, whose bytes come through libvirt"),
        );
    }
    for (key, why) in LIMITS {
        if let Some(limit) = configuration.limits.as_ref().and_then(|all| all.get(key)) {
            let message = format!("the limit `{key}` cannot be kept, since {why}");
            findings.push(Error::configuration(limit.place(), message).advice("leave it out"));
        }
    }
    findings
}

/// Everything of a domain that would need copies of files of the other host, so that the guest writes to none of them
/// and libvirt gives none of them another owner.
pub(super) fn files(domain: &DomainXml, path: &ConfigPath, owners: Owners) -> Vec<Error> {
    let located = |error| xml(error, path.path(), path.place());
    let mut findings = Vec::new();
    let further = domain.further_disks();
    findings.extend(further.as_ref().err().cloned().map(located));
    for disk in further.iter().flatten() {
        let problem = "on another host a sandbox has one disk, and this is a further one";
        findings.push(
            located(XmlError::Conflict {
                position: disk.position,
                problem: problem.to_owned(),
            })
            .advice("take it out, or make it <readonly/>"),
        );
    }
    let wrong =
        |message: String| Error::new(ErrorKind::Configuration, message).at(path.place().clone());
    match domain.nvram() {
        Ok(nvram) if nvram.file.is_none() => {}
        Ok(_) => findings.push(
            wrong(
                "the domain names a file for the firmware's variables, which is on another host"
                    .to_owned(),
            )
            .advice("take <nvram> out: without a file libvirt makes one for each sandbox"),
        ),
        Err(error) => findings.push(located(error)),
    }
    match domain.boot_files() {
        Ok(_) if owners == Owners::Kept => {}
        Ok(files) => findings.extend(files.into_iter().map(|(_, file)| {
            let file = file.display();
            wrong(format!(
                "the domain boots from {file}, of which no copy can be made on another host"
            ))
            .advice("boot from the disk's image")
        })),
        Err(error) => findings.push(located(error)),
    }
    findings
}
