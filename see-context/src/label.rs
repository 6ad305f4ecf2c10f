//! Whose a domain or network is: its metadata names the environment.

use see_core::ledger::CollectRequest;
use see_libvirt::xml::{Document, label_in};

/// Why a domain or network is not the environment's; `None` when its label says that it is.
pub(crate) fn stranger(request: &CollectRequest, xml: &str) -> Option<String> {
    let document = match Document::parse(xml) {
        Ok(document) => document,
        Err(error) => return Some(format!("its XML cannot be read: {error}")),
    };
    match label_in(document.root()) {
        Some(label) if label == request.identifier.to_string() => None,
        Some(label) => Some(format!(
            "it is labelled as {}'s",
            label.chars().take(64).collect::<String>().escape_debug()
        )),
        None => Some("it has no label of ours".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use see_core::Identifier;
    use see_core::ledger::Resource;
    use see_libvirt::xml::DomainXml;

    use super::*;

    #[test]
    fn a_domain_or_network_with_another_environments_label_or_none_is_a_strangers() {
        const BARE: &str = "<domain><name>a</name><devices/></domain>";
        let identifier = Identifier::random();
        let resource = Resource::new("libvirt.domain", identifier.to_string(), "qemu:///system");
        let request = CollectRequest::new(identifier, resource);
        let labelled = |label: &str| {
            let mut domain = DomainXml::parse(BARE).unwrap();
            domain.set_label(label);
            domain.to_string()
        };
        assert_eq!(stranger(&request, &labelled(&identifier.to_string())), None);
        let other = Identifier::random().to_string();
        let reason = stranger(&request, &labelled(&other)).unwrap();
        assert!(reason.contains(&other), "{reason}");
        assert!(stranger(&request, BARE).is_some());
        assert!(stranger(&request, "<domain><name>a").is_some());
    }
}
