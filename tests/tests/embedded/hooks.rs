//! Hooks that cannot be attached.

use std::path::PathBuf;

use async_trait::async_trait;
use see_core::{Context, Error, ErrorKind, Hook, Identifier};
use see_tests::{Home, Lab, assert_nothing_remains};
use serde_json::json;

use crate::support::*;

/// A hook that cannot be attached.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Hook for Broken {
    const NAME: &'static str = "broken";
    type Configuration = see_core::config::Configuration;

    async fn attach(_: Self::Configuration, _: &Context) -> see_core::Result<Self> {
        Err(Error::new(ErrorKind::Hook, "the tool it needs is missing"))
    }
}

fn with_a_broken_hook(home: &Home, required: bool) -> PathBuf {
    home.write(
        "run.json",
        json!({
            "version": 1,
            "context": Home::embedded(),
            "hooks": { "hooks": [{ "name": "commands" }, { "name": "broken", "required": required }] },
        })
        .to_string(),
    )
}

#[test]
fn a_required_hook_that_cannot_be_attached_undoes_the_sandbox() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::with(&home, |registries| registries.hooks.add::<Broken>());
        let identifier = Identifier::random();
        let error = lab
            .allocate_as(&with_a_broken_hook(&home, true), identifier)
            .await
            .expect_err("the hook is required");
        assert!(
            error.chain().contains("the tool it needs is missing"),
            "{error}"
        );
        assert!(error.chain().contains("broken"), "{error}");
        lab.finish().await;
        assert_eq!(home.recorded(), Vec::<String>::new());
        assert_nothing_remains(&identifier.to_string());
    });
}

#[test]
fn a_hook_that_is_not_required_may_fail() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::with(&home, |registries| registries.hooks.add::<Broken>());
        let watched = lab
            .allocate(&with_a_broken_hook(&home, false))
            .await
            .expect("the hook is not required");
        watched.end().await;
        lab.finish().await;
    });
}
