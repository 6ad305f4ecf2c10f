//! What users write: run files, and libvirt's documents.

use see_core::config::{Configuration, HooksSection, RunFile, Substitutions};
use see_core::{AgentSettings, Error, Limits, Protocol, Registries};
use see_libvirt::xml::{DhcpNetwork, DomainXml, Lent, NetworkPort, NetworkXml};
use std::path::Path;

const UUID: &str = "6ca14d2c-2815-45c4-884b-649bac0cab90";

thread_local! {
    static REGISTRIES: Registries = {
        let mut registries = Registries::new();
        see_hooks_std::register(&mut registries).expect("no name is there twice");
        registries
    };
}

/// A run file: everything of it that can be read without a host. Each error has a place.
pub(crate) fn run_file(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    match read_run(&text) {
        Ok(()) => true,
        Err(error) => {
            assert!(error.place().is_some(), "an error without a place: {error}");
            // Long values and control characters of others come out in one line.
            assert!(!error.to_string().contains('\n'), "{error:?}");
            false
        }
    }
}

fn read_run(text: &str) -> Result<(), Error> {
    let substitutions = Substitutions::default()
        .sample(Some("/sample"))
        .command(Some("run it"))
        .runtime(60)
        .environment(|name| (name == "HOME").then(|| "/home".into()));
    let configuration = Configuration::from_str("run.json", text)?;
    let run = RunFile::read(&configuration.substitute(&substitutions)?)?;
    if let Some(protocol) = &run.protocol {
        Protocol::from_configuration(protocol)?;
    }
    if let Some(agent) = run.context.get("agent") {
        agent.deserialize::<AgentSettings>()?;
    }
    if let Some(limits) = run.context.get("limits") {
        limits.deserialize::<Limits>()?;
    }
    let hooks: &HooksSection = &run.hooks;
    REGISTRIES.with(|registries| registries.hooks.prepare(hooks))?;
    Ok(())
}

/// A domain's XML: what is written of it reads as the same tree, before and after the edits.
pub(crate) fn domain_xml(bytes: &[u8]) -> bool {
    let Ok(mut domain) = DomainXml::parse_bytes(bytes) else {
        return false;
    };
    let written = domain.to_string();
    let again = DomainXml::parse(&written).expect("what we wrote can be read");
    assert_eq!(again, domain, "writing changes it");
    let (disks, interfaces) = (domain.disks().len(), domain.interfaces().len());
    domain.set_identity(UUID, UUID);
    domain.set_label(UUID);
    domain.set_agent_channel(Some(Path::new("/tmp/a&b/agent.sock")));
    domain.set_console_file(Path::new("/tmp/<console>"), false);
    domain.connect_network(&NetworkPort {
        network: "a<b".to_owned(),
        mac: Some("52:54:00:00:00:01".to_owned()),
        device: None,
        isolated: true,
    });
    let written = domain.to_string();
    let mut again = DomainXml::parse(&written).expect("what we wrote can be read");
    assert_eq!(again, domain, "writing changes it");
    assert_eq!(again.uuid().as_deref(), Some(UUID));
    assert_eq!(again.name().as_deref(), Some(UUID));
    assert_eq!(again.label().as_deref(), Some(UUID));
    assert_eq!(again.disks().len(), disks);
    assert_eq!(
        again.interfaces().len(),
        1,
        "of {interfaces}, one is connected"
    );
    again.remove_interfaces();
    assert!(again.interfaces().is_empty());
    true
}

/// A network's XML: the same.
pub(crate) fn network_xml(bytes: &[u8]) -> bool {
    let Ok(mut network) = NetworkXml::parse_bytes(bytes) else {
        return false;
    };
    let subnets = network.subnets();
    network.set_identity(UUID, UUID);
    network.set_label(UUID);
    network.set_bridge("virbr-6ca14d2c");
    let addresses = DhcpNetwork {
        gateway: [10, 9, 8, 1].into(),
        prefix: 24,
        lent: Lent::Range([10, 9, 8, 2].into(), [10, 9, 8, 254].into()),
    };
    let added = network.set_addresses(&[addresses]).is_ok();
    let written = network.to_string();
    let again = NetworkXml::parse(&written).expect("what we wrote can be read");
    assert_eq!(again, network, "writing changes it");
    assert_eq!(again.name().as_deref(), Some(UUID));
    assert_eq!(again.label().as_deref(), Some(UUID));
    assert_eq!(again.bridge().as_deref(), Some("virbr-6ca14d2c"));
    assert_eq!(again.subnets().len(), subnets.len() + usize::from(added));
    true
}
