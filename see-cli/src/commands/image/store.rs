//! `seectl image ls|verify|rm|gc`: what lies in the store.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use see_core::{Error, ErrorKind, ImagePhase, ImageProgress, Result, StopToken};
use see_image_providers::cache::{Collected, Digest, Store, StoredImage, default_folder};
use serde_json::{Value, json};

use super::tell;
use crate::args::{ImageGcArguments, Output, RmArguments, StoreArguments, VerifyArguments};
use crate::commands::progress::Forwarder;
use crate::exit_code;
use crate::render::{Feed, Update, age, size};
use crate::signals::Signals;

/// How many digits of a digest are shown.
const SHORT: usize = 12;
/// How many digits name an image at the least.
const FEWEST: usize = 4;

/// Lists the images.
///
/// # Errors
/// Where the store cannot be read.
pub(super) async fn ls(arguments: &StoreArguments, feed: &Feed) -> Result<u8> {
    let mut images = match open(arguments).await? {
        Some(store) => blocking(move || store.list()).await?,
        None => Vec::new(),
    };
    images.reverse();
    if images.is_empty() && arguments.output == Output::Text {
        feed.send(Update::Note(String::from("no images"))).await;
    }
    for image in &images {
        let used = SystemTime::now().duration_since(image.used);
        let origin = image.origins.last().map_or("", String::as_str);
        let words = format!(
            "{}  {:>10}  {:<6}  used {} ago  {}  {origin}",
            short(&image.digest),
            size(image.size),
            image.format,
            age(used.unwrap_or_default()),
            match image.leases {
                0 => String::from("not in use"),
                leases => format!("in use by {leases}"),
            },
        );
        tell(feed, None, words, as_json(image)).await;
    }
    Ok(exit_code::OK)
}

/// Reads images anew and compares them with their digests.
///
/// # Errors
/// Where the store cannot be read or has no such image, and when it is stopped.
pub(super) async fn verify(
    arguments: &VerifyArguments,
    feed: &Feed,
    signals: &Signals,
) -> Result<u8> {
    let Some(store) = open(&arguments.store).await? else {
        return none(&arguments.images, feed).await;
    };
    let images = named(&store, &arguments.images, true).await?;
    let mut changed = 0;
    for image in &images {
        feed.send(Update::Working(format!("verify {}", short(&image.digest))))
            .await;
        let progress = ImageProgress::new();
        let forwarder = Forwarder::start(&progress, feed.clone());
        let verified = read(&store, image, progress, signals.stop().token()).await;
        forwarder.finish().await;
        let (is_good, words) = match &verified {
            Ok(()) => (true, String::from("as it was fetched")),
            Err(error) if error.kind() == ErrorKind::Stopped => return verified.map(|()| 0),
            Err(error) => (false, error.chain()),
        };
        changed += usize::from(!is_good);
        let object = json!({ "verified": {
            "digest": image.digest,
            "path": image.path,
            "is_good": is_good,
            "error": verified.err().map(|error| error.chain()),
        }});
        let words = format!("{}: {words}", short(&image.digest));
        tell(feed, is_good, words, object).await;
    }
    let result = json!({ "verified": images.len(), "changed": changed });
    feed.send(Update::Result(result)).await;
    Ok(match changed {
        0 => exit_code::OK,
        _ => exit_code::IMAGE_FAILED,
    })
}

/// There is no store yet, so nothing is wrong with its images.
async fn none(wanted: &[String], feed: &Feed) -> Result<u8> {
    if let Some(wanted) = wanted.first() {
        return Err(missing(wanted));
    }
    let result = json!({ "verified": 0, "changed": 0 });
    feed.send(Update::Result(result)).await;
    Ok(exit_code::OK)
}

async fn read(
    store: &Store,
    image: &StoredImage,
    progress: ImageProgress,
    stop: StopToken,
) -> Result<()> {
    let (store, digest, total) = (store.clone(), image.digest.clone(), Some(image.size));
    blocking(move || {
        progress.phase(ImagePhase::Verifying, total);
        store.verify(&digest, &mut |done| {
            progress.report(done, total);
            !stop.is_stopped()
        })
    })
    .await
}

