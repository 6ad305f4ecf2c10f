//! The core of SEE: environments, events, hooks, backends, image providers and the ledger.
//!
//! An [`Environment`] is a throw-away [`Machine`] together with the [`Hook`]s that watch
//! and drive it through [`Event`]s. A [`Host`] allocates environments with a [`Backend`] and images from
//! an [`ImageProvider`], and tears them down; what it makes is written into the [`ledger`] first, so that
//! nothing is ever left behind unknown. This crate knows no hypervisor and no server: other crates bring
//! them, through [`Registries`].
//!
//! Where to start: write a hook ([`Hook`]), a backend ([`Backend`]), an image provider
//! ([`ImageProvider`]), run what a run file describes ([`RunPlan`]), or environments one by one ([`Host`]).

mod backend;
mod bus;
mod changes;
pub mod config;
mod context;
mod driver;
mod environment;
mod error;
mod error_report;
mod event;
mod fault;
mod hook;
mod host;
mod identifier;
mod image;
mod isolation;
pub mod ledger;
mod machine;
mod mishap;
mod names;
mod path_text;
mod place;
mod plan;
mod proof;
mod protocol;
mod quota;
mod registry;
mod rename;
mod run;
mod settings;
mod shared;
mod state;
mod stop;
mod sync;
mod teardown;
#[cfg(feature = "testing")]
pub mod testing;

pub use backend::{Allocation, Backend, Preparation, PreparedBackend};
pub use bus::{
    BesideHandler, BusLimits, EventBus, HandlerFuture, Listener, SerialHandler, Shutdown,
    Subscription, Turn,
};
pub use changes::{ChangeSender, Changes, SandboxChange};
pub use context::Context;
pub use driver::{
    Address, ChannelStream, Closed, Console, Driver, GuestChannel, HypervisorLog, Isolation, Meter,
    Picture, Screenshot, Target, Usage,
};
pub use environment::{Environment, Stopper, TurnGuard};
pub use error::{Error, ErrorKind, Result};
pub use error_report::ErrorReport;
pub use event::{Event, Text, Value};
pub use hook::{Hook, PreparedHook};
pub use host::{AllocateOptions, Host, Prepared};
pub use identifier::Identifier;
pub use image::{
    Image, ImageFormat, ImagePhase, ImageProgress, ImageProvider, ImageRegistry, ImageReport,
    ImageRequest, ImageSource,
};
pub use machine::Machine;
pub use mishap::{Mishap, MishapKind};
pub use path_text::{path_from_text, path_to_text};
pub use plan::{
    Artifact, CheckedRun, RunHeader, RunOptions, RunPlan, RunResult, RunUpdate, SampleResult,
    StepResult, Verdict,
};
pub use proof::{ISOLATION_BROKEN, ISOLATION_NOT_CHECKED, ISOLATION_PROVEN, IsolationVerdict};
pub use protocol::{Action, Protocol, SAMPLE_FINISHED, Step};
pub use quota::RunLimits;
pub use registry::{BackendRegistry, HookRegistry, Registries};
pub use run::{RunReport, StepReport};
pub use settings::{AgentSettings, AgentTransport, Limits, Secret};
pub use shared::EndLimits;
pub use state::{SandboxState, Transition};
pub use stop::{Stop, StopToken};
pub use teardown::Teardown;
