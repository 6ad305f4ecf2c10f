//! `seectl image`: the images that were fetched, and those that will be needed.

mod pull;
mod store;

use std::io::{self, Write as _};

use indicatif::MultiProgress;
use see_core::{ErrorKind, ErrorReport, Registries, Result};

use crate::args::{ImageArguments, ImageCommand, Output};
use crate::exit_code;
use crate::render::{Feed, Screen, Update, failure};
use crate::signals::Signals;

/// Does it, shows what happens, and returns the exit code.
///
/// # Errors
/// Where nothing can be shown or heard.
pub(crate) async fn image(
    arguments: &ImageArguments,
    registries: &Registries,
    progress: MultiProgress,
) -> Result<u8> {
    let (screen, feed) = Screen::start(output(&arguments.command), false, progress)?;
    let notes = feed.clone();
    let signals = Signals::listen(move |name| {
        notes.offer(Update::Interrupted(format!(
            "{name}: ended in order; once more to leave at once"
        )));
    })?;
    let done = match &arguments.command {
        ImageCommand::Ls(ls) => store::ls(ls, &feed).await,
        ImageCommand::Pull(pull) => pull::pull(pull, registries, &feed, &signals).await,
        ImageCommand::Verify(verify) => store::verify(verify, &feed, &signals).await,
        ImageCommand::Rm(rm) => store::rm(rm, &feed).await,
        ImageCommand::Gc(gc) => store::gc(gc, &feed).await,
    };
    let code = match (done, signals.exit_code()) {
        (Ok(code), _) => code,
        // Whoever interrupts knows why nothing came of it.
        (Err(error), Some(code)) if error.kind() == ErrorKind::Stopped => code,
        (Err(error), _) => {
            let told = failure(&error);
            feed.send(Update::Failed(ErrorReport::of(&error))).await;
            // There is nobody to tell when stderr is gone.
            let _ = write!(io::stderr(), "{told}");
            match error.kind() {
                ErrorKind::Configuration => exit_code::CONFIGURATION,
                ErrorKind::PermissionDenied => exit_code::MISSING_RIGHTS,
                _ => exit_code::IMAGE_FAILED,
            }
        }
    };
    signals.silence();
    drop(feed);
    screen.finish().await;
    Ok(code)
}

fn output(command: &ImageCommand) -> Output {
    match command {
        ImageCommand::Pull(pull) => pull.output,
        ImageCommand::Ls(ls) => ls.output,
        ImageCommand::Verify(verify) => verify.store.output,
        ImageCommand::Rm(rm) => rm.store.output,
        ImageCommand::Gc(gc) => gc.store.output,
    }
}

/// One thing that was done: a line for people, an object for programs.
async fn tell(
    feed: &Feed,
    is_good: impl Into<Option<bool>>,
    words: String,
    json: serde_json::Value,
) {
    feed.send(Update::Told {
        is_good: is_good.into(),
        words,
        json,
    })
    .await;
}
