//! `seectl` ends at any instant, and nothing is left: killed, `seectl gc` collects it; interrupted, it tidies
//! up itself.
//!
//! `SEE_KILLS` says how often a run is killed: five times at chosen points, and beyond that at random instants.
//! `SEE_SEED` repeats the same ones.

#![expect(clippy::print_stdout, reason = "a campaign reads the counts")]

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use see_tests::{Footprint, Home, Live, Outcome, emulator, remains, until};
use serde_json::{Value, json};

/// The longest wait for anything that a run does; the guest boots emulated, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest that a collection takes.
const COLLECTION: Duration = Duration::from_secs(60);
/// What a person waits for after a second Ctrl-C.
const AT_ONCE: Duration = Duration::from_secs(3);

/// The program that makes disks.
const DISK_MAKER: &str = "qemu-img";

/// The exit codes that `seectl --help` documents.
const OK: Option<i32> = Some(0);
const INTERRUPTED: Option<i32> = Some(130);
const TERMINATED: Option<i32> = Some(143);

/// When a run is killed.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// Its record was just written; nothing was made.
    Recorded,
    /// The disk is being made.
    Storing,
    /// Its network has just appeared.
    Networked,
    /// The machine was just started.
    Started,
    /// The sample runs in it.
    Sampling,
    /// The machine was just ended, the rest is still there.
    TearingDown,
    /// So long after the start.
    After(Duration),
}

