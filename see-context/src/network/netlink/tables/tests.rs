//! With the kernel's own nftables, in a network namespace of the test's own.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::network::nft;
use crate::network::nft::UNMARKED;
use crate::network::rules::{self, GuestPort};

/// Set for the test that runs in a namespace.
const INSIDE: &str = "SEE_TEST_INSIDE";
/// The longest wait for a word of the kernel's.
const SOON: Duration = Duration::from_secs(60);
const TABLE_NAME: &str = "see-test";
const LABEL: &str = "see:test";

/// Whether this is the test in its namespace; elsewhere it is run there.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let name = format!("network::netlink::tables::tests::{test}");
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--net"]).arg(own);
    unshare
        .args(["--exact", &name, "--nocapture"])
        .env(INSIDE, "1");
    let output = unshare.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text} {output:?}"
    );
    false
}

fn seat(last: u8, agent: Option<u16>) -> Seat {
    Seat {
        address: [10, 0, 0, last].into(),
        agent,
        label: format!("see:{last}"),
    }
}

/// Both tables of a guest.
async fn raise() {
    let port = GuestPort {
        device: "see0".to_owned(),
        mac: "52:54:00:00:00:02".to_owned(),
        address: [10, 0, 0, 2].into(),
        gateway: [10, 0, 0, 1].into(),
        agent: Some(8020),
    };
    let seat = seat(2, port.agent);
    let mut commands = rules::floor(TABLE_NAME, LABEL, "virbr-0", port.gateway, &seat);
    commands.extend(rules::wall(TABLE_NAME, LABEL, &port));
    nft::apply(commands, UNMARKED).await.unwrap();
}

async fn read(family: Family) -> Table {
    table(family, TABLE_NAME).await.unwrap().unwrap()
}

fn nft(words: &str) {
    let status = Command::new("nft").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "{words}");
}

#[tokio::test]
async fn a_table_is_read_without_nft_and_every_change_of_it_shows() {
    if !is_inside("a_table_is_read_without_nft_and_every_change_of_it_shows") {
        return;
    }
    assert_eq!(table(Family::Inet, TABLE_NAME).await.unwrap(), None);
    raise().await;
    let (wall, floor) = (read(Family::Bridge).await, read(Family::Inet).await);
    assert!(wall.is_labelled(LABEL) && floor.is_labelled(LABEL));
    assert!(!wall.is_labelled("see:other"));
    assert_eq!(floor.seats, [seat(2, Some(8020))]);
    assert_eq!(wall.difference(&read(Family::Bridge).await), None);
    assert!(names(Family::Inet).await.unwrap().contains(TABLE_NAME));

    // Who comes and goes changes the seats alone.
    let other = seat(7, None);
    nft::apply(vec![rules::take_seat(TABLE_NAME, &other)], UNMARKED)
        .await
        .unwrap();
    let now = read(Family::Inet).await;
    assert_eq!(now.seats, [seat(2, Some(8020)), other.clone()]);
    assert_eq!(floor.difference(&now), None);
    nft::apply(vec![rules::leave_seat(TABLE_NAME, &other)], UNMARKED)
        .await
        .unwrap();
    assert_eq!(read(Family::Inet).await, floor);

    for (change, said) in [
        (
            "insert rule bridge see-test out accept",
            "new is a rule in the chain out",
        ),
        (
            "add rule bridge see-test into accept",
            "new is a rule in the chain into",
        ),
        ("add chain bridge see-test more", "new is the chain more"),
        (
            "flush chain bridge see-test out",
            "missing is a rule in the chain out",
        ),
        (
            "add table bridge see-test { flags dormant; }",
            "the table see-test itself",
        ),
    ] {
        raise().await;
        let before = read(Family::Bridge).await;
        nft(change);
        let found = before.difference(&read(Family::Bridge).await).unwrap();
        assert!(found.contains(said), "{change}: {found}");
    }
    nft::apply(rules::remove(Family::Inet, TABLE_NAME), UNMARKED)
        .await
        .unwrap();
    assert_eq!(table(Family::Inet, TABLE_NAME).await.unwrap(), None);
    // Also where it is gone already.
    nft::apply(rules::remove(Family::Inet, TABLE_NAME), UNMARKED)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_or_a_flush_is_heard_of_and_so_is_that_too_much_changed() {
    if !is_inside("a_change_or_a_flush_is_heard_of_and_so_is_that_too_much_changed") {
        return;
    }
    raise().await;
    let changes = Changes::listen().unwrap();
    for change in ["insert rule bridge see-test out accept", "flush ruleset"] {
        nft(change);
        let heard = tokio::time::timeout(SOON, changes.of(&[TABLE_NAME])).await;
        heard
            .unwrap_or_else(|_| panic!("{change} is not heard of"))
            .unwrap();
    }
    // More than the kernel keeps for somebody who does not listen.
    let rule = |_| {
        json!({ "add": { "rule": { "family": "inet", "table": "other", "chain": "c",
        "expr": [{ "accept": null }] } } })
    };
    let made = vec![
        json!({ "add": { "table": { "family": "inet", "name": "other" } } }),
        json!({ "add": { "chain": { "family": "inet", "table": "other", "name": "c" } } }),
    ];
    nft::apply(made, UNMARKED).await.unwrap();
    for _ in 0..20 {
        let rules: Vec<Value> = (0..500).map(rule).collect();
        nft::apply(rules, UNMARKED).await.unwrap();
    }
    let heard = tokio::time::timeout(SOON, changes.of(&["never-changed"])).await;
    heard.expect("the overrun is heard of").unwrap();
}

#[test]
fn notifications_of_other_tables_are_no_concern() {
    let about = |name: &str| {
        let message = Message::request(NEW_TABLE, Family::Inet, &[(TABLE, name)]);
        let payload = NetlinkPayload::InnerMessage(message);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    };
    assert!(concern(&about(TABLE_NAME), &["a", TABLE_NAME]));
    assert!(!concern(&about("see-test-2"), &["a", TABLE_NAME]));
    assert!(concern(&[about("b"), about("a")].concat(), &["a"]));
    assert!(
        concern(&about("b")[..7], &["a"]),
        "what cannot be read may be"
    );
}

#[test]
fn what_is_cut_off_ends_what_is_read() {
    assert_eq!(attributes(&[0; 3]).count(), 0);
    assert_eq!(attributes(&[200, 0, 1, 0, 10, 0, 0, 1]).count(), 0);
    assert_eq!(comment(&[0, 3, b'a', b'b', 0]), Some("ab"));
    assert_eq!(comment(&[0, 9, b'a', b'b', 0]), None);
    assert_eq!(comment(&[1, 1, 7, 0, 2, b'a', 0]), Some("a"));
}
