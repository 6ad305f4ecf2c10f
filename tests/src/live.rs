//! A run that is watched while it goes on.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::{Outcome, until};

/// The longest that a killed process takes to be gone, and its pipes to be empty.
const REAP: Duration = Duration::from_secs(30);

/// A program whose lines of JSON are read as they come. Dropped before its end, it is asked to end, and killed
/// where it does not.
pub struct Live {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
    errors: Arc<Mutex<Vec<u8>>>,
    status: Option<ExitStatus>,
}

impl fmt::Debug for Live {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Live")
            .field("status", &self.status)
            .field("heard", &self.heard)
            .field("stderr", &self.stderr())
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let stdout = child.stdout.take().expect("it is piped");
        let mut stderr = child.stderr.take().expect("it is piped");
        let (send, lines) = channel();
        let errors = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&errors);
        // Both end with the pipe, and take what comes until then.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut piece) {
                let mut kept = kept.lock().expect("no holder panics");
                kept.extend_from_slice(&piece[..length]);
            }
        });
        Self {
            child,
            lines,
            heard: Vec::new(),
            errors,
            status: None,
        }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        let errors = self.errors.lock().expect("no holder panics");
        String::from_utf8_lossy(&errors).into_owned()
    }

    /// Waits for an object of this kind; `None` when the program ended without one.
    ///
    /// # Panics
    /// At the deadline, and at a line that is not JSON.
    pub fn wait_for(
        &mut self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let value: Value = serde_json::from_str(&line)
                        .unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
                    self.heard.push(line);
                    if wanted(&value) {
                        return Some(value);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {what} within {deadline:?}: {self:#?}")
                }
            }
        }
    }

    /// The lines that it said so far, whether somebody waited for them or not.
    pub fn said(&mut self) -> &[String] {
        self.heard.extend(self.lines.try_iter());
        &self.heard
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status.is_none()
    }

    /// Sends it a signal, unless it ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.runs() {
            // It was not reaped yet, so the number is still its own.
            kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled");
        }
    }

    /// Sends a signal to it and whatever it has started in its process group, as a terminal does; it was started as
    /// the first of its group.
    pub fn signal_group(&mut self, signal: Signal) {
        if self.runs() {
            let group = Pid::from_child(&self.child);
            kill_process_group(group, signal).expect("a child can be signalled");
        }
    }

    /// Waits for its end, for at most `deadline`.
    ///
    /// # Panics
    /// When it is not done in time.
    pub fn finish(mut self, deadline: Duration) -> Outcome {
        until("the end of the program", deadline, || !self.runs());
        self.outcome()
    }

    /// Kills it, as a crash would, and waits until it is gone. What it said until then.
    pub fn kill(mut self) -> Outcome {
        self.signal(Signal::KILL);
        until("the end of a killed program", REAP, || !self.runs());
        self.outcome()
    }

    fn outcome(mut self) -> Outcome {
        let end = Instant::now() + REAP;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("somebody else holds the program's output: {self:#?}")
                }
            }
        }
        let mut stdout = self.heard.join("\n");
        if !stdout.is_empty() {
            stdout.push('\n');
        }
        Outcome {
            code: self.status.and_then(|status| status.code()),
            stdout,
            stderr: self.stderr(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if !self.runs() {
            return;
        }
        // A test that failed: the run tidies up itself where it still can.
        let end = Instant::now() + REAP;
        self.signal(Signal::TERM);
        while self.runs() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
