//! Running commands and samples in the guest, through an agent there.
//!
//! # Getting ready
//! Once the machine is powered on the hook looks for the agent, and posts
//! - `waiting_for_guest` each time the reason for not being ready changes: `cause` (below),
//!   `message`, `seconds` since power-on;
//! - `ready` (`seconds`) when the agent answers, then `ip_address`, with `address` when the guest
//!   has one. On a network the latter waits for the address;
//! - where the machine's network promises walls and a proof of them is wanted, before `ready`, after the
//!   guest has its address: `isolation_proven` (`tried`, `seconds`), when the guest tried everything that is to be
//!   closed to it and nothing answered; `isolation_broken` (`message`, and `holes`, a list of everything
//!   that answered), when something did, or `isolation_not_checked` (`message`), when not everything could
//!   be tried: after both the guest is not ready; or `not_isolation_proven` (`cause`, `message`, `seconds`),
//!   when no agent answers that could try. Tried to its end once, before any sample, since no guest is
//!   believed after one; a guest that had a hole is not ready after its next boot either;
//! - or `not_ready` and `not_ip_address` (`cause`, `message`, `seconds`) when it gives up, or only the latter
//!   when the agent answers and no address comes; a wait for the event without `not_` ends with it.
//!
//! Causes: `no_power` (the machine is off), `no_channel` (the host's end of the guest channel
//! cannot be opened), `no_boot_output` (the guest's console is still empty), `no_lease` (the guest
//! has no address yet), `no_agent` (nobody answers in the guest), `no_token`, `wrong_token`,
//! `bad_agent` (what answers is not an agent), `isolation` (the guest reaches what has to be closed to it, or
//! could not try).
//!
//! # An agent that is lost
//! When the connection to SEE's agent is lost, or the agent was restarted, it is looked for again as long as
//! `ready_timeout` says, without another `ready`. What ran in the foreground is lost with the connection
//! (`agent_lost`), what runs in the background with the agent only; later commands wait until it is found. An agent
//! that broke the protocol is not looked for again before the guest's next boot.
//!
//! # Running
//! - `run_sample`: `sample` (a file of the host; left out where the command needs none), `command`
//!   (text for the guest's shell in which `{sample}` or `${sample}` stands for the file in the guest, as one
//!   word in whatever quotes, or a list of arguments, which no shell sees; left out: the sample itself, made
//!   executable), `async_flag`
//!   (run it in the background of the agent, so that it outlives the connection; of each output the first 256 KiB
//!   are kept, whatever `output_limit` says), `deadline` (seconds, or a text such as `90s`).
//!   The sample keeps its name in the guest. Where the guest has no such names it posts `sample_renamed`
//!   (`sample`, `guest_name`, `message`), and `guest_name` is in `sample_finished`, too.
//!   Posts `sample_started` (`sample`, `command`, `pid`), `sample_output` (`stream`, `text`; the
//!   first part only), and at last `sample_finished`, whatever happened.
//!   With SEE's agent also `user` (a name or number of the guest's `/etc/passwd`, on Unix), `folder` (the working
//!   folder; left out: the agent's upload folder, or with a `user` the user's home) and `environment` (a map of texts).
//!   A sample is run as a `user` where that user may enter the folders in which the upload folder lies.
//! - `run_command`: the same without `sample`. Posts `command_started` and at last
//!   `command_finished`.
//!
//! Both finished events have `command`, `exit_code` or `signal`, `timed_out`, `truncated`,
//! `agent_lost`, `error` (a text, when it could not run to its end), `seconds`, `stdout_bytes`,
//! `stderr_bytes`; the sample's has `sample`, and `stdout` and `stderr`, the files with what was
//! written; the command's has `output`, the first part of both.

mod configuration;
mod execute;
mod finished;
mod guest;
mod isolation;
mod not_ready;
mod order;
mod output;
mod python_agent;
mod readiness;
mod sample;
mod shell;
mod stay;

pub use configuration::CommandsConfiguration;

use async_trait::async_trait;
use guest::Guest;
use order::Order;
use see_core::{AgentTransport, Context, Error, ErrorKind, Event, Hook, Result, SandboxState};
use std::sync::Arc;

/// Runs commands and samples in the guest; see the list of its events in the crate's documents.
#[derive(Debug)]
pub struct CommandsHook;

/// The events after which the guest boots. Not `post_restart`: a guest that was asked to restart runs on
/// for a while.
const BOOTS: [&str; 3] = ["post_poweron", "restarted", "guest_reboot"];
/// The events after which nobody is in the guest any more.
const ENDS: [&str; 2] = ["post_poweroff", "post_shutdown"];
/// The events that tell of a guest that ended by itself.
const GUEST_ENDS: [&str; 2] = ["guest_poweroff", "guest_crash"];

#[async_trait]
impl Hook for CommandsHook {
    const NAME: &'static str = "commands";
    const ALIASES: &'static [&'static str] = &["plugins.commands.CommandsHook"];
    type Configuration = CommandsConfiguration;

    async fn attach(configuration: CommandsConfiguration, context: &Context) -> Result<Self> {
        let sandbox = context.machine();
        let needs_channel = configuration.agent_port.is_none()
            && context.agent().transport == AgentTransport::Serial;
        if needs_channel && sandbox.guest_channel().is_none() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this machine has no channel to an agent in it",
            )
            .advice("set `agent` of the context to `{\"transport\": \"tcp\"}`"));
        }
        if configuration.agent_port.is_none() && context.agent().transport != AgentTransport::None {
            context.proves_isolation();
        }
        let patience = readiness::longest(&configuration, context);
        let guest = Arc::new(Guest::new(configuration, context, patience));
        for name in BOOTS {
            let guest = Arc::clone(&guest);
            context.subscribe(name, move |_| stay::begin(&guest));
        }
        for name in ENDS {
            let guest = Arc::clone(&guest);
            context.subscribe(name, move |_| guest.is_gone());
        }
        for name in GUEST_ENDS {
            let guest = Arc::clone(&guest);
            context.subscribe(name, move |_| guest.ended_by_itself());
        }
        for name in ["run_sample", "run_command"] {
            let guest = Arc::clone(&guest);
            context.subscribe(name, move |event: &Event| take_order(&guest, event));
        }
        let learning = Arc::clone(&guest);
        context.subscribe("ip_address", move |event: &Event| {
            if let Some(address) = event.get("address").and_then(|value| value.as_str()) {
                learning.learn_address(address);
            }
        });
        if sandbox.state().await? == SandboxState::Running {
            stay::begin(&guest);
        }
        Ok(Self)
    }
}

/// Starts to do what an event asks for, or tells at once why not.
fn take_order(guest: &Arc<Guest>, event: &Event) {
    let order = Order::read(event, guest.configuration());
    let guest = Arc::clone(guest);
    let context = guest.context().clone();
    let task = async move { execute::execute(&guest, order).await };
    if !context.spawn(task) {
        tracing::warn!(event = event.name(), "the hook takes no more orders");
    }
}
