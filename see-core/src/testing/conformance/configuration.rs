//! Malformed configurations.

use std::sync::Arc;

use serde_json::{Value, json};

use super::bench::Bench;
use crate::ErrorKind;
use crate::config::{Configuration, HooksSection};
use crate::testing::report::{Outcome, Stumble, ensure};

/// A key that no backend has.
const UNKNOWN: &str = "no-backend-has-this-key";

pub(super) async fn refused(bench: Arc<Bench>) -> Outcome {
    // The right one is taken, or nothing below would mean anything.
    bench.prepared().await?;
    let right = bench.candidate.context();
    let Value::Object(keys) = &right else {
        return Err(Stumble::Failed("the context is no object".to_owned()));
    };
    let mut wrong = vec![(
        format!("the key {UNKNOWN}"),
        with(&right, UNKNOWN, json!(1)),
    )];
    for (key, value) in keys {
        let odd = match value {
            Value::Array(_) => json!({ UNKNOWN: 1 }),
            _ => json!([[UNKNOWN]]),
        };
        wrong.push((format!("{odd} as {key}"), with(&right, key, odd)));
    }
    let own = bench.candidate.malformed();
    wrong.extend(own.into_iter().map(|json| (json.to_string(), json)));
    let tried = wrong.len();
    for (what, json) in wrong {
        let context = Configuration::from_json(json);
        let hooks = HooksSection::default();
        let prepare = bench.host.prepare(&context, &hooks);
        let Err(error) = bench.within("prepare", prepare).await? else {
            return Err(Stumble::Failed(format!("{what} was taken")));
        };
        ensure(error.kind() == ErrorKind::Configuration, || {
            format!("{what} is a mistake in the configuration, but the error is {error:?}")
        })?;
        ensure(error.place().is_some(), || {
            format!("{what}: the error names no place: {error}")
        })?;
    }
    Ok(format!("{tried} mistakes"))
}

fn with(context: &Value, key: &str, value: Value) -> Value {
    let mut context = context.clone();
    context[key] = value;
    context
}
