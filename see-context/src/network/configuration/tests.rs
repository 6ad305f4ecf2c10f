//! What a `network` section means, and what is wrong with it.

use see_core::config::Configuration;

use super::*;

fn plan(json: &str, uri: Option<&str>) -> Result<NetworkPlan, String> {
    let tree = Configuration::from_str("run.json", json).unwrap();
    let place = tree.place();
    let hypervisor = match uri {
        None => Hypervisor::Embedded,
        Some(uri) => Hypervisor::Uri(uri.to_owned()),
    };
    tree.deserialize::<NetworkConfiguration>()
        .and_then(|section| section.plan(&hypervisor, &AgentSettings::default(), &place))
        .map_err(|error| error.to_string())
}

const SYSTEM: Option<&str> = Some("qemu:///system");

fn own(json: &str) -> Own {
    match plan(json, SYSTEM) {
        Ok(NetworkPlan::Own(own)) => *own,
        other => panic!("{other:?}"),
    }
}

#[test]
fn python_sees_dynamic_address_makes_a_nat_network() {
    let json = r#"{"dynamic_address": {"ipv4": "192.168.0.0", "prefix": 16, "subnet_prefix": 24}}"#;
    let own = own(json);
    assert_eq!(own.xml.root().attribute_of("forward", "mode"), Some("nat"));
    let within = Subnet::containing([192, 168, 0, 0].into(), 16).unwrap();
    assert_eq!(
        own.search,
        [Search::within(vec![within], 24, "dynamic_address")]
    );
}

#[test]
fn an_address_space_is_where_a_mode_looks_for_its_subnet() {
    let json = r#"{"mode": "nat", "address_space": ["172.20.0.0/16", "192.168.0.0/16"]}"#;
    let spaces = [([172, 20, 0, 0], 16), ([192, 168, 0, 0], 16)]
        .map(|(address, prefix)| Subnet::containing(address.into(), prefix).unwrap());
    let expected = Search::within(spaces.to_vec(), 24, "address_space");
    assert_eq!(own(json).search, [expected]);
    assert_eq!(own(r#"{"mode": "nat"}"#).search, [Search::private(24)]);
}

#[test]
fn a_network_over_a_bridge_that_the_host_lacks_is_refused_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("network.xml");
    let json = serde_json::json!({ "configuration": file }).to_string();
    let write = |device: &str| {
        let bridge = format!("<bridge name='{device}'/>");
        let text = format!("<network>\n<forward mode='bridge'/>\n{bridge}</network>");
        std::fs::write(&file, text).unwrap();
    };
    write("see-none");
    let error = plan(&json, SYSTEM).unwrap_err();
    assert!(error.contains("network.xml:3:1"), "{error}");
    assert!(error.contains("`ip -brief link`"), "{error}");
    // What another host has cannot be seen.
    assert!(plan(&json, Some("qemu+tcp://lab/system")).is_ok());
    write("lo");
    assert!(!own(&json).has_own_bridge);
}

#[test]
fn a_subnet_of_each_family_is_looked_for() {
    let own = own(r#"{"dynamic_address": [
            {"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24},
            {"ipv6": "fd00::", "prefix": 8, "subnet_prefix": 64}]}"#);
    let fd00 = Subnet::containing("fd00::".parse().unwrap(), 8).unwrap();
    assert_eq!(
        own.search[1],
        Search::within(vec![fd00], 64, "dynamic_address")
    );
}

#[test]
fn what_contradicts_itself_or_is_missing_is_told_with_its_place() {
    for (json, uri, part) in [
        ("{}", SYSTEM, "the section says no network"),
        (
            r#"{"mode": "nat"}"#,
            None,
            "embedded hypervisor has no networks",
        ),
        (
            r#"{"mode": "shared"}"#,
            None,
            "embedded hypervisor has no networks",
        ),
        (
            r#"{"mode": "isolated"}"#,
            Some("qemu:///session"),
            "a user's own daemon has no networks",
        ),
        (
            r#"{"mode": "isolated"}"#,
            Some("qemu+tcp://lab/system"),
            "which is another",
        ),
        (
            r#"{"mode": "nat", "verify": true}"#,
            SYSTEM,
            "`verify` belongs to",
        ),
        (
            r#"{"dynamic_address": {"prefix": 8, "subnet_prefix": 24}}"#,
            SYSTEM,
            "needs `ipv4` or `ipv6`",
        ),
        (
            r#"{"dynamic_address": [{"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24}, {"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24}]}"#,
            SYSTEM,
            "one subnet of each family",
        ),
        (
            r#"{"dynamic_address": {"ipv6": "fd00::", "prefix": 8, "subnet_prefix": 127}}"#,
            SYSTEM,
            "between 64 and 126",
        ),
        (
            r#"{"mode": "user", "i_know": "x"}"#,
            None,
            "`user` is not there",
        ),
        (
            r#"{"mode": "none", "i_know": "x"}"#,
            None,
            "belongs to the mode `user`",
        ),
        (
            r#"{"mode": "nat", "dynamic_address": {"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24}}"#,
            SYSTEM,
            "keep one of the two",
        ),
        (
            r#"{"dynamic_address": {"ipv4": "10.0.0.0", "prefix": 24, "subnet_prefix": 16}}"#,
            SYSTEM,
            "must lie between 24 and 30",
        ),
        (
            r#"{"dynamic_address": {"ipv4": "10.0.0.0", "prefix": 33, "subnet_prefix": 24}}"#,
            SYSTEM,
            "0 to 32 bits",
        ),
        (
            r#"{"mode": "nat", "address_space": "10.0.0.0"}"#,
            SYSTEM,
            "found \"10.0.0.0\", which is no prefix",
        ),
        (
            r#"{"mode": "nat", "address_space": ["10.0.0.0/8", "10.7.0.0/25"]}"#,
            SYSTEM,
            "found 10.7.0.0/25, which is smaller",
        ),
        (
            r#"{"mode": "isolated", "address_space": []}"#,
            SYSTEM,
            "found an empty list",
        ),
        (
            r#"{"mode": "none", "address_space": "10.0.0.0/8"}"#,
            SYSTEM,
            "belongs to the modes `isolated`, `shared` and `nat`",
        ),
        (
            r#"{"dynamic_address": {"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24}, "address_space": "10.0.0.0/8"}"#,
            SYSTEM,
            "belongs to the modes",
        ),
        (r#"{"mode": "natt"}"#, SYSTEM, "natt"),
        (r#"{"mod": "nat"}"#, SYSTEM, "mod"),
    ] {
        let error = plan(json, uri).unwrap_err();
        assert!(error.contains(part), "{json}: {error}");
        assert!(error.starts_with("run.json:1:"), "{json}: {error}");
    }
}
