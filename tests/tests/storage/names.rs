//! What already has the name of a sandbox's folder.

use see_core::{ErrorKind, Identifier};
use see_tests::{Footprint, Home, Lab, assert_nothing_remains};
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