#[test]
fn a_killed_run_is_collected_and_nothing_else_is_touched() {
    let _alone = alone();
    let seed = number(&["SEE_SEED", "SEE_CAMPAIGN_SEED"]).unwrap_or_else(now);
    let kills = number(&["SEE_KILLS", "SEE_CAMPAIGN_COUNT"]).unwrap_or(5);
    println!("SEE_KILLS={kills} SEE_SEED={seed}");
    let home = home(Home::new());
    let mut foreign = Foreign::start(&home);

    let mut points = vec![
        Point::Recorded,
        Point::Storing,
        Point::Started,
        Point::Sampling,
        Point::TearingDown,
    ];
    points.truncate(usize::try_from(kills).expect("a count of kills"));
    let chosen = points.len();
    if kills > 5 {
        // An undisturbed run says how long the instants are spread.
        let begin = Instant::now();
        let whole = Live::start(&mut run(&home, "run.json", "quick.sh")).finish(PATIENCE);
        assert_eq!(whole.code, OK, "{whole:#?}");
        let span = begin.elapsed();
        let mut dice = Dice(seed);
        points.extend((5..kills).map(|_| Point::After(span.mul_f64(dice.roll()))));
    }
    let mut leaks = Vec::new();
    for (index, point) in points.iter().enumerate() {
        foreign.ensure(&home);
        let left = kill_and_collect(&home, *point, &mut foreign, index < chosen);
        leaks.extend(left.into_iter().map(|left| format!("{point:?}: {left}")));
    }
    foreign.end();
    assert_eq!(home.recorded(), Vec::<String>::new());
    println!("instants tried: {}, leaks: {}", points.len(), leaks.len());
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn a_run_of_the_system_daemon_that_is_killed_is_collected_with_its_network() {
    let _alone = alone();
    let home = home(Home::passable());
    let context = json!({
        "hypervisor": "qemu:///system",
        "memory": "128MiB",
        "disk": { "image": home.guest("guest.qcow2") },
        "network": { "dynamic_address": { "ipv4": "10.213.0.0", "prefix": 16, "subnet_prefix": 24 } },
    });
    write_run(&home, "run.json", &context, true);
    let mut foreign = Foreign::start(&home);
    let mut leaks = Vec::new();
    for point in [Point::Networked, Point::Sampling] {
        foreign.ensure(&home);
        leaks.extend(kill_and_collect(&home, point, &mut foreign, true));
    }
    foreign.end();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn one_interrupt_or_termination_ends_a_run_in_order_and_leaves_nothing() {
    let _alone = alone();
    let home = home(Home::new());
    for (signal, code) in [(Signal::INT, INTERRUPTED), (Signal::TERM, TERMINATED)] {
        let mut live = Live::start(&mut run(&home, "run.json", "long.sh"));
        let identifier = sampling(&mut live);
        live.signal(signal);
        let outcome = live.finish(PATIENCE);
        assert_eq!(outcome.code, code, "{outcome:#?}");
        assert_eq!(result(&outcome)["identifier"], identifier.as_str());
        assert_eq!(home.recorded(), Vec::<String>::new(), "{outcome:#?}");
        assert_eq!(traces(&home, &identifier), Vec::<String>::new());
    }
}

#[test]
fn an_interrupt_while_the_disk_is_made_leaves_nothing() {
    let _alone = alone();
    let home = home(Home::new());
    let mut live = Live::start(&mut run(&home, "copy.json", "quick.sh"));
    let identifier = reach(&home, &mut live, Point::Storing, &[]).expect("a run makes its disk");
    live.signal(Signal::INT);
    let outcome = live.finish(PATIENCE);
    assert_eq!(outcome.code, INTERRUPTED, "{outcome:#?}");
    assert_eq!(home.recorded(), Vec::<String>::new(), "{outcome:#?}");
    assert_eq!(traces(&home, &identifier), Vec::<String>::new());
}

#[test]
fn a_second_interrupt_ends_a_run_at_once_and_the_rest_is_collected() {
    let _alone = alone();
    let home = home(Home::new());
    let mut live = Live::start(&mut run(&home, "run.json", "long.sh"));
    let identifier = sampling(&mut live);
    // An emulator that does not react makes the orderly end take its time.
    let emulator = emulator(&identifier).expect("the machine runs");
    signal(emulator, Signal::STOP);
    live.signal(Signal::INT);
    live.wait_for("note of the first signal", PATIENCE, |line| {
        line.get("note").is_some()
    })
    .expect("the first signal is told");
    let begin = Instant::now();
    live.signal(Signal::INT);
    let outcome = live.finish(PATIENCE);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    assert_eq!(outcome.code, INTERRUPTED, "{outcome:#?}");
    assert!(outcome.stderr.contains("seectl gc"), "{outcome:#?}");
    assert_eq!(home.recorded(), [identifier.as_str()]);

    let gone = collect(&home, &[]);
    assert_eq!(gone.code, OK, "{gone:#?}");
    assert_eq!(home.recorded(), Vec::<String>::new());
    assert_eq!(traces(&home, &identifier), Vec::<String>::new());
}

/// Kills a run at this point and collects it. What is left that should not be, and what is gone that should be
/// left.
fn kill_and_collect(
    home: &Home,
    point: Point,
    foreign: &mut Foreign,
    thorough: bool,
) -> Vec<String> {
    let file = match point {
        Point::Storing => "copy.json",
        Point::TearingDown => "short.json",
        _ => "run.json",
    };
    let known = home.recorded();
    let mut live = Live::start(&mut run(home, file, "quick.sh"));
    let mut identifier = reach(home, &mut live, point, &known);
    let outcome = live.kill();
    if !matches!(point, Point::After(_)) {
        assert!(identifier.is_some(), "ended before {point:?}: {outcome:#?}");
        assert_eq!(outcome.code, None, "ended before {point:?}: {outcome:#?}");
    }
    // At a random instant the record may be a moment younger than the last look.
    identifier = identifier.or_else(|| newcomer(home, &known));
    let Some(identifier) = identifier else {
        // Nothing was written down, so nothing may have been made.
        let gone = collect(home, &[]);
        return problem(gone.code != OK, || ill(&gone))
            .into_iter()
            .collect();
    };

    let paths = home.recorded_paths(&identifier);
    let mut problems = Vec::new();
    let mut decoys = Decoys::lay(home, &identifier);
    if thorough {
        let before = lasting(home, &identifier);
        let record = home.record(&identifier);
        let dry = collect(home, &["--dry-run"]);
        problems.extend(problem(dry.code != OK, || ill(&dry)));
        let kept = home.record(&identifier) == record;
        problems.extend(problem(!kept, || "a dry run changed the record".to_owned()));
        // More there may be: a daemon ends what it was asked for, though nobody waits for it.
        let after = lasting(home, &identifier);
        let lost = before.iter().filter(|trace| !after.contains(trace));
        problems.extend(lost.map(|trace| format!("a dry run removed {trace}")));
    }
    let gone = collect(home, &[]);
    problems.extend(problem(gone.code != OK, || {
        format!("collection: {gone:#?}")
    }));
    problems.extend(traces(home, &identifier));
    problems.extend(
        paths
            .iter()
            .filter(|path| path.symlink_metadata().is_ok())
            .map(|path| format!("left: {}", path.display())),
    );
    problems.extend(problem(home.recorded().contains(&identifier), || {
        format!("the record is left: {:#?}", home.record(&identifier))
    }));
    problems.extend(decoys.damage());
    problems.extend(foreign.damage());
    problems
}

/// Watches a run until it is where it is to be killed. Its identifier; `None` when it had none yet or is over.
fn reach(home: &Home, live: &mut Live, point: Point, known: &[String]) -> Option<String> {
    let begin = Instant::now();
    if let Point::After(delay) = point {
        until("an instant", delay + PATIENCE, || {
            begin.elapsed() >= delay || !live.runs()
        });
        return newcomer(home, known);
    }
    let mut identifier = None;
    until("a record", PATIENCE, || {
        identifier = newcomer(home, known);
        identifier.is_some() || !live.runs()
    });
    let identifier = identifier?;
    match point {
        Point::Recorded | Point::After(_) => {}
        Point::Storing => {
            let mut maker = None;
            until("the disk to be made", PATIENCE, || {
                maker = process_of(DISK_MAKER, &identifier);
                maker.is_some() || !live.runs()
            });
            // It stays at its work until it is told otherwise.
            signal(maker?, Signal::STOP);
        }
        Point::Networked => {
            let bridge = format!("/sys/class/net/virbr-{}", &identifier[..8]);
            until("the network's bridge", PATIENCE, || {
                std::path::Path::new(&bridge).exists() || !live.runs()
            });
        }
        Point::Started => until("the machine", PATIENCE, || {
            emulator(&identifier).is_some() || !live.runs()
        }),
        Point::Sampling => {
            live.wait_for("sample that runs", PATIENCE, is_sampling)?;
        }
        Point::TearingDown => {
            live.wait_for("end of the sample", PATIENCE, |line| {
                line["event"] == "sample_finished"
            })?;
            until("the machine's end", PATIENCE, || {
                emulator(&identifier).is_none() || !live.runs()
            });
        }
    }
    Some(identifier)
}

/// Waits until the sample of a run is under way; the run's identifier.
fn sampling(live: &mut Live) -> String {
    let begin = live.wait_for("beginning", PATIENCE, |line| line.get("run").is_some());
    let begin = begin.expect("a run says what it is");
    let running = live.wait_for("sample that runs", PATIENCE, is_sampling);
    assert!(running.is_some(), "the sample was not run: {live:#?}");
    let identifier = begin["run"]["identifier"].as_str();
    identifier.expect("a run has an identifier").to_owned()
}

fn is_sampling(line: &Value) -> bool {
    line["event"] == "step_started" && line["attributes"]["step"] == "wait for sample_finished"
}

/// The environment that is in the ledger and was not before.
fn newcomer(home: &Home, known: &[String]) -> Option<String> {
    let mut recorded = home.recorded();
    recorded.retain(|identifier| !known.contains(identifier));
    assert!(recorded.len() < 2, "one run has {recorded:?}");
    recorded.pop()
}

/// Everything on this host that carries the identifier, without the decoys.
fn traces(home: &Home, identifier: &str) -> Vec<String> {
    let digits: String = identifier.chars().filter(|digit| *digit != '-').collect();
    let mut found = remains(identifier);
    let own = std::fs::read_dir(home.runtime()).expect("a home has a runtime folder");
    found.extend(own.flatten().filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.contains(identifier) || name.contains(&digits[..16]);
        ours.then(|| format!("file: {}", entry.path().display()))
    }));
    found.retain(|line| !line.contains(DECOY));
    found.sort();
    found
}

