//! One process that serves: started, stopped at any moment, started again, and never left.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::prefix;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

/// On a busy host the OpenStack servers take half a minute until they listen.
const START: Duration = Duration::from_secs(120);
/// How long one that was asked to end may take.
const END: Duration = Duration::from_secs(20);
/// How long another test program may use the servers.
const TURN: Duration = Duration::from_secs(300);
/// How much of a log a failure shows.
const TAIL: u64 = 4096;

/// Waits until no other test program works in this folder, and keeps others out as long as the file is open.
pub(super) fn alone_in(folder: &Path) -> File {
    let path = folder.join("lock");
    let file = File::create(&path).expect("the folder of the services is writable");
    let end = Instant::now() + TURN;
    while let Err(error) = file.try_lock() {
        assert!(
            Instant::now() < end,
            "waited {TURN:?} for another test program that holds {}: {error}",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    file
}

/// How one server is started.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    /// The words of its command line.
    words: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The folder in which it runs.
    folder: PathBuf,
    port: u16,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// A server that will listen on this port of the loopback; it is not started.
    pub(super) fn new(name: &'static str, folder: &Path, port: u16, words: &[&str]) -> Self {
        Self {
            name,
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            environment: Vec::new(),
            folder: folder.to_owned(),
            port,
            child: Mutex::new(None),
        }
    }

    /// The same with a variable in its environment.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, unless it runs. It does not listen yet: see [`Server::await_port`].
    pub(super) fn begin(&self) {
        let mut child = self.child();
        if child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
        {
            return;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the folder of the services is writable");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(prefix())
            .args(["env", "-C"])
            .arg(&self.folder)
            .args(&self.words)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            // Its own group: its workers go with it.
            .process_group(0);
        *child = Some(spawn(command));
    }

    /// Waits until it takes connections.
    pub(super) fn await_port(&self) {
        self.await_that("it listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
    }

    /// Waits until something holds that it brings about.
    pub(super) fn await_that(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + START;
        while !holds() {
            let ended = self.child().as_mut().map(|child| child.try_wait());
            assert!(
                matches!(ended, Some(Ok(None))),
                "{} has ended ({ended:?}); its log: {}",
                self.name,
                self.log()
            );
            assert!(
                Instant::now() < end,
                "waited {START:?} for {}: {what}; its log: {}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it by a signal and waits until it and its workers are gone.
    pub(super) fn stop(&self, signal: Signal) {
        let mut slot = self.child();
        let Some(mut child) = slot.take() else {
            return;
        };
        let pid = Pid::from_child(&child);
        let gone = || test_kill_process_group(pid).is_err();
        if signal == Signal::KILL {
            // It is not reaped yet, so the group is still its own.
            let _ = kill_process_group(pid, signal);
        } else {
            let _ = kill_process(pid, signal);
        }
        let end = Instant::now() + END;
        let mut reaped = false;
        while !reaped || !gone() {
            reaped = reaped || matches!(child.try_wait(), Ok(Some(_)) | Err(_));
            if Instant::now() >= end {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = child.wait();
                panic!(
                    "{} did not end within {END:?} after {signal:?}; its log: {}",
                    self.name,
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The end of what it has said so far.
    pub(super) fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log_file()) {
            let length = file.metadata().map_or(0, |found| found.len());
            let begin = SeekFrom::Start(length.saturating_sub(TAIL));
            // A log that cannot be read tells nothing; the failure that asks for it is told anyway.
            let _ = file.seek(begin).and_then(|_| file.read_to_end(&mut text));
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The whole file of what it has said.
    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let slot = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = slot {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// A command, and where its process goes.
type Order = (Command, SyncSender<std::io::Result<Child>>);

/// Starts a process from the one thread that lives as long as the program: the kernel's word "the parent died"
/// means the thread that made the process, and a test's thread ends with its test.
fn spawn(command: Command) -> Child {
    static PARENT: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let parent = PARENT.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in taken {
                // Who asked may be gone.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = sync_channel(1);
    let shown = format!("{command:?}");
    parent
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .expect("the thread lives as long as the program");
    let child = child
        .recv()
        .expect("the thread lives as long as the program");
    child.unwrap_or_else(|error| {
        panic!(
            "`{shown}` cannot be started ({error}): `cargo xtask setup` installs what is missing"
        )
    })
}
