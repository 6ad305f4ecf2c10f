//! From the command line to the exit code.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::MultiProgress;
use see_core::{Error, Registries, Result};
use tokio::runtime::Builder;

use crate::args::{Arguments, Command};
use crate::{commands, log, registries, render};

/// Does what the command line says, with what these registries know, and returns the exit code.
///
/// It takes over the process: signals, the log, the panic hook, and after a run on libvirt's embedded driver its end,
/// which the exit handlers of libraries might spoil.
pub fn main(registries: impl FnOnce() -> Result<Registries>) -> ExitCode {
    registries::quiet();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version are no mistakes: clap knows their code, 0, and that of mistakes, 2.
        Err(error) => error.exit(),
    };
    let progress = MultiProgress::new();
    log::start(arguments.verbose, progress.clone());
    render::restore_terminal_on_panic();
    let code = dispatch(arguments, progress, registries).unwrap_or_else(|error| {
        // There is nobody to tell when stderr is gone.
        let _ = write!(io::stderr(), "{}", render::failure(&error));
        commands::code_of(&error)
    });
    registries::end_process(code);
    ExitCode::from(code)
}

fn dispatch(
    arguments: Arguments,
    progress: MultiProgress,
    registries: impl FnOnce() -> Result<Registries>,
) -> Result<u8> {
    let registries = registries()?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::io("threads cannot be started", error))?;
    let code = runtime.block_on(async {
        match &arguments.command {
            Command::Run(run) => {
                let is_verbose = arguments.verbose > 0;
                commands::run(run, is_verbose, registries, progress).await
            }
            Command::Ls(ls) => commands::ls(ls).await,
            Command::Gc(gc) => commands::gc(gc, &registries).await,
            Command::Image(image) => commands::image(image, &registries, progress).await,
        }
    });
    // Work that outlived its deadline must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}
