//! Where runs are tortured: a home, a hypervisor, the run files, and what is left of them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use see_tests::{Home, Live, Outcome, PrivateDaemon, bears, guest, remains};
use serde_json::{Value, json};

use crate::instants::{At, Follower, Phase, steps};
use crate::volley::{Cut, fire, identifier_of};

/// The longest wait for anything that a run does, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The longest that a collection takes.
const COLLECTION: Duration = Duration::from_secs(90);
/// How long the kernel and the daemon may take to let go of what has ended.
const LETTING_GO: Duration = Duration::from_secs(15);

/// A container's XML, as a user writes it.
const CONTAINER: &str = "<domain type='lxc'><memory unit='MiB'>64</memory><os><type>exe</type>\
    <init>/etc/container</init></os><devices><filesystem type='mount'><source dir='ROOT'/><target dir='/'/>\
    </filesystem></devices></domain>";

/// Which hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// QEMU, without a daemon.
    Embedded,
    /// QEMU of a libvirtd.
    System,
    /// Containers of a libvirtd.
    Lxc,
}

impl Kind {
    /// The phases of a life there.
    pub(crate) fn phases(self) -> &'static [Phase] {
        match self {
            // A container's root is always a copy.
            Self::Lxc => &[Phase::Allocate, Phase::PowerOn, Phase::Teardown],
            Self::Embedded | Self::System => &[
                Phase::Allocate,
                Phase::PowerOn,
                Phase::FullClone,
                Phase::Teardown,
            ],
        }
    }
}

/// A home with run files for one hypervisor.
pub(crate) struct Arena {
    kind: Kind,
    home: Home,
    daemon: Option<PrivateDaemon>,
    /// One at a time: they share two cores.
    _alone: MutexGuard<'static, ()>,
}

/// How an undisturbed run goes.
#[derive(Debug)]
pub(crate) struct Usual {
    /// After which lines of its record a run can be cut off.
    pub(crate) steps: Vec<usize>,
    seconds: BTreeMap<(&'static str, &'static str), f64>,
}

impl Usual {
    /// How long a phase lasts.
    pub(crate) fn length(&self, phase: Phase) -> Duration {
        let found = self.seconds.get(&(phase.file(), phase.step()));
        Duration::from_secs_f64(*found.expect("every phase was seen"))
    }
}

