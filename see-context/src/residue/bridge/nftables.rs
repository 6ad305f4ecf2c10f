//! The rules of libvirt's backend for nftables, which it takes by default since 10.4.

use std::time::Instant;

use see_core::{Error, ErrorKind, Result};
use serde_json::Value;

use super::run;

/// The name of its tables, of the families `ip` and `ip6`.
const TABLE: &str = "libvirt_network";

/// Removes the rules for a bridge, and those for its addresses, of libvirt's backend for nftables.
pub(super) fn clear_table(family: &str, bridge: &str, deadline: Instant) -> Result<()> {
    let listed = run("nft", &["-j", "list", "table", family, TABLE], deadline);
    let listed = match listed {
        Ok(listed) => listed,
        // Without the program or the table the daemon made none.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.chain().contains("No such file or directory") => return Ok(()),
        Err(error) => return Err(error),
    };
    let listing: Value = serde_json::from_str(&listed).map_err(|error| {
        let message = "nft printed something else than JSON";
        Error::new(ErrorKind::Unavailable, message).caused_by(error)
    })?;
    let rules: Vec<String> = rules_of(&listing, bridge)
        .into_iter()
        .map(|(chain, handle)| format!("delete rule {family} {TABLE} {chain} handle {handle}"))
        .collect();
    if !rules.is_empty() {
        run("nft", &[&rules.join("; ")], deadline)?;
    }
    Ok(())
}

/// The rules in a listing that are for a bridge or for its addresses, each by its chain and handle.
fn rules_of(listing: &Value, bridge: &str) -> Vec<(String, u64)> {
    let objects = listing.get("nftables").and_then(Value::as_array);
    let rules: Vec<&Value> = objects
        .into_iter()
        .flatten()
        .filter_map(|object| object.get("rule"))
        .collect();
    // What a rule compares: the left side's key or field, and the right side.
    let compared = |rule: &Value| -> Vec<(String, Value)> {
        let expressions = rule.get("expr").and_then(Value::as_array);
        let matches = expressions.into_iter().flatten();
        matches
            .filter_map(|expression| expression.get("match"))
            .filter_map(|it| {
                let left = it
                    .pointer("/left/meta/key")
                    .or(it.pointer("/left/payload/field"))?;
                Some((left.as_str()?.to_owned(), it.get("right")?.clone()))
            })
            .collect()
    };
    let is_device = |key: &str| ["iif", "iifname", "oif", "oifname"].contains(&key);
    let is_of_bridge = |rule: &Value| {
        let compared = compared(rule);
        let mut devices = compared.iter().filter(|(key, _)| is_device(key));
        devices.any(|(_, right)| right == bridge)
    };
    let addresses = |rule: &Value| -> Vec<Value> {
        let compared = compared(rule).into_iter();
        compared
            .filter(|(key, right)| ["saddr", "daddr"].contains(&key.as_str()) && right.is_object())
            .map(|(_, right)| right)
            .collect()
    };
    let subnets: Vec<Value> = rules
        .iter()
        .filter(|rule| is_of_bridge(rule))
        .flat_map(|rule| addresses(rule))
        .collect();
    rules
        .into_iter()
        .filter(|rule| {
            let mut own = compared(rule).into_iter().filter(|(key, _)| key == "saddr");
            is_of_bridge(rule) || own.any(|(_, right)| subnets.contains(&right))
        })
        .filter_map(|rule| {
            let chain = rule.get("chain")?.as_str()?.to_owned();
            Some((chain, rule.get("handle")?.as_u64()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_of_libvirts_nftables_backend_are_known_by_the_bridge_and_its_addresses() {
        let device = |key: &str, name: &str| {
            json!({ "match": { "op": "==",
            "left": { "meta": { "key": key } }, "right": name } })
        };
        let address = |field: &str, third: u8| {
            json!({ "match": { "op": "==",
            "left": { "payload": { "protocol": "ip", "field": field } },
            "right": { "prefix": { "addr": format!("192.168.{third}.0"), "len": 24 } } } })
        };
        let rule = |chain: &str, handle: u64, expressions: &[Value]| {
            json!({ "rule": {
            "family": "ip", "table": TABLE, "chain": chain, "handle": handle,
            "expr": expressions } })
        };
        let listing = json!({ "nftables": [
            { "metainfo": { "version": "1.1.3" } },
            rule("guest_output", 1, &[address("saddr", 7), device("iifname", "virbr-7"), json!({ "accept": null })]),
            rule("guest_output", 2, &[device("iifname", "virbr-7"), json!({ "reject": null })]),
            rule("guest_input", 3, &[device("oif", "virbr-7"), address("daddr", 7)]),
            rule("guest_nat", 4, &[address("saddr", 7), json!({ "masquerade": null })]),
            rule("guest_nat", 5, &[address("saddr", 8), json!({ "masquerade": null })]),
            rule("guest_output", 6, &[device("iifname", "virbr-70"), json!({ "reject": null })]),
            rule("guest_output", 7, &[json!({ "counter": null })]),
        ] });
        let handles: Vec<u64> = rules_of(&listing, "virbr-7")
            .into_iter()
            .map(|(_, handle)| handle)
            .collect();
        assert_eq!(handles, [1, 2, 3, 4]);
        assert_eq!(rules_of(&listing, "virbr-9"), []);
        assert_eq!(rules_of(&json!({}), "virbr-7"), []);
    }
}
