//! Events that come a set time after the hook was attached.

use async_trait::async_trait;
use see_core::config::DurationValue;
use see_core::{Context, Event, Hook, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Posts each configured event once, that much later than the hook was attached.
///
/// The clock starts when the environment is allocated, before the machine is powered on, as in
/// python-see. An event that becomes due while handlers run comes right after them.
#[derive(Debug)]
pub struct TimersHook;

/// The configuration of `timers`.
#[derive(Debug, Clone, Deserialize)]
pub struct TimersConfiguration {
    /// The events, and how long after attaching each is posted: `{"snapshots_capture": "90s"}`; a
    /// bare number is seconds. At least one.
    pub timers: BTreeMap<String, DurationValue>,
}

#[async_trait]
impl Hook for TimersHook {
    const NAME: &'static str = "timers";
    const ALIASES: &'static [&'static str] = &["plugins.timers.TimersHook"];
    type Configuration = TimersConfiguration;

    async fn attach(configuration: TimersConfiguration, context: &Context) -> Result<Self> {
        for (name, after) in configuration.timers {
            let timer = context.clone();
            context.spawn(async move {
                let due = timer
                    .stop_token()
                    .or("timer", tokio::time::sleep(after.into()))
                    .await;
                if due.is_ok()
                    && let Err(error) = timer.post(Event::new(name.clone()))
                {
                    tracing::warn!(event = %name, "a timer's event was not taken: {error}");
                }
            });
        }
        Ok(Self)
    }
}