impl Arena {
    pub(crate) fn new(kind: Kind) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // Containers are the host's daemon's: in namespaces of its own a daemon does not end them.
        let daemon = (kind == Kind::System).then(PrivateDaemon::start);
        let arena = Self {
            kind,
            home: Home::passable(),
            daemon,
            _alone: alone,
        };
        arena.home.runtime();
        std::fs::create_dir(arena.home.path("pool")).expect("the home is writable");
        // Nothing to boot: what matters is what the host has to do. The large one takes its time to be copied.
        let block: Vec<u8> = (0..1_u32 << 20).map(|byte| (byte % 251) as u8).collect();
        arena.home.write("small.img", &block);
        arena.home.write("large.img", block.repeat(192));
        if kind == Kind::Lxc {
            let root = guest("container");
            let xml = CONTAINER.replace("ROOT", &root.to_string_lossy());
            arena.home.write("container.xml", xml);
        }
        arena.write("run.json", "small.img", true, &[]);
        arena.write("copy.json", "large.img", false, &[]);
        let wait = json!({ "step": "wait", "for": "never", "timeout": "20m" });
        arena.write("long.json", "small.img", true, &[wait]);
        arena
    }

    fn write(&self, name: &str, image: &str, copy_on_write: bool, more: &[Value]) {
        let machine = json!({
            "memory": "64MiB",
            "disk": {
                "image": self.home.path(image),
                "clone": { "copy_on_write": copy_on_write, "storage_pool_path": "pool" },
            },
        });
        let context = match (&self.daemon, self.kind) {
            (_, Kind::Lxc) => json!({
                "hypervisor": "lxc:///",
                "domain": {
                    "configuration": "container.xml",
                    "filesystem": { "source_path": "pool", "target_path": "/mnt/shared" },
                },
            }),
            (Some(daemon), _) => {
                let mut context = machine;
                context["hypervisor"] = json!(daemon.uri());
                context["network"] = json!({
                    "dynamic_address": { "ipv4": "10.213.0.0", "prefix": 16, "subnet_prefix": 24 },
                });
                context
            }
            (None, _) => machine,
        };
        let mut protocol = vec![json!({ "step": "poweron" })];
        protocol.extend_from_slice(more);
        let run = json!({
            "version": 1,
            "context": context,
            "hooks": { "hooks": [] },
            "protocol": protocol,
        });
        let text = serde_json::to_vec_pretty(&run).expect("it is JSON");
        self.home.write(name, text);
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn daemon(&self) -> Option<&PrivateDaemon> {
        self.daemon.as_ref()
    }

    /// The daemon, to be killed.
    pub(crate) fn daemon_mut(&mut self) -> &mut PrivateDaemon {
        self.daemon.as_mut().expect("this hypervisor has a daemon")
    }

    /// A run that collects nothing beforehand.
    pub(crate) fn run(&self, file: &str) -> Command {
        self.seectl(&["run", file, "--no-gc", "--output", "json"])
    }

    pub(crate) fn seectl(&self, words: &[&str]) -> Command {
        let mut command = self.home.seectl();
        command.args(words);
        match &self.daemon {
            Some(daemon) => daemon.beside(command),
            // What embedded runs keep in the folder for temporary files, they keep in the home.
            None if self.kind == Kind::Embedded => {
                command.env("TMPDIR", self.home.runtime());
                command
            }
            None => command,
        }
    }

    pub(crate) fn collect(&self) -> Outcome {
        self.collect_with(&[])
    }

    pub(crate) fn collect_with(&self, options: &[&str]) -> Outcome {
        let words = [&["gc", "--output", "json"], options].concat();
        Live::start(&mut self.seectl(&words)).finish(COLLECTION)
    }

    /// Lets runs come to their end, as many at once as will be cut off, to see how they go.
    pub(crate) fn usual(&self, at_once: usize) -> Usual {
        let mut live = Live::start(&mut self.run("run.json"));
        let identifier = identifier_of(&mut live);
        let record = Follower::new(&self.home, &identifier).whole(&mut live);
        let alone = live.finish(PATIENCE);
        assert_eq!(alone.code, Some(0), "{alone:#?}");

        let mut seconds = BTreeMap::new();
        let mut files: Vec<&str> = self
            .kind
            .phases()
            .iter()
            .map(|phase| phase.file())
            .collect();
        files.sort_unstable();
        files.dedup();
        for file in files {
            let cut = Cut {
                file,
                at: At::Never,
                with: rustix::process::Signal::KILL,
            };
            for victim in fire(self, &vec![cut; at_once]) {
                assert_eq!(victim.outcome.code, Some(0), "{:#?}", victim.outcome);
                for phase in self.kind.phases() {
                    let result = victim.outcome.result();
                    let steps = result["result"]["steps"].as_array().expect("steps").clone();
                    let took = steps.iter().find(|step| step["step"] == phase.step());
                    let took = took.and_then(|step| step["seconds"].as_f64());
                    let took = took.expect("every step is timed");
                    // The shortest: an instant that comes too late tells of another phase.
                    let shortest = seconds.entry((file, phase.step())).or_insert(took);
                    *shortest = f64::min(*shortest, took);
                }
            }
        }
        Usual {
            steps: steps(&record),
            seconds,
        }
    }

    /// What is on the host of these environments, once the kernel and the daemon have let go.
    pub(crate) fn left_of(&self, identifiers: &[&str]) -> Vec<String> {
        let end = Instant::now() + LETTING_GO;
        loop {
            let found = self.now_of(identifiers);
            if found.is_empty() || Instant::now() >= end {
                return found;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn now_of(&self, identifiers: &[&str]) -> Vec<String> {
        let mut found: Vec<String> = identifiers.iter().flat_map(|one| remains(one)).collect();
        let mut texts: Vec<String> = Vec::new();
        for folder in ["t", "pool"] {
            let entries = std::fs::read_dir(self.home.path(folder)).expect("a folder of the home");
            texts.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path().display().to_string()),
            );
        }
        if let Some(daemon) = &self.daemon {
            texts.extend(daemon.objects(""));
            let script = "find /run/libvirt /var/lib/libvirt /etc/libvirt; \
                          ip -o link; nft list ruleset; cat /var/lib/libvirt/dnsmasq/*.status 2>/dev/null || true";
            let told = daemon.told("sh", &["-c", script]);
            texts.extend(told.lines().map(str::to_owned));
        }
        for identifier in identifiers {
            let own = texts.iter().filter(|text| bears(text, identifier));
            found.extend(own.cloned());
        }
        for identifier in self.home.recorded() {
            if identifiers.contains(&identifier.as_str()) {
                found.push(format!("the record {:#?}", self.home.record(&identifier)));
            }
        }
        found.retain(|line| !line.contains(crate::decoys::DECOY));
        found
    }
}
