//! `seectl`: runs programs in throw-away machines, and shows what they did.
//!
//! The library is the whole program but for its registries: [`main`] takes them, so that somebody with
//! hooks, backends or image providers of their own builds a `seectl` that knows them in three lines.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     see_cli::main(|| {
//!         let mut registries = see_cli::registries::standard()?;
//!         // registries.hooks.add::<MyHook>()?;
//!         Ok(registries)
//!     })
//! }
//! ```

mod args;
mod commands;
pub mod exit_code;
mod log;
mod program;
pub mod registries;
mod render;
mod signals;

pub use program::main;
