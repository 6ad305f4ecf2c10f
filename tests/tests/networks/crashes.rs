//! What a killed run leaves of networks, and that collecting it harms nobody.

use std::time::Duration;

use see_tests::{finish, spawn, until};
use serde_json::json;

use crate::support::{RUN, Site, allocated, staying};

#[test]
fn walls_seats_and_networks_of_killed_runs_are_collected_and_others_stay() {
    let site = Site::new();
    let foreign = see_core::Identifier::random();
    // Named as ours are, without our label.
    let foreign = format!("see-{foreign}");
    site.daemon.told("nft", &["add", "table", "inet", &foreign]);
    let start = |name: &str, mode: &str| {
        let run_file = site.run_file(name, json!({ "mode": mode, "verify": false }), staying());
        let mut run = site.start(&run_file, "true");
        allocated(&mut run);
        run
    };
    let survivor = start("survivor.json", "shared");
    let before = site.traces();
    for mode in ["shared", "isolated"] {
        let dead = start("dead.json", mode);
        assert!(site.traces().len() > before.len());
        dead.kill();
        let left = site.traces();
        assert!(left.len() > before.len(), "{left:?}");
        let mut gc = site.home.seectl();
        gc.args(["gc", "--output", "json"]);
        let outcome = finish(spawn(&mut site.daemon.beside(gc)), RUN);
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        assert_eq!(site.traces(), before, "{outcome:#?}");
    }
    // The last on the shared network takes it away, also when it is dead.
    survivor.kill();
    let outcome = finish(spawn(site.seectl().arg("gc")), RUN);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    until("only the foreign table", Duration::from_secs(10), || {
        site.traces() == [format!("table inet {foreign}")]
    });
}
