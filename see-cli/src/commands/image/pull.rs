//! `seectl image pull`: gets images before the runs that need them.

use std::time::{Duration, Instant};

use see_core::config::{Configuration, Substitutions};
use see_core::ledger::{Ledger, Record};
use see_core::{
    Error, ErrorKind, Identifier, ImageProgress, ImageRequest, ImageSource, Registries, Result,
};
use serde_json::json;

use super::tell;
use crate::args::PullArguments;
use crate::commands::progress::Forwarder;
use crate::exit_code;
use crate::render::{Feed, Update, seconds, size};
use crate::signals::Signals;

/// How long what a provider made on the host for the moment may take to go.
const END: Duration = Duration::from_secs(30);

/// Gets the images, and returns the exit code.
///
/// # Errors
/// What is wrong with the arguments or the run file, and what a provider reports.
pub(super) async fn pull(
    arguments: &PullArguments,
    registries: &Registries,
    feed: &Feed,
    signals: &Signals,
) -> Result<u8> {
    let stop = signals.stop().token();
    let sources = stop.or("check", sources(arguments, registries)).await??;
    let ledger = Ledger::open(Ledger::default_root()?).await?;
    let mut images = Vec::new();
    for source in &sources {
        // Each in a record of its own, which ends with it: nobody uses the image yet.
        let record = ledger
            .begin(
                Identifier::random(),
                format!("image pull {}", source.describe()),
            )
            .await?;
        let got = one(source, &record, feed, signals).await;
        let ended = end(&record, registries).await;
        images.push(got?);
        ended?;
    }
    feed.send(Update::Result(json!({ "images": images }))).await;
    Ok(exit_code::OK)
}

async fn one(
    source: &ImageSource,
    record: &Record,
    feed: &Feed,
    signals: &Signals,
) -> Result<serde_json::Value> {
    let described = source.describe();
    let begin = Instant::now();
    feed.send(Update::Working(format!("pull {described}")))
        .await;
    let progress = ImageProgress::new();
    let forwarder = Forwarder::start(&progress, feed.clone());
    let stop = signals.stop().token();
    let request = ImageRequest::new(record, &stop).with_progress(progress);
    let got = source.image(&request).await;
    forwarder.finish().await;
    let path = got?.path;
    let length = std::fs::metadata(&path).map_or(0, |found| found.len());
    let took = begin.elapsed().as_secs_f64();
    let object = json!({
        "image": described,
        "provider": source.provider(),
        "path": path,
        "size": length,
        "seconds": took,
    });
    let words = format!(
        "{described}: {} ({}, {})",
        path.display(),
        size(length),
        seconds(took)
    );
    tell(feed, true, words, json!({ "pulled": object })).await;
    Ok(object)
}

/// Removes what the provider made on the host for the moment, and the lease of the image.
async fn end(record: &Record, registries: &Registries) -> Result<()> {
    let _ = record.collect(&registries.collectors, END).await?;
    let left = record.close().await?;
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Io,
        format!("{} resources could not be removed", left.len()),
    )
    .advice("they are in the ledger: `seectl gc` collects them"))
}

/// What the command line asks for.
async fn sources(arguments: &PullArguments, registries: &Registries) -> Result<Vec<ImageSource>> {
    let substitutions = Substitutions::default();
    if let Some(provider) = &arguments.provider {
        let mut section = json!({ "provider": provider });
        if let Some(name) = &arguments.name {
            section["name"] = json!(name);
        }
        let mut section = Configuration::from_json(section);
        for assignment in &arguments.set {
            section.set_assignment(&format!("provider_configuration.{assignment}"))?;
        }
        let section = section.substitute(&substitutions)?;
        return Ok(vec![registries.images.prepare(&section)?]);
    }
    let Some(file) = &arguments.run_file else {
        return Ok(Vec::new());
    };
    let mut run = Configuration::from_file(file)?;
    for assignment in &arguments.set {
        run.set_assignment(assignment)?;
    }
    let Some(context) = run.get("context") else {
        return Err(Error::configuration(
            run.place(),
            "expected a run file, found no `context`",
        ));
    };
    let context = context.substitute(&substitutions)?;
    let images = &registries.images;
    registries.backends.images(&context, images).await
}
