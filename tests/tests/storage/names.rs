//! What already has the name of a sandbox, or of its folder.

use see_core::{ErrorKind, Identifier};
use see_tests::{Footprint, Home, Lab, assert_nothing_remains, daemon_objects};
use serde_json::json;

use crate::support::*;

#[test]
fn a_folder_that_has_the_name_of_a_sandbox_is_refused_and_what_lies_in_it_stays() {
    runtime().block_on(async {
        let home = Home::new();
        let identifier = Identifier::random();
        let folder = home.path(&format!("pool/{identifier}"));
        std::fs::create_dir_all(&folder).expect("the home is writable");
        std::fs::write(folder.join("0.qcow2"), "somebody's").expect("the home is writable");
        let mut context = Home::embedded();
        context["disk"]["clone"] = json!({ "storage_pool_path": "pool" });
        write_run(&home, &context, None);
        let before = Footprint::of(&home.path("pool"));
        let lab = Lab::new(&home);
        let run = home.path("run.json");
        let error = lab
            .allocate_as(&run, identifier)
            .await
            .expect_err("it is not ours");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        lab.finish().await;
        before.assert_unchanged(&home.path("pool"));
        std::fs::remove_dir_all(&folder).expect("the test's own folder");
        assert_nothing_remains(&identifier.to_string());
    });
}

#[test]
fn a_domain_that_has_the_name_and_the_uuid_of_a_sandbox_is_refused_and_stays_as_it_is() {
    runtime().block_on(async {
        let home = Home::passable();
        home.write("base.img", vec![0; 1 << 20]);
        let context = json!({
            "hypervisor": "qemu:///system",
            "memory": "64MiB",
            "disk": { "image": "base.img" },
        });
        write_run(&home, &context, None);
        let identifier = Identifier::random();
        let name = identifier.to_string();
        // libvirt replaces the definition of a domain of the same name and UUID.
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><uuid>{name}</uuid><title>a stranger</title>\
             <memory>65536</memory><os><type arch='x86_64'>hvm</type></os></domain>"
        );
        let file = home.write("stranger.xml", xml);
        virsh(&["define", &file.to_string_lossy()]);
        let before = virsh(&["dumpxml", &name]);

        let lab = Lab::new(&home);
        let error = lab
            .allocate_as(&home.path("run.json"), identifier)
            .await
            .expect_err("it is not ours");
        lab.finish().await;
        let collected = home.run(["gc"], RUN);
        let after = virsh(&["dumpxml", &name]);
        virsh(&["undefine", &name]);
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert_eq!(collected.code, Some(0), "{collected:#?}");
        assert_eq!(after, before);
        assert_eq!(daemon_objects(&name), Vec::<String>::new());
        assert_nothing_remains(&name);
    });
}