/// Those that do not come and go by themselves while the run's owner is dead: an emulator closes connections of its
/// own accord, and the daemon goes on with what it was asked for.
fn lasting(home: &Home, identifier: &str) -> Vec<String> {
    let mut found = traces(home, identifier);
    found.retain(|line| {
        let passing = line.starts_with("socket") || line.contains("/run/libvirt/");
        !passing && (!line.starts_with("process") || line.contains("qemu"))
    });
    found
}

/// A process of this program with the identifier in its arguments.
fn process_of(program: &str, identifier: &str) -> Option<u32> {
    std::fs::read_dir("/proc")
        .expect("/proc is there")
        .flatten()
        .find(|process| {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let name = line.split('\0').next().unwrap_or_default();
            name.ends_with(program) && line.contains(identifier)
        })
        .and_then(|process| process.file_name().to_str()?.parse().ok())
}

fn signal(process: u32, signal: Signal) {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process number"), signal).expect("a process of ours runs");
}

/// A run of another user of the same home, which nobody may disturb. Its sample takes its time and ends well.
struct Foreign {
    live: Option<Live>,
}

impl Foreign {
    fn start(home: &Home) -> Self {
        let mut live = Live::start(&mut run(home, "foreign.json", "slow.sh"));
        sampling(&mut live);
        Self { live: Some(live) }
    }

