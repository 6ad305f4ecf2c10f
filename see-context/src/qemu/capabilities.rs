//! What a domain of the user's asks of its hypervisor, before anything is made: libvirt tells what it can run.

use see_core::config::ConfigPath;
use see_core::{Error, Result};
use see_libvirt::Connection;
use see_libvirt::xml::{Document, DomainXml, Element, Position, XmlError};

use super::acceleration;
use crate::error::{libvirt, xml};

/// Checks architecture, machine type, emulator, firmware and processor against the connection's own word.
///
/// # Errors
/// [`ErrorKind::Configuration`](see_core::ErrorKind::Configuration) with every finding at its place in the XML.
pub(super) async fn check(
    domain: &DomainXml,
    connection: &Connection,
    path: &ConfigPath,
) -> Result<()> {
    let asked = acceleration::kind(domain, &domain.hypervisor_type().unwrap_or_default());
    let wrong = |position: Position, problem: String| {
        xml(
            XmlError::Conflict { position, problem },
            path.path(),
            path.place(),
        )
    };
    let text = match connection.domain_capabilities(&asked).await {
        Ok(text) => text,
        Err(error) if error.is_unsupported() => return Ok(()),
        Err(error) if error.is_timed_out() || error.is_connection_lost() => {
            return Err(libvirt(error).during("ask what machines there are"));
        }
        Err(error) => {
            let place = domain.root().at(&["os", "type"]).unwrap_or(domain.root());
            return Err(wrong(
                place.position(),
                format!("the hypervisor runs no such machine: {error}"),
            )
            .advice("`virsh capabilities` lists its machine types"));
        }
    };
    // An answer that cannot be read leaves it to the definition to tell.
    let Ok(offered) = Document::parse(&text) else {
        return Ok(());
    };
    let findings = [
        firmware(domain, offered.root()),
        processor(domain, offered.root()),
    ];
    let findings = findings
        .into_iter()
        .flatten()
        .map(|finding| wrong(finding.position, finding.problem).advice(finding.advice));
    Error::all(findings).map_or(Ok(()), Err)
}

struct Finding {
    position: Position,
    problem: String,
    advice: String,
}

/// The firmware that libvirt is to choose is one that it has.
fn firmware(domain: &DomainXml, offered: &Element) -> Option<Finding> {
    let os = domain.root().child("os")?;
    let asked = os.attribute("firmware")?;
    let listed = offered
        .child("os")?
        .children()
        .find(|child| child.name() == "enum" && child.attribute("name") == Some("firmware"))?;
    let known: Vec<String> = listed.children().map(Element::text).collect();
    (!known.iter().any(|known| *known == asked)).then(|| Finding {
        position: os.position(),
        problem: format!(
            "the hypervisor's host has no firmware `{}`",
            asked.escape_debug()
        ),
        advice: match known.as_slice() {
            [] => {
                "install it there (on Debian and Ubuntu: ovmf), or leave `firmware` out".to_owned()
            }
            known => format!("it has {}", known.join(", ")),
        },
    })
}

/// A processor that is named is one that the hypervisor knows.
fn processor(domain: &DomainXml, offered: &Element) -> Option<Finding> {
    let cpu = domain.root().child("cpu")?;
    if cpu.attribute("mode").is_some_and(|mode| mode != "custom") {
        return None;
    }
    let model = cpu.child("model")?;
    let asked = model.text().trim().to_owned();
    let custom = offered
        .child("cpu")?
        .children()
        .find(|mode| mode.name() == "mode" && mode.attribute("name") == Some("custom"))?;
    let mut known = custom.children().filter(|child| child.name() == "model");
    let is_known = asked.is_empty() || known.any(|known| known.text() == asked);
    (!is_known).then(|| Finding {
        position: model.position(),
        problem: format!(
            "the hypervisor knows no processor `{}`",
            asked.escape_debug()
        ),
        advice: "`virsh domcapabilities` lists those that it knows".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: &str = "<domainCapabilities><os><enum name='firmware'><value>bios</value></enum></os>\
        <cpu><mode name='maximum'/><mode name='custom'><model>Haswell</model><model>qemu64</model></mode></cpu>\
        </domainCapabilities>";

    fn problems(domain: &str) -> Vec<String> {
        let domain = DomainXml::parse(&format!("<domain>{domain}<devices/></domain>")).unwrap();
        let offered = Document::parse(OFFERED).unwrap();
        let all = [
            firmware(&domain, offered.root()),
            processor(&domain, offered.root()),
        ];
        all.into_iter()
            .flatten()
            .map(|finding| finding.problem)
            .collect()
    }

    #[test]
    fn a_firmware_or_processor_that_is_not_there_is_found() {
        assert_eq!(
            problems("<os firmware='efi'/><cpu><model>Haswel</model></cpu>"),
            [
                "the hypervisor's host has no firmware `efi`",
                "the hypervisor knows no processor `Haswel`"
            ]
        );
        for fine in [
            "<os firmware='bios'/>",
            "<os/><cpu mode='custom'><model>Haswell</model></cpu>",
            "<cpu mode='host-model'><model fallback='allow'/></cpu>",
        ] {
            assert_eq!(problems(fine), Vec::<String>::new(), "{fine}");
        }
    }
}
