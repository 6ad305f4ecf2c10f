//! How things are shown: on a terminal, in plain lines, or as JSON.
//!
//! What is shown is written by a thread of its own: a terminal or a pipe may be slow, and neither the
//! run nor a handler of events waits for it.

mod device;
mod escape;
mod failure;
mod json;
mod plain;
mod quantity;
mod sample;
mod screen;
mod several;
mod summary;
mod surface;
mod terminal;
mod text;
mod update;
mod words;

pub(crate) use escape::line as escape_line;
pub(crate) use failure::failure;
pub(crate) use quantity::{age, seconds, size};
pub(crate) use screen::{Feed, Screen};
pub(crate) use terminal::{restore_terminal, restore_terminal_on_panic};
pub(crate) use update::Update;
