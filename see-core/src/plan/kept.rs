//! What is kept of a machine that failed, which goes with it: its screen, and the hypervisor's log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::folder;
use crate::{Environment, Error, Result};

/// The file in the results folder with the end of what the hypervisor wrote about a machine that failed.
const HYPERVISOR_LOG: &str = "hypervisor.log";
/// How much of it is kept, in bytes.
const MOST_OF_A_LOG: u64 = 256 << 10;
/// How long reading it, or the picture of a guest that does not answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps the end of what the hypervisor wrote about a machine, which goes with the sandbox, beside the results, and
/// says where it is.
pub(super) async fn keep_log(environment: &Environment, results: &Path) -> Option<String> {
    let log = environment.machine().hypervisor_log()?;
    let kept = results.join(HYPERVISOR_LOG);
    let file = kept.clone();
    let said = match in_time("the hypervisor's log", log.tail(MOST_OF_A_LOG)).await {
        Ok(None) => return None,
        Ok(Some(bytes)) => {
            let written = folder::blocking(move || {
                std::fs::write(&file, bytes).map_err(|error| {
                    Error::io("the hypervisor's log cannot be kept", error).subject(file.display())
                })
            });
            match written.await {
                Ok(()) => format!("the hypervisor's log is kept in {}", kept.display()),
                Err(error) => error.chain(),
            }
        }
        Err(error) => error.chain(),
    };
    Some(said)
}

/// Keeps the screen of a guest that does not answer beside the results, and gives the file's name. It is as the
/// hypervisor gives it.
pub(super) async fn keep_screen(environment: &Environment, results: &Path) -> Option<PathBuf> {
    let screen = environment.machine().screenshot()?;
    let kept = async {
        let picture = in_time("the last screen", screen.take()).await?;
        let ending = match picture.mime_type.as_str() {
            "image/png" => "png",
            _ => "ppm",
        };
        let name = PathBuf::from(format!("last-screen.{ending}"));
        let file = results.join(&name);
        folder::blocking(move || {
            std::fs::write(&file, picture.bytes).map_err(|error| {
                Error::io("the last screen cannot be kept", error).subject(file.display())
            })
        })
        .await
        .map(|()| name)
    };
    kept.await
        .inspect_err(|error: &Error| tracing::info!("there is no last screen: {}", error.chain()))
        .ok()
}

async fn in_time<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| Err(Error::timeout(what, PATIENCE)))
}
