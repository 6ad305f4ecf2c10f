//! What a provider says of itself: never a secret that it was given.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::bench::{Bench, Way};
use super::checks::not_applicable;
use super::content;
use crate::sync::lock;
use crate::testing::report::{Outcome, Stumble, ensure};

pub(super) async fn kept(bench: Arc<Bench>) -> Outcome {
    let secrets = bench.candidate.secrets();
    if secrets.is_empty() {
        return Err(not_applicable("its sections hold none"));
    }
    for secret in &secrets {
        let section = bench.candidate.section("conformance-secret").to_string();
        ensure(section.contains(secret.as_str()), || {
            "the section that the candidate gives holds none of its secrets".to_owned()
        })?;
    }
    let log = Log::default();
    let (lent, heard) = (Arc::clone(&bench), log.clone());
    // On a thread of its own, whose log is ours alone, at every level.
    let listening = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Stumble::Failed(format!("no runtime: {error}")))?;
        tracing::subscriber::with_default(heard, || runtime.block_on(said(&lent)))
    });
    let joined = tokio::task::spawn_blocking(move || listening.join()).await;
    let mut said = match joined {
        Ok(Ok(said)) => said?,
        _ => return Err(Stumble::Failed("the ask panicked".to_owned())),
    };
    let lines = log.lines();
    let logged = lines.len();
    said.extend(lines);
    for (number, secret) in secrets.iter().enumerate() {
        if let Some(line) = said.iter().find(|line| line.contains(secret.as_str())) {
            let hidden = line.replace(secret.as_str(), "<the secret>");
            return Err(Stumble::Failed(format!(
                "secret {number} is told: {hidden}"
            )));
        }
    }
    Ok(format!("{} secrets, {logged} lines of log", secrets.len()))
}

/// Everything that the provider says of itself, when all goes well and when it does not.
async fn said(bench: &Bench) -> Outcome<Vec<String>> {
    let name = "conformance-secret";
    let mut said = Vec::new();
    bench.candidate.put(name, &content(12, 50_000)).await?;
    let source = bench.source(name)?;
    said.push(format!("{source:?}"));
    said.push(source.describe());
    ask(bench, name, "whole", &mut said).await?;
    bench.candidate.remove(name).await?;
    ask(bench, name, "missing", &mut said).await?;
    bench.candidate.put(name, &content(13, 60_000)).await?;
    if let Some(spoilt) = bench.candidate.spoil(name).await {
        spoilt?;
        ask(bench, name, "spoiled", &mut said).await?;
        bench.candidate.heal().await?;
    }
    if let Some(unplugged) = bench.candidate.unplug().await {
        unplugged?;
        ask(bench, name, "unreachable", &mut said).await?;
        bench.candidate.heal().await?;
    }
    Ok(said)
}

async fn ask(bench: &Bench, name: &str, what: &str, said: &mut Vec<String>) -> Outcome<()> {
    let ask = bench.ask(name, Way::default()).await?;
    bench.settle(&ask).await?;
    said.push(match &ask.outcome {
        Ok(image) => format!("{what}: {image:?}"),
        Err(error) => format!("{what}: {error:?} {error:#?} {}", error.chain()),
    });
    Ok(())
}

/// Everything that is logged, in lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        lock(&self.0).clone()
    }

    fn write(&self, target: &str, fields: impl FnOnce(&mut Line)) {
        let mut line = Line(target.to_owned());
        fields(&mut line);
        lock(&self.0).push(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text fails only where the value's own form does.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.write(span.metadata().target(), |line| span.record(line));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        self.write("", |line| values.record(line));
    }

    fn event(&self, event: &Event<'_>) {
        self.write(event.metadata().target(), |line| event.record(line));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
