//! The guest agent of SEE: how the host and a program inside the guest talk, and that program.
//!
//! [`protocol`] is the wire: frames, requests and replies as values, with no input or output of its
//! own, so that an async host, a blocking guest and a fuzzer share it. [`server`] is the guest's
//! side, on threads. The binary `see-agent` is the server with a command line around it.
//!
//! The crate depends on the standard library alone: the binary is linked statically and copied into
//! guests that have nothing else.
//!
//! # Trust
//! The host's side owns the guest, so the agent obeys whoever reaches it over the virtio-serial
//! port: only the host can. Over TCP the first frame has to carry the token. The token comes from
//! a file in the guest (`--token-file`), or the host hands it over the serial port
//! ([`Request::Authorize`](protocol::Request::Authorize)); it is never taken from the kernel's
//! command line, since that would put it into the arguments of a process on the host.
//! The host in turn treats each byte that comes from the agent as hostile: everything decoded here
//! is bounded, and nothing is believed.

#![forbid(unsafe_code)]

mod platform;
pub mod protocol;
pub mod server;
