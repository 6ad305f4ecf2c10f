//! The parts of a sandbox that are too small for a room of their own.

mod channel;
mod console;
mod run_folder;
mod stream;

pub(crate) use self::channel::{Connected, SerialPort};
pub(crate) use self::console::ConsoleFile;
pub(crate) use self::run_folder::RunFolder;
pub(crate) use self::stream::StreamPort;
