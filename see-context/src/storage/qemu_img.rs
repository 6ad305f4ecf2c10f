//! The program `qemu-img`: started with explicit formats, watched, and ended on a stop.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use see_core::{Error, ErrorKind, ImageFormat, Result, StopToken};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::program::environment;

/// The program's name.
pub(crate) const PROGRAM: &str = "qemu-img";
/// An overlay is a header and an empty table.
const OVERLAY_LIMIT: Duration = Duration::from_secs(60);
/// A full copy of a large image on a slow disk.
const COPY_LIMIT: Duration = Duration::from_secs(3600);
/// The most of the program's complaints that is kept.
const COMPLAINT: u64 = 4096;

/// An environment variable by which a collection finds the program.
type Mark = (&'static str, String);

/// Makes an overlay that holds what differs from `base`.
pub(super) async fn overlay(
    base: &Path,
    format: ImageFormat,
    overlay: &Path,
    mark: Mark,
    stop: &StopToken,
) -> Result<()> {
    let arguments: [&OsStr; 9] = [
        "create".as_ref(),
        "-q".as_ref(),
        "-f".as_ref(),
        "qcow2".as_ref(),
        "-b".as_ref(),
        base.as_ref(),
        "-F".as_ref(),
        format.name().as_ref(),
        overlay.as_ref(),
    ];
    run("make the overlay", &arguments, mark, OVERLAY_LIMIT, stop).await
}

/// Makes a full copy of an image, which may be in another format.
pub(super) async fn copy(
    (base, format): (&Path, ImageFormat),
    (copy, made): (&Path, ImageFormat),
    mark: Mark,
    stop: &StopToken,
) -> Result<()> {
    let arguments: [&OsStr; 8] = [
        "convert".as_ref(),
        "-q".as_ref(),
        "-f".as_ref(),
        format.name().as_ref(),
        "-O".as_ref(),
        made.name().as_ref(),
        base.as_ref(),
        copy.as_ref(),
    ];
    run("copy the disk image", &arguments, mark, COPY_LIMIT, stop).await
}

async fn run(
    operation: &'static str,
    arguments: &[&OsStr],
    mark: Mark,
    limit: Duration,
    stop: &StopToken,
) -> Result<()> {
    let failed = |error| {
        Error::io("qemu-img cannot be run", error)
            .during(operation)
            .advice("install the package qemu-utils")
    };
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env_clear()
        .envs(environment())
        .envs([mark])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A Ctrl-C is for the run, which stops it in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let errors = child.stderr.take();
    let complaint = async {
        let mut text = Vec::new();
        if let Some(errors) = errors {
            // What cannot be read is missing in a message, no more.
            let _ = errors.take(COMPLAINT).read_to_end(&mut text).await;
        }
        text
    };
    let finished = tokio::time::timeout(limit, async {
        stop.or(operation, async { tokio::join!(child.wait(), complaint) })
            .await
    })
    .await;
    let (status, complaint) = match finished {
        Ok(Ok((status, complaint))) => (status.map_err(failed)?, complaint),
        Ok(Err(stopped)) => {
            end(&mut child).await;
            return Err(stopped);
        }
        Err(_) => {
            end(&mut child).await;
            return Err(Error::timeout("qemu-img to end", limit).during(operation));
        }
    };
    if status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&complaint);
    let first = complaint.lines().next().unwrap_or("it gives no reason");
    let kind = if first.contains("Permission denied") {
        ErrorKind::PermissionDenied
    } else if first.contains("No space left") {
        ErrorKind::Exhausted
    } else {
        ErrorKind::Io
    };
    Err(Error::new(kind, format!("qemu-img failed: {first}")).during(operation))
}

/// Ends the program and waits until it no longer writes.
async fn end(child: &mut tokio::process::Child) {
    // It may have ended by itself; either way nothing of it is left.
    let _ = child.kill().await;
}

#[cfg(test)]
mod tests {
    use see_core::Stop;

    use super::*;

    fn mark() -> Mark {
        ("SEE_TEST", String::from("qemu-img"))
    }

    #[tokio::test]
    async fn an_overlay_and_a_copy_are_made_and_the_base_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base with 'ü.raw");
        std::fs::write(&base, vec![7_u8; 1 << 20]).unwrap();
        let before = std::fs::metadata(&base).unwrap().modified().unwrap();
        let stop = Stop::new();
        let (over, full) = (folder.path().join("over"), folder.path().join("full"));
        overlay(&base, ImageFormat::Raw, &over, mark(), &stop.token())
            .await
            .unwrap();
        let from = (base.as_path(), ImageFormat::Raw);
        copy(from, (&full, ImageFormat::Qcow2), mark(), &stop.token())
            .await
            .unwrap();
        let small = std::fs::metadata(&over).unwrap().len();
        assert!(small < 1 << 20, "{small}");
        assert_eq!(ImageFormat::of_path(&full).unwrap(), ImageFormat::Qcow2);
        assert!(
            ImageFormat::of_path(&over).is_err(),
            "it has a backing file"
        );
        assert_eq!(
            std::fs::metadata(&base).unwrap().modified().unwrap(),
            before
        );
    }

    #[tokio::test]
    async fn a_failure_tells_the_programs_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let stop = Stop::new();
        let missing = folder.path().join("missing");
        let error = overlay(
            &missing,
            ImageFormat::Raw,
            &folder.path().join("over"),
            mark(),
            &stop.token(),
        )
        .await
        .unwrap_err();
        assert!(error.message().contains("missing"), "{error}");
    }

    #[tokio::test]
    async fn a_stop_ends_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let stop = Stop::new();
        stop.stop();
        let base = folder.path().join("base");
        std::fs::write(&base, b"raw").unwrap();
        let error = copy(
            (&base, ImageFormat::Raw),
            (&folder.path().join("copy"), ImageFormat::Qcow2),
            mark(),
            &stop.token(),
        )
        .await
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stopped);
    }
}
