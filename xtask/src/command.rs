//! Other programs: run to their end or to a deadline, with what they said.

use std::fmt::Write as _;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Failure, While};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(5);

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program, keeps what it prints, and demands that it succeeds.
pub(crate) fn output(command: &mut Command, deadline: Duration) -> Result<String, Failure> {
    let finished = finish(command, deadline)?;
    if finished.status.success() {
        return Ok(finished.stdout);
    }
    let mut message = format!("`{}` ended with {}", shown(command), finished.status);
    for text in [&finished.stdout, &finished.stderr] {
        if !text.trim().is_empty() {
            let _ = write!(message, "\n{}", text.trim_end());
        }
    }
    Err(Failure::new(message))
}

/// Runs a program and keeps what it prints, whatever its exit code.
pub(crate) fn finish(command: &mut Command, deadline: Duration) -> Result<Finished, Failure> {
    gather(command, |child, name| wait(child, deadline, name))
}

/// The same for a program that must not be killed half way, however long it takes.
pub(crate) fn finish_without_limit(command: &mut Command) -> Result<Finished, Failure> {
    gather(command, |child, name| {
        child.wait().doing(format_args!("cannot wait for `{name}`"))
    })
}

fn gather(
    command: &mut Command,
    wait: impl FnOnce(&mut Child, &str) -> Result<ExitStatus, Failure>,
) -> Result<Finished, Failure> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(format_args!("cannot start `{}`", shown(command)))?;
    // Both pipes are read at once, or a chatty program would block on the full one.
    let stdout = child.stdout.take().map(|pipe| thread::spawn(|| text(pipe)));
    let stderr = child.stderr.take().map(|pipe| thread::spawn(|| text(pipe)));
    let status = wait(&mut child, &shown(command))?;
    let join = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|it| it.join().ok()).unwrap_or_default()
    };
    Ok(Finished {
        status,
        stdout: join(stdout),
        stderr: join(stderr),
    })
}

/// Runs a program that prints straight to the terminal.
pub(crate) fn passed_through(
    command: &mut Command,
    deadline: Duration,
) -> Result<ExitStatus, Failure> {
    let mut child = command
        .spawn()
        .doing(format_args!("cannot start `{}`", shown(command)))?;
    wait(&mut child, deadline, &shown(command))
}

/// Waits for a child until the deadline; then it is killed, and that is a failure.
pub(crate) fn wait(
    child: &mut Child,
    deadline: Duration,
    name: &str,
) -> Result<ExitStatus, Failure> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child
            .try_wait()
            .doing(format_args!("cannot wait for `{name}`"))?
        {
            return Ok(status);
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::new(format!(
                "`{name}` was still running after {} s and was killed",
                deadline.as_secs()
            )));
        }
        thread::sleep(POLL);
    }
}

/// Waits until a condition holds; false when the deadline came first.
pub(crate) fn wait_until(deadline: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = quoted(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(&argument.to_string_lossy()));
    }
    line
}

/// One word, quoted for a shell where it needs it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%^~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn text(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // A pipe that breaks ends the text; the exit status tells the rest.
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A command with the words that make it root's before it.
pub(crate) fn prefixed(prefix: &[&str], words: &[&str]) -> Command {
    let mut all = prefix.iter().chain(words);
    let mut command = Command::new(all.next().copied().unwrap_or("apt-get"));
    command.args(all);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_shown_with_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo told >&2; exit 7"]);
        let failure = output(&mut command, Duration::from_secs(10)).unwrap_err();
        assert!(failure.message.contains("told"), "{failure}");
        assert!(failure.message.contains('7'), "{failure}");
    }

    #[test]
    fn a_program_that_never_ends_is_killed_at_its_deadline() {
        let started = Instant::now();
        let mut command = Command::new("sleep");
        command.arg("600");
        let failure = finish(&mut command, Duration::from_millis(100)).unwrap_err();
        assert!(failure.message.contains("still running"), "{failure}");
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn words_that_a_shell_would_split_are_quoted() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("qemu-utils=1:7.2+dfsg~1"), "qemu-utils=1:7.2+dfsg~1");
    }
}
