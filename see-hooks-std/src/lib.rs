//! The hooks that come with SEE, and the client of its guest agent.
//!
//! A hook is one file, or one folder, and two adjacent lines here: `mod`, and its registration.

pub mod client;
mod commands;
mod results;
mod screen;
mod timers;

pub use commands::{CommandsConfiguration, CommandsHook};
pub use screen::{ScreenConfiguration, ScreenHook};
pub use timers::{TimersConfiguration, TimersHook};

use see_core::{Registries, Result};

/// Registers every hook of this crate.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`](see_core::ErrorKind::AlreadyExists) where a name is taken.
pub fn register(registries: &mut Registries) -> Result<()> {
    let hooks = &mut registries.hooks;
    hooks.add::<CommandsHook>()?;
    hooks.add::<ScreenHook>()?;
    hooks.add::<TimersHook>()?;
    Ok(())
}
