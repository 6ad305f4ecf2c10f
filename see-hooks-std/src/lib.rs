//! The hooks that come with SEE, and the client of its guest agent.

pub mod client;
