//! What all transports of one agent share.

use super::folder::Folder;
use super::job::Jobs;
use super::probe::DefaultRoute;
use super::{Token, lock};
use crate::platform;
use crate::protocol::{Info, VERSION};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// What an agent keeps within.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many programs in the background it remembers; ended ones make room. Default 16.
    pub jobs: usize,
    /// How many bytes of each output stream of a program in the background it keeps in memory.
    /// Default 256 KiB.
    pub job_output: u64,
    /// The longest file it stores, in bytes. Default 16 GiB.
    pub upload: u64,
    /// How many TCP connections it has at once. Default 8.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs: 16,
            job_output: 256 << 10,
            upload: 16 << 30,
            connections: 8,
        }
    }
}

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder that uploads go to; made when missing.
    pub folder: PathBuf,
    /// The token that TCP needs. Without one TCP is closed until the host hands one over a
    /// transport that needs none.
    pub token: Option<Token>,
    /// What it keeps within.
    pub limits: Limits,
    /// On Linux, puts each program into a control group (cgroup v2) of its own, where this process may, and kills at
    /// the start what an agent before left in such groups. Each start moves the whole process through the program's
    /// group: for the process that is an agent and nothing else.
    pub control_groups: bool,
}

impl Settings {
    /// Uploads go to `folder`; no token; the default limits; no control groups.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self {
            folder: folder.as_ref().to_owned(),
            token: None,
            limits: Limits::default(),
            control_groups: false,
        }
    }
}

/// A guest agent: what it was asked to keep, shared by its transports.
#[derive(Debug)]
pub struct Agent {
    pub(super) folder: Folder,
    pub(super) jobs: Jobs,
    pub(super) limits: Limits,
    pub(super) control_groups: bool,
    /// How many outputs and inputs of programs threads are busy with.
    pub(super) pipes: Arc<AtomicUsize>,
    /// The way out of the guest that probes make.
    pub(super) default_route: DefaultRoute,
    token: Mutex<Option<Token>>,
    instance: u64,
}

impl Agent {
    /// Sets an agent up; serve it with [`serve_port`](super::serve_port),
    /// [`serve_connection`](super::serve_connection) and [`serve_tcp`](super::serve_tcp).
    ///
    /// # Errors
    /// When the upload folder cannot be made.
    pub fn new(settings: Settings) -> io::Result<Arc<Self>> {
        if settings.control_groups {
            platform::remove_leftovers();
        }
        Ok(Arc::new(Self {
            folder: Folder::open(&settings.folder)?,
            jobs: Jobs::new(settings.limits.jobs),
            limits: settings.limits,
            control_groups: settings.control_groups,
            pipes: Arc::new(AtomicUsize::new(0)),
            default_route: DefaultRoute::default(),
            token: Mutex::new(settings.token),
            // The standard library's hash maps are keyed at random: its only source of chance.
            instance: RandomState::new().build_hasher().finish(),
        }))
    }

    pub(super) fn authorize(&self, token: Token) {
        *lock(&self.token) = Some(token);
    }

    /// Whether `offered` is the token; nothing when there is none.
    pub(super) fn check_token(&self, offered: &[u8]) -> Option<bool> {
        lock(&self.token)
            .as_ref()
            .map(|token| token.matches(offered))
    }

    pub(super) fn info(&self) -> Info {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Info {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: VERSION,
            system: std::env::consts::OS.to_owned(),
            release: platform::release(),
            architecture: std::env::consts::ARCH.to_owned(),
            hostname: platform::hostname(),
            folder: platform::os_bytes(self.folder.path().as_os_str()),
            instance: self.instance,
            unix_milliseconds: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
