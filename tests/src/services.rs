//! Real servers of images on this host's loopback: Keystone and Glance, Swift with its S3, nginx.
//!
//! A server that takes seconds to start runs once for a test program, and its tests share it: [`glance`] and
//! [`swift`] give it to any number of them at once, [`Turn::alone`] to one that stops it. nginx starts in an
//! instant, so each test may have its own ([`Nginx::start`]).
//!
//! What they keep lies in `services` of the target folder, so that the next test program finds databases, rings
//! and ports made; what a test stored in them is gone by then. They die with the program that started them, also
//! when it is killed: the kernel sees to that.
//!
//! ```no_run
//! use see_tests::services::{self, Nginx, Signal};
//!
//! let glance = services::glance().shared();
//! let image = glance.upload("cirros", b"QFI\xfb and so on");
//! let address = (glance.identity_url(), glance.image_url());
//!
//! let nginx = Nginx::start();
//! nginx.put("guest.img", b"content");
//! let url = nginx.url("guest.img");
//! nginx.stop(Signal::KILL); // connections break, new ones are refused
//! nginx.again(); // on the same port
//! assert_eq!(nginx.log().len(), 0);
//! ```

mod authority;
mod curl;
mod front;
mod glance;
mod nginx;
mod ports;
mod server;
mod swift;
mod turn;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

pub use authority::Authority;
pub use curl::Answer;
pub use glance::{Glance, Person};
pub use nginx::{Nginx, Request};
pub use rustix::process::Signal;
pub use swift::Swift;
pub use turn::Turn;

use crate::parts::target_folder;

/// Keystone and Glance, started when the first test asks.
pub fn glance() -> &'static Turn<Glance> {
    static GLANCE: Turn<Glance> = Turn::new(Glance::start);
    &GLANCE
}

/// Swift with its S3, started when the first test asks.
pub fn swift() -> &'static Turn<Swift> {
    static SWIFT: Turn<Swift> = Turn::new(Swift::start);
    &SWIFT
}

/// What runs a program of the servers': nothing, or `chroot` into the root that `SEE_SERVERS_ROOT` names. The second
/// generation of hosts has none of the servers in its root, and runs this host's there.
fn prefix() -> Vec<OsString> {
    let root = std::env::var_os("SEE_SERVERS_ROOT");
    root.map_or_else(Vec::new, |root| vec!["chroot".into(), root])
}

/// A program of the servers' in this folder.
fn program(name: &str, folder: &std::path::Path) -> Command {
    let mut words = prefix();
    words.extend(["env".into(), "-C".into(), folder.into(), name.into()]);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The folder in which all servers work, made where it is missing.
fn folder() -> PathBuf {
    let folder = target_folder().join("services");
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}
