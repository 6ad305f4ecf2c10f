//! SIGINT, SIGTERM and SIGHUP: the first ends the run in order, the second leaves at once.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use see_core::{Error, Result, Stop};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::exit_code;
use crate::registries::end_process;
use crate::render::restore_terminal;

/// What was heard so far.
#[derive(Debug)]
pub(crate) struct Signals {
    stop: Stop,
    /// The exit code of the first signal; 0 while there was none.
    code: Arc<AtomicU8>,
    listener: JoinHandle<()>,
}

impl Signals {
    /// Listens from now on. `told` is called with the name of the first signal.
    ///
    /// # Errors
    /// Where the operating system refuses the handlers.
    pub(crate) fn listen(told: impl Fn(&'static str) + Send + 'static) -> Result<Self> {
        let hear =
            |kind| signal(kind).map_err(|error| Error::io("signals cannot be listened to", error));
        let mut interrupt = hear(SignalKind::interrupt())?;
        let mut terminate = hear(SignalKind::terminate())?;
        let mut hang_up = hear(SignalKind::hangup())?;
        let stop = Stop::new();
        let code = Arc::new(AtomicU8::new(0));
        let (asked, heard) = (stop.clone(), Arc::clone(&code));
        let listener = tokio::spawn(async move {
            let (name, code) = next(&mut interrupt, &mut terminate, &mut hang_up).await;
            heard.store(code, Ordering::Release);
            told(name);
            asked.stop();
            let (name, code) = next(&mut interrupt, &mut terminate, &mut hang_up).await;
            leave(name, code);
        });
        Ok(Self {
            stop,
            code,
            listener,
        })
    }

    /// Hears nothing any more: signals are caught and have no effect.
    pub(crate) fn silence(self) {
        self.listener.abort();
    }

    /// The stop that the first signal asks for.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// The exit code of the signal that was heard.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match self.code.load(Ordering::Acquire) {
            0 => None,
            code => Some(code),
        }
    }
}

async fn next(
    interrupt: &mut Signal,
    terminate: &mut Signal,
    hang_up: &mut Signal,
) -> (&'static str, u8) {
    tokio::select! {
        _ = interrupt.recv() => ("SIGINT", exit_code::INTERRUPTED),
        _ = terminate.recv() => ("SIGTERM", exit_code::TERMINATED),
        _ = hang_up.recv() => ("SIGHUP", exit_code::HUNG_UP),
    }
}

/// Ends the process; the ledger keeps what is left.
fn leave(name: &str, code: u8) -> ! {
    restore_terminal();
    // There is nobody to tell when stderr is gone.
    let _ = writeln!(
        io::stderr(),
        "seectl: {name} again: left at once. What the run made is in the ledger: run `seectl gc`"
    );
    end_process(code);
    std::process::exit(code.into());
}
