//! What the tests of real machines share: where the built things lie, and `seectl` as a user runs it, in a
//! home of its own.
//!
//! `cargo xtask test` builds the program and the guest first; a test that finds them missing says how.

mod candidate;
mod daemon;
mod dice;
mod footprint;
mod home;
pub mod hostile;
mod lab;
mod live;
mod neighbour;
mod nobody;
mod onlooker;
mod parts;
mod picture;
mod remains;
pub mod services;
mod virsh;
mod watch;

pub use candidate::{Machine, assert_planted, assert_provoked, assert_shown, monitor};
pub use daemon::{Credentials, DaemonOptions, PrivateDaemon, Transport};
pub use dice::{Dice, is_campaign, rounds};
pub use footprint::Footprint;
pub use home::{Home, Outcome, finish, spawn};
pub use lab::{Lab, Watched};
pub use live::Live;
pub use neighbour::Neighbour;
pub use nobody::{GROUP, Nobody};
pub use onlooker::{Onlooker, Sight};
pub use parts::{example, guest, seectl, target_folder};
pub use picture::Picture;
pub use remains::{assert_nothing_remains, bears, daemon_objects, remains};
pub use virsh::virsh;
pub use watch::{emulator, until};
