//! The guest's processes.

use super::answer::Answer;
use crate::protocol::{FailureCode, Process, Reply};
use std::fs::{self, File};
use std::io::Read;

/// The most processes that are listed.
const MAX_PROCESSES: u64 = 8192;
/// The most of a command line that is read.
const MAX_COMMAND_LINE: u64 = 1024;
/// How many are in a message: with the longest names and command lines as many fit.
const AT_ONCE: usize = 32;

/// Sends the list; gives the last answer.
pub(super) fn list(answer: &Answer) -> Result<Reply, Reply> {
    if !cfg!(target_os = "linux") {
        let message = "processes are listed on Linux only";
        return Err(Reply::failed(FailureCode::Unsupported, message));
    }
    let entries = fs::read_dir("/proc")
        .map_err(|error| super::folder::io_failure("reading /proc", &error))?;
    let mut batch = Vec::new();
    let mut total = 0;
    let mut truncated = false;
    // A process that ends meanwhile is not listed.
    let processes = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(look);
    for process in processes {
        if total == MAX_PROCESSES {
            truncated = true;
            break;
        }
        total += 1;
        batch.push(process);
        if batch.len() == AT_ONCE {
            answer.stream(Reply::Processes(std::mem::take(&mut batch)))?;
        }
    }
    if !batch.is_empty() {
        answer.stream(Reply::Processes(batch))?;
    }
    Ok(Reply::End { total, truncated })
}

fn look(pid: u32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let (name, parent) = parse_stat(&stat)?;
    let mut command_line = Vec::new();
    File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(MAX_COMMAND_LINE).read_to_end(&mut command_line))
        .ok()?;
    Some(Process {
        pid,
        parent,
        name,
        command_line,
    })
}

/// The name and the parent in a line like `12 (a name) S 1 …`; the name may hold anything, also
/// parentheses, so the last one counts.
fn parse_stat(stat: &[u8]) -> Option<(Vec<u8>, u32)> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open + 1..close)?.to_vec();
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let parent = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((name, parent))
}

#[cfg(test)]
mod tests {
    use super::parse_stat;

    #[test]
    fn a_name_with_parentheses_and_spaces_hides_nothing() {
        let stat = b"42 (evil) R 7 (x) S 17 42 42 0";
        assert_eq!(parse_stat(stat), Some((b"evil) R 7 (x".to_vec(), 17)));
    }

    #[test]
    fn a_line_cut_off_is_no_process() {
        for line in [
            &b""[..],
            b"42",
            b"42 (x",
            b"42 (x)",
            b"42 (x) S",
            b"42 )x( S 1",
        ] {
            assert_eq!(parse_stat(line), None, "{line:?}");
        }
    }
}
