//! What on the daemon is somebody else's.

use std::net::Ipv4Addr;

use see_tests::{Home, daemon_objects};
use serde_json::json;

use crate::{
    RUN, SANDBOX_FAILED, address, assert_clean, context, home, networked, run, text, virsh,
};

/// A domain, a network and a storage pool that are somebody else's; they go with the value.
struct Foreign {
    name: String,
}

impl Foreign {
    fn make(home: &Home, name: &str, subnet: &str) -> Self {
        let foreign = Self {
            name: name.to_owned(),
        };
        let define = |kind: &str, xml: String| {
            let file = home.write(&format!("{kind}.xml"), xml);
            let file = file.to_str().expect("a path of a test is text");
            virsh([kind, file]).expect("it can be defined");
        };
        define(
            "define",
            format!(
                "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>\
                 <os><type arch='x86_64'>hvm</type></os></domain>"
            ),
        );
        define(
            "net-create",
            format!(
                "<network><name>{name}</name><bridge name='virbr-{}'/>\
                 <ip address='{subnet}' prefix='25'/></network>",
                &name[..8]
            ),
        );
        let pool = home.path("foreign-pool");
        std::fs::create_dir(&pool).expect("the home is writable");
        define(
            "pool-create",
            format!(
                "<pool type='dir'><name>{name}</name><target><path>{}</path></target></pool>",
                pool.display()
            ),
        );
        foreign
    }

    /// All that can be seen of them.
    fn seen(&self) -> Vec<String> {
        [
            "dumpxml",
            "domstate",
            "net-dumpxml",
            "net-info",
            "pool-dumpxml",
        ]
        .map(|kind| virsh([kind, &self.name]).expect("it is there"))
        .to_vec()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        for kind in ["undefine", "net-destroy", "pool-destroy"] {
            // After a failed test one of them may be missing.
            let _ = virsh([kind, &self.name]);
        }
    }
}

#[test]
fn what_is_somebody_elses_is_left_alone_and_its_subnet_too() {
    let home = home();
    // Named as ours are, and in the only network in which a subnet is looked for.
    let name = see_core::Identifier::random().to_string();
    let foreign = Foreign::make(&home, &name, "10.91.6.1");
    let before = foreign.seen();
    let context = context(
        &home,
        "guest.qcow2",
        json!({ "network": { "dynamic_address": {
            "ipv4": "10.91.6.0", "prefix": 24, "subnet_prefix": 25 } } }),
    );
    let outcome = run(&home, &networked(&home, &context), ["--command", "true"]);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let address = address(&outcome);
    assert!(address >= Ipv4Addr::new(10, 91, 6, 128), "{address}");
    assert_clean(&home, &outcome);
    let collected = home.run(["gc"], RUN);
    assert_eq!(collected.code, Some(0), "{collected:#?}");
    assert_eq!(foreign.seen(), before);
    drop(foreign);
    assert_eq!(daemon_objects(&name), Vec::<String>::new());
}

#[test]
fn a_subnet_that_is_not_free_stops_the_run_before_anything_is_made() {
    let home = home();
    let name = see_core::Identifier::random().to_string();
    let foreign = Foreign::make(&home, &name, "10.91.7.1");
    let context = context(
        &home,
        "guest.qcow2",
        json!({ "network": { "dynamic_address": {
            "ipv4": "10.91.7.0", "prefix": 25, "subnet_prefix": 26 } } }),
    );
    let outcome = run(&home, &networked(&home, &context), ["--command", "true"]);
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let failure = text(&outcome, "/failure");
    assert!(failure.contains("is in use"), "{failure}");
    assert_clean(&home, &outcome);
    drop(foreign);
}
