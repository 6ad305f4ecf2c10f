//! A second generation of hosts: Debian 13's libvirt and QEMU in a root file system of its own, which tests and
//! campaigns enter in namespaces of their own.
//!
//! [`root`] makes the file system once, [`first`] is the first process in it, [`entered`] is how the other duties
//! hold it, [`facts`] lists the tests that are shown in it.

mod entered;
mod facts;
mod first;
mod groups;
mod root;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) use entered::Entered;
pub(crate) use facts::{FACTS, FACTS_TAKE, Facts};
pub(crate) use first::run as first;

use crate::command;
use crate::failure::{Failure, exit_code};
use crate::workspace;

/// The word under which the program calls itself as the first process of a host.
pub(crate) const FIRST_WORD: &str = "host-first";

/// The longest that a command given by a person may run.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// A host beside the one that the duties run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its name, on the command line and in what is printed.
    pub(crate) name: &'static str,
    /// The suite of Debian's archive that it is made of.
    suite: &'static str,
}

/// libvirt 11 and QEMU 10.
pub(crate) const DEBIAN_13: Host = Host {
    name: "debian-13",
    suite: "trixie",
};

impl Host {
    /// The host that a word of the command line names.
    pub(crate) fn named(word: &str) -> Result<Self, Failure> {
        if word == DEBIAN_13.name {
            return Ok(DEBIAN_13);
        }
        Err(Failure::usage(format!(
            "no host is called `{word}`; there is {}",
            DEBIAN_13.name
        )))
    }

    /// Where its root and what is kept between its runs lie.
    fn folder(self) -> PathBuf {
        workspace::target().join("hosts").join(self.name)
    }

    /// Whether its root file system stands, of the packages that are wanted today.
    pub(crate) fn is_made(self) -> bool {
        root::is_made(self)
    }

    /// Makes its root file system, unless it stands.
    ///
    /// # Errors
    /// Without root, without mmdebstrap, and where apt knows no archive of Debian.
    pub(crate) fn make(self) -> Result<(), Failure> {
        self.make_if_possible()?.map_or(Ok(()), Err)
    }

    /// The same where this host allows it. The answer is what keeps it from being made: root, mmdebstrap or apt that
    /// is not there, or an apt without Debian's archive.
    ///
    /// # Errors
    /// Where it could be made, and was not.
    pub(crate) fn make_if_possible(self) -> Result<Option<Failure>, Failure> {
        root::make(self)
    }

    /// What would keep it from being made, as far as it is seen without changing anything.
    pub(crate) fn obstacle(self) -> Result<Option<Failure>, Failure> {
        root::obstacle(self)
    }

    /// What keeps programs from being run in it, though it stands.
    pub(crate) fn closed(self) -> Option<Failure> {
        if rustix::process::geteuid().is_root() {
            return None;
        }
        let message = format!("the host {} cannot be entered without root", self.name);
        Some(Failure::with(exit_code::MISSING_RIGHTS, message))
    }
}

/// `hosts`: makes the root file systems of the other hosts; with words, runs a command in one.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let Some((name, command)) = words.split_first() else {
        let started = Instant::now();
        DEBIAN_13.make()?;
        println!(
            "{}: its root is {} ({:.2} s)",
            DEBIAN_13.name,
            DEBIAN_13.folder().join(root::ROOT).display(),
            started.elapsed().as_secs_f64()
        );
        return Ok(());
    };
    let host = Host::named(name)?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::usage(
            "usage: cargo xtask hosts [HOST COMMAND [ARGUMENTS]]",
        ));
    };
    let entered = Entered::new(host)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace::root());
    let status = command::passed_through(&mut entered.inside(&command), DEADLINE)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{program}` ended with {status}")))
}
