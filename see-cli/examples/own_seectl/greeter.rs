//! A hook that greets each guest in the log.

use async_trait::async_trait;
use see_core::{Context, Hook, Result};

/// Writes a greeting when the guest is ready.
#[derive(Debug)]
pub(crate) struct Greeter;

#[async_trait]
impl Hook for Greeter {
    const NAME: &'static str = "greeter";
    type Configuration = ();

    async fn attach(_configuration: (), context: &Context) -> Result<Self> {
        let posting = context.clone();
        context.subscribe("ready", move |_| {
            let _ = posting.post("greeted");
        });
        Ok(Self)
    }
}
