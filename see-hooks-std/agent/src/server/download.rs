//! Sending files of the guest.

use super::answer::Answer;
use super::files::absolute;
use super::folder::io_failure;
use crate::platform;
use crate::protocol::{FailureCode, MAX_BODY, Reply};
use std::io::{ErrorKind, Read};

/// Sends a regular file, at most `limit` bytes of it; gives the last answer.
pub(super) fn download(answer: &Answer, path: Vec<u8>, limit: u64) -> Result<Reply, Reply> {
    let bad = |message: &str| Reply::failed(FailureCode::BadRequest, message);
    let path = absolute(path)?;
    let mut file =
        platform::open_to_read(&path).map_err(|error| io_failure("opening the file", &error))?;
    let found = file
        .metadata()
        .map_err(|error| io_failure("looking at the file", &error))?;
    if !found.is_file() {
        return Err(bad("only a regular file can be downloaded"));
    }
    let mut total = 0;
    // Read until its end, whatever its length claims: files of /proc have none, others grow.
    loop {
        // One byte more than the limit tells whether there is more.
        let left = limit.saturating_sub(total);
        let most = usize::try_from(left)
            .unwrap_or(MAX_BODY)
            .saturating_add(1)
            .min(MAX_BODY);
        let mut bytes = vec![0; most];
        let length = match file.read(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(io_failure("reading the file", &error)),
        };
        if length == 0 {
            return Ok(Reply::End {
                total,
                truncated: false,
            });
        }
        let kept = usize::try_from(left).unwrap_or(length).min(length);
        bytes.truncate(kept);
        if kept > 0 {
            answer.stream(Reply::Data(bytes))?;
        }
        total += kept as u64;
        if kept < length {
            return Ok(Reply::End {
                total,
                truncated: true,
            });
        }
    }
}
