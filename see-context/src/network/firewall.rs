//! What the host's own firewall does to networks: chains of libvirt's that somebody flushed, and DHCP that is dropped.

use see_core::Error;
use serde_json::Value;

use super::nft;

/// Says what to do where libvirt could not make a network since its chains are gone.
///
/// It makes them once, when it starts its first network, and uses them from then on. Tried with libvirt 9: after a
/// flush it fails until it is restarted, also when it is told to reload.
pub(super) fn explain(error: Error) -> Error {
    let text = error.chain();
    let is_flushed = text.contains("No chain/target/match by that name")
        || (text.contains("libvirt_network") && text.contains("No such file or directory"));
    match is_flushed {
        false => error,
        true => error.advice(
            "the host's firewall was flushed or reloaded, and the chains went that libvirt makes at its start: restart \
             its daemon (`systemctl restart libvirtd`, or `virtnetworkd` where there is one); machines go on meanwhile, \
             and a reload is not enough",
        ),
    }
}

/// Why DHCP from a guest may not reach this host, where the host's firewall shows a cause.
pub(crate) async fn why_no_lease() -> Option<String> {
    match nft::ruleset().await {
        Ok(objects) => drops_dhcp(&objects),
        Err(error) => {
            tracing::debug!(%error, "whether the host's firewall drops DHCP is not known");
            None
        }
    }
}

/// The first chain in a listing that drops what comes to the host, and accepts no DHCP.
fn drops_dhcp(objects: &[Value]) -> Option<String> {
    let text = |object: &Value, key: &str| object.get(key)?.as_str().map(str::to_owned);
    let rules = || objects.iter().filter_map(|object| object.get("rule"));
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        let (family, table) = (text(chain, "family")?, text(chain, "table")?);
        let is_input = text(chain, "hook").as_deref() == Some("input");
        if !is_input || !["ip", "inet"].contains(&family.as_str()) || table.starts_with("see-") {
            continue;
        }
        let name = text(chain, "name")?;
        let same = |rule: &&Value, key: &str, wanted: &str| {
            rule.get(key).and_then(Value::as_str) == Some(wanted)
        };
        let in_table =
            rules().filter(|it| same(it, "family", &family) && same(it, "table", &table));
        let in_table: Vec<&Value> = in_table.collect();
        let last = in_table.iter().rfind(|it| same(it, "chain", &name));
        let drops = text(chain, "policy").as_deref() == Some("drop")
            || last.is_some_and(|last| is_refusal(last));
        if drops && !in_table.iter().any(|rule| may_accept(rule)) {
            return Some(format!(
                "the host's firewall may drop DHCP: the chain {name} of the table {family} {table} drops what it does \
                 not know, and accepts nothing for UDP port 67; try `nft insert rule {family} {table} {name} iifname \
                 \"virbr*\" udp dport 67 accept`"
            ));
        }
    }
    None
}