/// Removes images.
///
/// # Errors
/// Where the store has no such image, an environment uses it, or the store cannot be written.
pub(super) async fn rm(arguments: &RmArguments, feed: &Feed) -> Result<u8> {
    let first = arguments.images.first().map_or("", String::as_str);
    let store = open(&arguments.store).await?;
    let store = store.ok_or_else(|| missing(first))?;
    let images = named(&store, &arguments.images, false).await?;
    for image in images {
        let (lent, digest, force) = (store.clone(), image.digest.clone(), arguments.force);
        blocking(move || match force {
            true => lent.remove_in_use(&digest),
            false => lent.remove(&digest),
        })
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::Exhausted => error.advice(
                "`seectl ls` lists environments, kept ones too; --force removes it all the same",
            ),
            _ => error,
        })?;
        let words = format!("{}: removed, {}", short(&image.digest), size(image.size));
        let object = json!({ "removed": { "digest": image.digest, "size": image.size } });
        tell(feed, true, words, object).await;
    }
    Ok(exit_code::OK)
}

/// Makes room.
///
/// # Errors
/// Where the store cannot be read or written.
pub(super) async fn gc(arguments: &ImageGcArguments, feed: &Feed) -> Result<u8> {
    let Some(store) = open(&arguments.store).await? else {
        feed.send(Update::Note(String::from("nothing to remove")))
            .await;
        return Ok(exit_code::OK);
    };
    let limit = arguments.max_size.map(u64::from);
    let partial = arguments.partial;
    let collected = blocking(move || {
        let broken_off = match partial {
            true => store.collect_partial()?,
            false => Collected::default(),
        };
        let mut collected = store.collect(limit)?;
        collected.partials += broken_off.partials;
        collected.partial_bytes += broken_off.partial_bytes;
        Ok(collected)
    })
    .await?;
    let words = format!(
        "removed {} images ({}) and {} broken-off downloads ({}); {} are left, {} of them in use",
        collected.images.len(),
        size(collected.image_bytes),
        collected.partials,
        size(collected.partial_bytes),
        size(collected.left),
        size(collected.in_use),
    );
    let object = json!({ "result": {
        "images": collected.images,
        "image_bytes": collected.image_bytes,
        "partials": collected.partials,
        "partial_bytes": collected.partial_bytes,
        "left": collected.left,
        "in_use": collected.in_use,
    }});
    let is_within = limit.is_none_or(|limit| collected.left <= limit);
    tell(feed, is_within, words, object).await;
    Ok(match is_within {
        true => exit_code::OK,
        false => exit_code::IMAGE_FAILED,
    })
}

/// The store; `None` where there is none yet.
async fn open(arguments: &StoreArguments) -> Result<Option<Store>> {
    let folder = match &arguments.store {
        Some(folder) => absolute(folder.clone())?,
        None => default_folder()?,
    };
    blocking(move || match folder.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        _ => Store::open(&folder).map(Some),
    })
    .await
}

fn missing(wanted: &str) -> Error {
    Error::new(ErrorKind::NotFound, "the store has no such image")
        .subject(wanted.escape_debug())
        .advice("`seectl image ls` lists what there is")
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io("there is no working folder", error))
}

/// The images that these beginnings of digests mean; without any all of them, where that is allowed.
async fn named(store: &Store, wanted: &[String], or_all: bool) -> Result<Vec<StoredImage>> {
    let store = store.clone();
    let images = blocking(move || store.list()).await?;
    if wanted.is_empty() && or_all {
        return Ok(images);
    }
    wanted
        .iter()
        .map(|text| {
            let begins = |image: &&StoredImage| {
                let digest = image.digest.to_string();
                let wanted = text.to_ascii_lowercase();
                digest.starts_with(&wanted) || image.digest.hex().starts_with(&wanted)
            };
            let digits = text.rsplit(':').next().unwrap_or_default().len();
            let mut found = images.iter().filter(begins);
            let wrong = |message: String| {
                Err(Error::new(ErrorKind::Configuration, message)
                    .subject(text.escape_debug())
                    .advice("`seectl image ls` lists what there is"))
            };
            match (found.next(), found.next()) {
                _ if digits < FEWEST => {
                    wrong(format!("expected at least {FEWEST} digits of a digest"))
                }
                (Some(image), None) => Ok(image.clone()),
                (Some(_), Some(_)) => wrong(String::from("several images begin like this")),
                (None, _) => Err(missing(text)),
            }
        })
        .collect()
}

fn short(digest: &Digest) -> String {
    let hex = digest.hex();
    let shown = hex.get(..SHORT).unwrap_or(&hex);
    format!("{}:{shown}", digest.algorithm().name())
}

fn as_json(image: &StoredImage) -> Value {
    let unix = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or(Duration::ZERO).as_secs_f64()
    };
    json!({
        "digest": image.digest,
        "path": image.path,
        "size": image.size,
        "format": image.format,
        "completed": unix(image.completed),
        "used": unix(image.used),
        "leases": image.leases,
        "origins": image.origins,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|failed| {
        Err(Error::new(ErrorKind::Internal, "work on the store panicked").caused_by(failed))
    })
}
