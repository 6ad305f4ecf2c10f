//! Objects of a daemon that others put in a dead environment's place, or into what it left.

use serde_json::Value;

use crate::arena::{Arena, Kind};
use crate::decoys::{defined, domain, network, pool, virsh};
use crate::instants::At;
use crate::volley::{Cut, fire};

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

    let refused = |left: usize| -> Vec<String> {
        let gone = arena.collect();
        assert_eq!(gone.code, Some(6), "{gone:#?}");
        assert_eq!(daemon.objects(name).len(), left, "{gone:#?}");
        let listed = gone.result();
        let resources = listed["resources"].as_array().expect("resources");
        let refused = resources.iter().filter(|it| it["outcome"] == "refused");
        let kind = |it: &Value| it["resource"]["kind"].as_str().map(str::to_owned);
        refused.filter_map(kind).collect()
    };
    let undefine = |commands: &[&str]| {
        for command in commands {
            let output = virsh(daemon, &[command, name]).output();
            assert!(output.expect("virsh is installed").status.success());
        }
    };

    // The others wait, since a machine may use them.
    assert_eq!(refused(3), ["libvirt.domain"]);
    undefine(&["undefine"]);
    assert_eq!(refused(2), ["libvirt.network", "libvirt.pool"]);
    undefine(&["net-undefine", "pool-undefine"]);
    let gone = arena.collect();
    assert_eq!(gone.code, Some(0), "{gone:#?}");
    assert_eq!(arena.left_of(&[name]), Vec::<String>::new());
}