fn expressions(rule: &Value) -> &[Value] {
    let list = rule.get("expr").and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// Whether a rule drops or refuses everything that comes to it.
fn is_refusal(rule: &Value) -> bool {
    let all = expressions(rule);
    let has = |key: &str| all.iter().any(|it| it.get(key).is_some());
    !has("match") && !has("xt") && (has("drop") || has("reject"))
}

/// Whether a rule may let DHCP in: it accepts, and nothing in it is known to be against that.
fn may_accept(rule: &Value) -> bool {
    let all = expressions(rule);
    if !all.iter().any(|it| it.get("accept").is_some()) {
        return false;
    }
    all.iter().filter_map(|it| it.get("match")).all(|it| {
        let right = it.get("right").unwrap_or(&Value::Null);
        let protocol = it.pointer("/left/payload/protocol").and_then(Value::as_str);
        let key = ["/left/payload/field", "/left/meta/key", "/left/ct/key"]
            .iter()
            .find_map(|at| it.pointer(at)?.as_str())
            .unwrap_or_default();
        match key {
            "dport" => ["udp", "th"].contains(&protocol.unwrap_or_default()) && has_port(right),
            "l4proto" | "protocol" | "nexthdr" => names(right, &["udp", "ip"]),
            // Bridges of ours and of libvirt's have names that begin so.
            "iif" | "iifname" => right.as_str().is_none_or(|name| name.starts_with("virbr")),
            // A request belongs to no connection, and its sender has no address yet.
            "state" => names(right, &["new"]),
            "saddr" | "type" | "code" => false,
            _ => true,
        }
    })
}

/// Whether one of these is among the texts in a value.
fn names(value: &Value, wanted: &[&str]) -> bool {
    let any = |list: &Vec<Value>| list.iter().any(|it| names(it, wanted));
    match value {
        Value::String(text) => wanted.contains(&text.as_str()),
        Value::Array(list) => any(list),
        Value::Object(object) => object.get("set").is_some_and(|set| names(set, wanted)),
        _ => false,
    }
}

/// Whether the port of DHCP servers is a value, or in it.
fn has_port(value: &Value) -> bool {
    const PORT: u64 = 67;
    match value {
        Value::Number(port) => port.as_u64() == Some(PORT),
        Value::Array(list) => list.iter().any(has_port),
        Value::Object(object) => match object.get("range").and_then(Value::as_array) {
            Some(range) => {
                let bound = |at: usize| range.get(at).and_then(Value::as_u64);
                bound(0).is_some_and(|low| low <= PORT) && bound(1).is_some_and(|high| high >= PORT)
            }
            None => object.get("set").is_some_and(has_port),
        },
        // A named set, which may hold it.
        Value::String(text) => text.starts_with('@') || text == "bootps",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use see_core::ErrorKind;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_network_that_failed_for_flushed_chains_says_that_the_daemon_has_to_be_restarted() {
        let said = "internal error: Failed to apply firewall rules /usr/sbin/iptables -w --table filter --insert \
             LIBVIRT_INP --jump ACCEPT: iptables: No chain/target/match by that name.";
        let advice = |text: &'static str| {
            let error = explain(Error::new(ErrorKind::Hypervisor, text));
            error.advice_text().map(str::to_owned)
        };
        assert!(advice(said).unwrap().contains("systemctl restart libvirtd"));
        assert_eq!(advice("the network is already in use"), None);
    }

    fn chain(family: &str, policy: &str) -> Value {
        json!({ "chain": { "family": family, "table": "filter", "name": "input", "type": "filter",
            "hook": "input", "prio": 0, "policy": policy } })
    }

    fn rule(expressions: Value) -> Value {
        json!({ "rule": { "family": "inet", "table": "filter", "chain": "input", "expr": expressions } })
    }

    fn port(protocol: &str, right: Value) -> Value {
        json!({ "match": { "op": "==", "right": right,
            "left": { "payload": { "protocol": protocol, "field": "dport" } } } })
    }

    fn meta(key: &str, right: &str) -> Value {
        json!({ "match": { "op": "==", "right": right, "left": { "meta": { "key": key } } } })
    }

    #[test]
    fn a_firewall_that_lets_no_dhcp_in_is_named() {
        let accept = json!({ "accept": null });
        let established = json!({ "match": { "op": "in", "right": ["established", "related"],
            "left": { "ct": { "key": "state" } } } });
        let strict = [
            chain("inet", "drop"),
            rule(json!([established, accept])),
            rule(json!([meta("iifname", "lo"), accept])),
            rule(json!([port("tcp", json!(22)), accept])),
            rule(json!([port("udp", json!(53)), accept])),
        ];
        let found = drops_dhcp(&strict).unwrap();
        assert!(
            found.contains("the chain input of the table inet filter"),
            "{found}"
        );
        for opening in [
            json!([port("udp", json!(67)), accept]),
            json!([port("udp", json!({ "set": [53, 67] })), accept]),
            json!([port("udp", json!({ "range": [60, 70] })), accept]),
            json!([meta("iifname", "virbr*"), accept]),
            json!([{ "xt": null }, accept]),
            json!([accept]),
        ] {
            let mut objects = strict.to_vec();
            objects.push(rule(opening.clone()));
            assert_eq!(drops_dhcp(&objects), None, "{opening}");
        }
    }

    #[test]
    fn a_chain_that_accepts_all_or_is_ours_is_not_accused() {
        let drop = rule(json!([{ "counter": null }, { "drop": null }]));
        assert_eq!(drops_dhcp(&[chain("inet", "accept")]), None);
        assert_eq!(drops_dhcp(&[chain("ip6", "drop")]), None);
        assert!(drops_dhcp(&[chain("inet", "accept"), drop]).is_some());
        let ours = json!({ "chain": { "family": "inet", "table": "see-shared", "name": "input",
            "hook": "input", "policy": "drop" } });
        assert_eq!(drops_dhcp(&[ours]), None);
    }
}
