//! Progress as a person reads it: one line a stage, with its time.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use crate::failure::Failure;

/// Runs one stage and prints one line for it.
pub(crate) fn stage<T>(
    name: &str,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let started = Instant::now();
    let terminal = std::io::stdout().is_terminal();
    if terminal {
        print!("  …   {name}\r");
        // What cannot be printed is not worth ending a stage for.
        let _ = std::io::stdout().flush();
    }
    let outcome = work();
    let mark = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!(
        "{mark:>6} {name:<24} {:>7.2} s",
        started.elapsed().as_secs_f64()
    );
    outcome
}

/// Prints one line for a stage that cannot be run on this host.
pub(crate) fn skipped(name: &str, reason: &str) {
    println!("skipped {name}: {reason}");
}
