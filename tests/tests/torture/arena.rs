//! Where runs are tortured: a home, a hypervisor, the run files, and what is left of them.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use see_tests::{Home, Live, Outcome, PrivateDaemon, bears, is_campaign, remains};
use serde_json::Value;

use crate::files::{self, Net};
use crate::instants::{Follower, Phase, made, steps};
use crate::volley::{Cut, fire, identifier_of};

/// The longest wait for anything that a run does, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The longest that a collection takes.
const COLLECTION: Duration = Duration::from_secs(90);
/// How long the kernel and the daemon may take to let go of what has ended.
const LETTING_GO: Duration = Duration::from_secs(15);

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
    /// The name of the dice for its instants: those of the kills and of the signals are the same.
    pub(crate) fn dice(self) -> &'static str {
        match self {
            Self::Embedded => "instants of embedded runs",
            Self::System => "instants of a daemon's runs",
            Self::Lxc => "instants of containers",
        }
    }

    /// What machines there are connected to, in turns.
    pub(crate) fn nets(self) -> &'static [Net] {
        match self {
            Self::Embedded => &[Net::None],
            Self::System | Self::Lxc => &[Net::Subnet, Net::Isolated, Net::Shared],
        }
    }
}

/// A home with run files for one hypervisor.
pub(crate) struct Arena {
    kind: Kind,
    home: Home,
    daemon: Option<PrivateDaemon>,
}

/// After how many lines of their records runs are cut off, for each network.
pub(crate) type Steps = Vec<(Net, Vec<usize>)>;

/// How undisturbed runs go.
#[derive(Debug)]
pub(crate) struct Usual {
    /// After which lines of its record a run can be cut off, of each network.
    pub(crate) steps: Steps,
    /// The same of a run with a full clone, until all of it is made.
    pub(crate) clone_steps: Steps,
    /// How many lines a whole machine's record has, of each network.
    made: BTreeMap<Net, usize>,
    seconds: BTreeMap<(Net, &'static str, &'static str), f64>,
}

impl Usual {
    /// How long a phase lasts.
    pub(crate) fn length(&self, net: Net, phase: Phase) -> Duration {
        let found = self.seconds.get(&(net, phase.file(), phase.step()));
        Duration::from_secs_f64(*found.expect("every phase was seen"))
    }

    /// The ledger's steps at which runs are cut off: what they are called, of which run file, and where. In a
    /// campaign at each step of each network, else at each with one of them, in turns.
    pub(crate) fn ledger(&self) -> [(&'static str, &'static str, Steps); 2] {
        let count = self.steps.len();
        let of_whole = |(at, (net, lines)): (usize, &(Net, Vec<usize>))| {
            let turn = lines.iter().enumerate();
            let turn = turn.filter(|(step, _)| is_campaign() || step % count == at);
            (*net, turn.map(|(_, lines)| *lines).collect())
        };
        let whole = self.steps.iter().enumerate().map(of_whole).collect();
        let clone = self.clone_steps.clone();
        [
            ("ledger steps", "run.json", whole),
            ("ledger steps of a full clone", "copy.json", clone),
        ]
    }

    /// Whether a run with so many lines in its record has not begun to end.
    pub(crate) fn is_making(&self, net: Net, lines: usize) -> bool {
        lines <= self.made[&net]
    }
}

impl Arena {
    pub(crate) fn new(kind: Kind) -> Self {
        let daemon = (kind != Kind::Embedded).then(PrivateDaemon::start);
        let home = Home::passable();
        home.runtime();
        files::write(&home, kind, daemon.as_ref());
        Self { kind, home, daemon }
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
            None => {
                command.env("TMPDIR", self.home.runtime());
                command
            }
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
        let mut usual = Usual {
            steps: Vec::new(),
            clone_steps: Vec::new(),
            made: BTreeMap::new(),
            seconds: BTreeMap::new(),
        };
        for net in self.kind.nets() {
            let record = self.record(&net.file("run.json"));
            usual.made.insert(*net, made(&record));
            usual.steps.push((*net, steps(&record)));
        }
        let net = self.kind.nets()[0];
        let record = self.record(&net.file("copy.json"));
        let made = made(&record);
        let steps = steps(&record).into_iter().filter(|lines| *lines <= made);
        usual.clone_steps.push((net, steps.collect()));

        for file in ["run.json", "copy.json"] {
            let nets = self.kind.nets().iter().cycle();
            let cuts: Vec<Cut> = nets
                .take(at_once)
                .map(|net| Cut::never(file, *net))
                .collect();
            for victim in fire(self, &cuts) {
                assert_eq!(victim.outcome.code, Some(0), "{:#?}", victim.outcome);
                for phase in Phase::ALL.iter().filter(|phase| phase.file() == file) {
                    let result = victim.outcome.result();
                    let steps = result["result"]["steps"].as_array().expect("steps").clone();
                    let took = steps.iter().find(|step| step["step"] == phase.step());
                    let took = took.and_then(|step| step["seconds"].as_f64());
                    let took = took.expect("every step is timed");
                    // The shortest: an instant that comes too late tells of another phase.
                    let key = (victim.cut.net, file, phase.step());
                    let shortest = usual.seconds.entry(key).or_insert(took);
                    *shortest = f64::min(*shortest, took);
                }
            }
        }
        usual
    }

    /// The whole record of a run that comes to its end.
    fn record(&self, file: &str) -> Vec<Value> {
        let mut live = Live::start(&mut self.run(file));
        let identifier = identifier_of(&mut live);
        let record = Follower::new(&self.home, &identifier).whole(&mut live);
        let alone = live.finish(PATIENCE);
        assert_eq!(alone.code, Some(0), "{alone:#?}");
        record
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

    /// What is in a daemon of its own, whosever it is, once all runs are over.
    pub(crate) fn left_at_all(&self) -> Vec<String> {
        let Some(daemon) = &self.daemon else {
            return Vec::new();
        };
        let end = Instant::now() + LETTING_GO;
        loop {
            let found = [daemon.objects(""), daemon.traces()].concat();
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
            texts.extend(daemon.traces());
            let script =
                "nft list ruleset; cat /var/lib/libvirt/dnsmasq/*.status 2>/dev/null || true";
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
