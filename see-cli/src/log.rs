//! The log: on stderr, filtered by `SEE_LOG` or `-v`, never amid the progress of a terminal.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::MultiProgress;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// The variable that filters the log: `debug`, `see_core=trace,warn`.
const VARIABLE: &str = "SEE_LOG";

/// Starts the log; a second call changes nothing.
pub(crate) fn start(verbose: u8, progress: MultiProgress) {
    let level = match verbose {
        // What to know of an image: that it may not be the right one, or is copied for each run. What is taken out of a
        // domain's XML. And that nobody tried this hypervisor.
        0 => {
            "error,see_image_providers=warn,see_context::storage=warn,see_context::admission=warn,see_context::network::configuration=warn,see_context::plain=warn"
        }
        1 => {
            "see=info,see_core=info,see_context=info,see_hooks_std=info,see_image_providers=info,see_libvirt=info,see_cli=info,warn"
        }
        2 => "debug",
        _ => "trace",
    };
    let filter = match EnvFilter::try_from_env(VARIABLE) {
        Ok(filter) if std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty()) => filter,
        _ => EnvFilter::new(level),
    };
    // Only the first one counts: a program that embeds this one may have its own.
    let lines = fmt::layer()
        .with_ansi(false)
        // Told on stderr, which panics where stderr is the terminal that is gone.
        .log_internal_errors(false)
        .with_writer(Beside(progress))
        .with_filter(filter);
    let emulation = Emulation.with_filter(Targets::new().with_target(NO_KVM, Level::WARN));
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(emulation)
        .try_init();
}

/// Where the choice between KVM and emulation is made, which warns when there is none.
const NO_KVM: &str = "see_context::qemu::acceleration::no_kvm";

/// Whether that was heard.
static EMULATED: AtomicBool = AtomicBool::new(false);

/// Whether a machine was prepared that is emulated though KVM was wanted.
pub(crate) fn guests_are_emulated() -> bool {
    EMULATED.load(Ordering::Acquire)
}

/// Hears that guests are emulated, whatever is logged: it is a word in the first line of a run.
struct Emulation;

impl<S: Subscriber> Layer<S> for Emulation {
    fn on_event(&self, _event: &Event<'_>, _context: Context<'_, S>) {
        EMULATED.store(true, Ordering::Release);
    }
}

/// Writes to stderr while the progress is off the screen.
struct Beside(MultiProgress);

impl<'a> MakeWriter<'a> for Beside {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a MultiProgress);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
