//! `setup`: sees what this host lacks, and does only that.

mod account;
mod apt;
mod daemon;
mod idle;
mod needs;

use std::time::Instant;

use apt::Downgrades;
pub(crate) use daemon::{Started, parent};
pub(crate) use needs::Purpose;

use crate::failure::{Failure, exit_code};
use crate::hosts::DEBIAN_13;

/// The word under which the program calls itself as the daemon's parent.
pub(crate) const PARENT_WORD: &str = "daemon-parent";

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let started = Instant::now();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => install_everything(Downgrades::Refused)?,
        ["--allow-downgrades"] => install_everything(Downgrades::Allowed)?,
        ["--check"] => {
            let missing = needs::missing(Purpose::Everything);
            if !missing.is_empty() {
                return Err(Failure::new(format!(
                    "missing: {}",
                    needs::described(&missing)
                )));
            }
            if !DEBIAN_13.is_made() {
                let Some(obstacle) = DEBIAN_13.obstacle()? else {
                    return Err(Failure::new(format!(
                        "missing: the root of {}, which `cargo xtask hosts` makes",
                        DEBIAN_13.name
                    )));
                };
                println!("setup: {obstacle}; its tests will be skipped");
            }
        }
        ["--daemon"] => {
            install(Purpose::Everything)?;
            let line = match daemon::start()? {
                Started::No => "libvirtd answers already",
                Started::Yes => "libvirtd was started and answers",
            };
            println!("{line} ({:.2} s)", started.elapsed().as_secs_f64());
            return Ok(());
        }
        ["--stop-daemon"] => {
            let line = if daemon::stop()? {
                "libvirtd, started by us, has ended"
            } else {
                "no libvirtd of ours runs"
            };
            println!("{line}");
            return Ok(());
        }
        _ => {
            return Err(Failure::usage(
                "usage: cargo xtask setup [--allow-downgrades | --check | --daemon | --stop-daemon]",
            ));
        }
    }
    println!(
        "setup: everything is there ({:.2} s)",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Installs what the tests need, and makes the second host that they run on, where that can be made.
fn install_everything(downgrades: Downgrades) -> Result<(), Failure> {
    install_with(Purpose::Everything, downgrades)?;
    if let Some(obstacle) = DEBIAN_13.make_if_possible()? {
        println!("setup: {obstacle}; its tests will be skipped");
    }
    Ok(())
}

/// Installs what is missing for the purpose; silent when nothing is.
pub(crate) fn install(purpose: Purpose) -> Result<(), Failure> {
    install_with(purpose, Downgrades::Refused)
}

fn install_with(purpose: Purpose, downgrades: Downgrades) -> Result<(), Failure> {
    let missing = needs::missing(purpose);
    if !missing.is_empty() {
        println!("setup: missing {}", needs::described(&missing));
        apt::install(&missing, downgrades)?;
        let still = needs::missing(purpose);
        if !still.is_empty() {
            return Err(Failure::with(
                exit_code::FAILED,
                format!(
                    "apt-get succeeded, yet still missing: {}",
                    needs::described(&still)
                ),
            ));
        }
    }
    if account::is_missing() {
        println!("setup: missing the account that emulators run as");
        account::make()?;
    }
    Ok(())
}

/// Makes `qemu:///system` answer, starting libvirtd where nobody else did.
pub(crate) fn start_daemon() -> Result<Started, Failure> {
    daemon::start()
}

/// Ends the libvirtd that [`start_daemon`] started; false when there is none.
pub(crate) fn stop_daemon() -> Result<bool, Failure> {
    daemon::stop()
}
