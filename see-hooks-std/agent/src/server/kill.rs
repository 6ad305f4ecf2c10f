//! Killing whole process groups.
//!
//! Signalling a group takes a system call that the standard library does not offer, and this
//! workspace allows `unsafe` in one crate only. So a small shell does it, started before the first
//! program: its `kill` is built in, and killing then starts no process, which works in the middle
//! of a fork bomb too.

use super::lock;
use crate::platform::{kill_once, killer, lead_group};
use std::io::{self, Write};
use std::process::{Child, Stdio};
use std::sync::Mutex;

/// The shell that kills.
#[derive(Debug, Default)]
pub(super) struct Killer {
    shell: Mutex<Option<Child>>,
}

impl Killer {
    /// Sees to it that the shell runs.
    pub(super) fn prepare(&self) {
        let mut shell = lock(&self.shell);
        let gone = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if shell.as_mut().is_none_or(gone) {
            *shell = start().ok().flatten();
        }
    }

    /// Kills this process group. Best effort: the caller sees from the leader's end whether it
    /// worked, and tries again.
    pub(super) fn kill_group(&self, group: u32) {
        self.prepare();
        let written = match lock(&self.shell)
            .as_mut()
            .and_then(|shell| shell.stdin.as_mut())
        {
            Some(input) => input.write_all(format!("{group}\n").as_bytes()).is_ok(),
            None => false,
        };
        if !written {
            let mut command = kill_once(group);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if let Ok(mut child) = command.spawn() {
                // It ends by itself at once; waiting keeps it from becoming a zombie.
                drop(child.wait());
            }
        }
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        if let Some(mut shell) = lock(&self.shell).take() {
            drop(shell.stdin.take());
            drop(shell.wait());
        }
    }
}

fn start() -> io::Result<Option<Child>> {
    let Some(mut command) = killer() else {
        return Ok(None);
    };
    lead_group(&mut command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(Some)
}
