//! A backend as an outsider writes it, on `see-core` alone: its machines are plain processes behind the walls
//! of Linux namespaces, built by `unshare` and what else util-linux has.
//!
//! A machine has users, processes, mounts and a network of its own. It sees the host's programs, which it
//! cannot change, and a file system in memory, which ends with it; no files of the host, no processes, no
//! network, and it has no rights with which to change that. Its output goes to a console log of bounded size.
//! Memory and processor time are not limited: that takes a control group, and the right to make one.
//!
//! Where to look: [`Namespaces`] is the backend, and shows what an allocation owes; [`NamespacesMachine`] is the
//! driver, and shows how the machine's own end is noticed; `walls.sh` builds the walls.
//! The test runs the conformance suite over all of it.

mod backend;
mod machine;
mod process;

pub use backend::{Namespaces, NamespacesConfiguration};
pub use machine::NamespacesMachine;