    /// Makes sure that one is alive.
    fn ensure(&mut self, home: &Home) {
        let runs = self.live.as_mut().is_some_and(Live::runs);
        if !runs {
            self.end();
            *self = Self::start(home);
        }
    }

    /// Whether it was disturbed: it may have ended meanwhile, but well.
    fn damage(&mut self) -> Vec<String> {
        if self.live.as_mut().is_none_or(Live::runs) {
            return Vec::new();
        }
        let ended = self.live.take().map(|live| live.finish(PATIENCE));
        let ill = ended.filter(|outcome| outcome.code != OK);
        ill.map(|outcome| format!("a foreign run was disturbed: {outcome:#?}"))
            .into_iter()
            .collect()
    }

    fn end(&mut self) {
        if let Some(live) = self.live.take() {
            let outcome = live.finish(PATIENCE);
            assert_eq!(
                outcome.code, OK,
                "a foreign run was disturbed: {outcome:#?}"
            );
        }
    }
}

/// In the name of everything that only looks like a run's.
const DECOY: &str = "decoy";

/// Files and a process that look like those of a dead run, and are somebody else's.
struct Decoys {
    folders: Vec<(std::path::PathBuf, Footprint)>,
    process: Child,
}

impl Decoys {
    fn lay(home: &Home, identifier: &str) -> Self {
        let digits: String = identifier.chars().filter(|digit| *digit != '-').collect();
        let names = [
            home.runtime().join(format!("see-{identifier}-{DECOY}")),
            home.runtime()
                .join(format!("see-{}-{DECOY}", &digits[..16])),
            std::path::PathBuf::from(format!("/var/tmp/see-{identifier}.{DECOY}")),
            home.path(&format!("state/{identifier}.jsonl.{DECOY}")),
        ];
        let folders = names.map(|path| {
            std::fs::create_dir(&path).expect("nobody else has this name");
            std::fs::write(path.join("notes"), identifier).expect("it was just made");
            let footprint = Footprint::of(&path);
            (path, footprint)
        });
        let process = Command::new("sh")
            .args(["-c", "read line", DECOY, "-uuid", identifier])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell can be started");
        Self {
            folders: folders.into(),
            process,
        }
    }

