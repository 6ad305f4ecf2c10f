//! Objects of a daemon that others put in a dead environment's place, or into what it left.

use see_tests::{Live, emulator, until};
use serde_json::Value;

use crate::arena::{Arena, Kind, PATIENCE};
use crate::decoys::{defined, domain, network, pool, virsh};
use crate::instants::At;
use crate::volley::{Cut, fire, identifier_of};

#[test]
fn objects_under_a_dead_environments_names_are_refused_without_its_label() {
    let arena = Arena::new(Kind::System);
    let daemon = arena.daemon().expect("it has a daemon");
    // Everything is written down, and nothing of the daemon's is made.
    let whole = arena.usual(1);
    let (net, steps) = &whole.steps[0];
    let cut = Cut {
        at: At::Line(steps[1]),
        ..Cut::never("run.json", *net)
    };
    let victim = fire(&arena, &[cut]).remove(0);
    let name = &victim.identifier;
    assert_eq!(
        daemon.objects(name),
        Vec::<String>::new(),
        "it came too far"
    );
    defined(&arena, daemon, "define", &domain(name));
    defined(&arena, daemon, "net-define", &network(name));
    defined(&arena, daemon, "pool-define", &pool(name));

    let gone = arena.collect();
    assert_eq!(gone.code, Some(6), "{gone:#?}");
    assert_eq!(daemon.objects(name).len(), 3, "{gone:#?}");
    let listed = gone.result();
    let refused = |resource: &&Value| resource["outcome"] == "refused";
    let resources = listed["resources"].as_array().expect("resources");
    assert_eq!(resources.iter().filter(refused).count(), 3, "{gone:#?}");

    for undefine in ["undefine", "net-undefine", "pool-undefine"] {
        let output = virsh(daemon, &[undefine, name]).output();
        assert!(output.expect("virsh is installed").status.success());
    }
    let gone = arena.collect();
    assert_eq!(gone.code, Some(0), "{gone:#?}");
    assert_eq!(arena.left_of(&[name]), Vec::<String>::new());
}

#[test]
fn a_domain_is_collected_with_its_snapshots_and_its_saved_state() {
    let arena = Arena::new(Kind::System);
    let daemon = arena.daemon().expect("it has a daemon");
    let mut live = Live::start(&mut arena.run("plain.json"));
    let identifier = identifier_of(&mut live);
    until("the machine", PATIENCE, || {
        emulator(&identifier).is_some() || !live.runs()
    });
    let succeeds = |words: &[&str]| {
        let output = virsh(daemon, words).output().expect("virsh is installed");
        assert!(output.status.success(), "{words:?}: {output:?}");
    };
    live.wait_for("machine that runs", PATIENCE, |line| {
        line["event"] == "step_finished" && line["attributes"]["step"] == "poweron"
    })
    .expect("it runs");
    succeeds(&["snapshot-create-as", &identifier, "before"]);
    drop(live.kill());
    succeeds(&["managedsave", &identifier]);

    let gone = arena.collect();
    assert_eq!(gone.code, Some(0), "{gone:#?}");
    assert_eq!(arena.left_of(&[&identifier]), Vec::<String>::new());
}