    fn damage(&mut self) -> Vec<String> {
        let mut found: Vec<String> = self
            .folders
            .iter()
            .flat_map(|(path, before)| Footprint::of(path).changes(before))
            .collect();
        let ended = self.process.try_wait().expect("a child can be waited for");
        found.extend(ended.map(|status| format!("the decoy process ended: {status}")));
        found
    }
}

impl Drop for Decoys {
    fn drop(&mut self) {
        for (path, _) in &self.folders {
            // A damaged one was reported.
            let _ = std::fs::remove_dir_all(path);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A home with the run files and the samples of these tests.
fn home(home: Home) -> Home {
    home.runtime();
    home.write("quick.sh", "echo begun; exit 0\n");
    home.write("slow.sh", "sleep 30; echo well\n");
    home.write("long.sh", "echo begun; sleep 600\n");
    let context = |copy_on_write: bool| {
        let mut context = Home::embedded();
        context["memory"] = json!("128MiB");
        context["disk"]["clone"] = json!({ "copy_on_write": copy_on_write });
        context
    };
    write_run(&home, "run.json", &context(true), true);
    write_run(&home, "foreign.json", &context(true), true);
    write_run(&home, "copy.json", &context(false), true);
    write_run(&home, "short.json", &context(true), false);
    home
}

/// Writes a run file; one that is not whole ends while its machine runs.
fn write_run(home: &Home, name: &str, context: &Value, whole: bool) {
    let mut run = json!({
        "version": 1,
        "context": context,
        "hooks": {
            "configuration": { "results_folder": "results" },
            "hooks": [
                { "name": "commands" },
                { "name": "screen", "configuration": { "screenshot_on_event": "snapshots_capture" } },
            ],
        },
    });
    if !whole {
        run["protocol"] = json!([
            { "step": "poweron" },
            { "step": "wait", "for": "ready", "timeout": "60s" },
            { "step": "trigger", "event": "run_sample",
              "attributes": { "sample": "${sample}", "command": "${command}" } },
            { "step": "wait", "for": "sample_finished", "timeout": "${runtime}" },
        ]);
    }
    home.write(name, serde_json::to_vec_pretty(&run).expect("it is JSON"));
}

fn run(home: &Home, file: &str, sample: &str) -> Command {
    let mut command = home.seectl();
    command
        .args(["run", file, "--sample", sample, "--command", "sh {sample}"])
        .args(["--runtime", "90s", "--output", "json"]);
    private_runtime(home, file, &mut command);
    command
}

/// What embedded runs keep in the folder for temporary files, they keep in the home. The system daemon's
/// emulators would not get there.
fn private_runtime(home: &Home, file: &str, command: &mut Command) {
    let text = std::fs::read_to_string(home.path(file)).unwrap_or_default();
    if !text.contains("qemu:///") {
        command.env("TMPDIR", home.runtime());
    }
}

fn collect(home: &Home, options: &[&str]) -> Outcome {
    let mut command = home.seectl();
    command.arg("gc").args(options).args(["--output", "json"]);
    Live::start(&mut command).finish(COLLECTION)
}

/// What a collection could not do.
fn ill(collection: &Outcome) -> String {
    let bad = |line: &&str| !line.contains("\"outcome\":\"alive\"");
    let lines: Vec<&str> = collection.stdout.lines().filter(bad).collect();
    format!(
        "exit code {:?}: {lines:#?} {}",
        collection.code, collection.stderr
    )
}

fn result(outcome: &Outcome) -> Value {
    outcome.result()["result"].clone()
}

fn problem(is: bool, text: impl FnOnce() -> String) -> Option<String> {
    is.then(text)
}

/// One machine test at a time: they share two cores with their guests.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first of these variables that is set; a campaign uses the same ones for all its programs.
fn number(variables: &[&str]) -> Option<u64> {
    let set = variables
        .iter()
        .find_map(|name| Some((name, std::env::var(name).ok()?)));
    let (name, text) = set?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    /// The next one, from 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}
