//! A libvirtd that hangs, or is killed and comes back, in the middle of what a run does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use see_core::{AllocateOptions, EndLimits, ErrorKind, SandboxState};
use see_tests::{
    Dice, Home, Lab, Live, PrivateDaemon, Watched, assert_nothing_remains, emulator, rounds, until,
};
use serde_json::json;

/// The longest wait for anything, on a busy host.
const PATIENCE: Duration = Duration::from_secs(40);
/// What a collection may take that gives one machine its minute.
const REMOVAL: Duration = Duration::from_secs(90);
/// What a change of power and a release get here.
const SHORT: Duration = Duration::from_secs(2);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("there are threads")
}

/// A machine of this daemon's with an agent's channel; nobody waits for it to boot.
fn run_file(home: &Home, daemon: &PrivateDaemon) -> PathBuf {
    home.run_file(json!({
        "hypervisor": daemon.uri(),
        "memory": "64MiB",
        "disk": { "image": home.guest("guest.qcow2") },
    }))
}

/// A container of this daemon's, which nobody asks anything.
fn container(home: &Home, daemon: &PrivateDaemon) -> PathBuf {
    let root = see_tests::guest("container");
    let xml = "<domain type='lxc'><memory unit='MiB'>64</memory>\
        <os><type>exe</type><init>/etc/container</init></os><devices>\
        <filesystem type='mount'><source dir='ROOT'/><target dir='/'/></filesystem></devices></domain>";
    let xml = xml.replace("ROOT", &root.to_string_lossy());
    home.write("container.xml", xml);
    let run = json!({
        "version": 1,
        "context": {
            "hypervisor": daemon.lxc_uri(),
            "domain": { "configuration": "container.xml" },
            "agent": { "transport": "none" },
        },
        "protocol": [{ "step": "poweron" }, { "step": "wait", "timeout": "300s" }],
    });
    home.write("run.json", run.to_string())
}

async fn poweron(watched: &mut Watched) {
    let mut turn = watched.environment.turn().await.expect("the turn");
    turn.poweron().await.expect("it starts");
}

/// Starts the machine, which on a busy host may take longer than the time for one change of its power.
async fn start(watched: &mut Watched) {
    let mut turn = watched.environment.turn().await.expect("the turn");
    let _ = turn.poweron().await;
    let begin = Instant::now();
    while turn.machine().state().await.ok() != Some(SandboxState::Running) {
        assert!(begin.elapsed() < PATIENCE, "it does not start");
        tokio::task::yield_now().await;
    }
}

/// Fails unless nothing of the environment is left in the daemon, the ledger and the host.
fn assert_gone(home: &Home, daemon: &PrivateDaemon, identifier: &str) {
    until("the daemon to have let go of it", PATIENCE, || {
        daemon.objects(identifier).is_empty()
    });
    assert_eq!(home.recorded(), Vec::<String>::new());
    assert_nothing_remains(identifier);
}

#[test]
fn a_hung_libvirtd_holds_nobody_longer_than_the_deadline_and_what_it_leaves_is_collected() {
    runtime().block_on(async {
        let mut daemon = PrivateDaemon::start();
        let home = Home::passable();
        let lab = Lab::new(&home);
        let options = AllocateOptions {
            end: EndLimits {
                power: SHORT,
                release: SHORT,
                removal: SHORT,
                ..EndLimits::default()
            },
            ..AllocateOptions::default()
        };
        let run_file = run_file(&home, &daemon);
        let allocated = lab.allocate_with(&run_file, options).await;
        let mut watched = allocated.expect("a sandbox");
        let identifier = watched.identifier();
        start(&mut watched).await;

        daemon.pause();
        let begin = Instant::now();
        let mut turn = watched.environment.turn().await.expect("the turn");
        let paused = turn.pause().await.expect_err("nobody answers");
        assert_eq!(paused.kind(), ErrorKind::Timeout, "{paused}");
        assert!(
            paused.message().contains("for the hypervisor"),
            "it does not say for what it waited: {paused}"
        );
        drop(turn);
        let teardown = watched.environment.deallocate().await;
        assert!(!teardown.is_clean(), "nobody could remove it");
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        assert_eq!(home.recorded(), std::slice::from_ref(&identifier));

        daemon.cont();
        // What was asked of the daemon meanwhile still happens; the rest is for the collection.
        lab.finish().await;
        let collected = home.run(["gc"], PATIENCE);
        assert_eq!(collected.code, Some(0), "{collected:#?}");
        assert_gone(&home, &daemon, &identifier);
    });
}

#[test]
fn a_shutdown_by_a_hung_libvirtd_ends_soon_after_its_deadline_and_says_for_what_it_waited() {
    runtime().block_on(async {
        let mut daemon = PrivateDaemon::start();
        let home = Home::passable();
        let lab = Lab::new(&home);
        let options = AllocateOptions {
            end: EndLimits {
                power: SHORT,
                ..EndLimits::default()
            },
            ..AllocateOptions::default()
        };
        let allocated = lab.allocate_with(&run_file(&home, &daemon), options).await;
        let mut watched = allocated.expect("a sandbox");
        let identifier = watched.identifier();
        start(&mut watched).await;

        daemon.pause();
        let begin = Instant::now();
        let mut turn = watched.environment.turn().await.expect("the turn");
        // Its own time, then that of the cut, which nobody makes either.
        let shutdown = turn.shutdown(SHORT).await.expect_err("nobody answers");
        drop(turn);
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        assert_eq!(shutdown.kind(), ErrorKind::Timeout, "{shutdown}");
        assert_eq!(shutdown.operation(), Some("poweroff"), "{shutdown}");
        daemon.cont();
        watched.end().await;
        lab.finish().await;
        assert_gone(&home, &daemon, &identifier);
    });
}

#[test]
fn a_shutdown_of_a_daemons_emulator_that_hangs_is_forced_at_its_deadline() {
    runtime().block_on(async {
        let daemon = PrivateDaemon::start();
        let home = Home::passable();
        let lab = Lab::new(&home);
        let allocated = lab.allocate(&run_file(&home, &daemon)).await;
        let mut watched = allocated.expect("a sandbox");
        let identifier = watched.identifier();
        poweron(&mut watched).await;
        let pid = emulator(&identifier).expect("it runs");
        let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
        kill_process(pid, Signal::STOP).expect("it is ours");

        let begin = Instant::now();
        let mut turn = watched.environment.turn().await.expect("the turn");
        let shutdown = turn.shutdown(SHORT).await.expect("its power is cut");
        drop(turn);
        assert!(shutdown.forced);
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        assert_eq!(emulator(&identifier), None);
        watched.end().await;
        lab.finish().await;
        assert_gone(&home, &daemon, &identifier);
    });
}

#[test]
fn an_allocation_by_a_hung_libvirtd_stops_when_it_is_told_to_and_leaves_nothing() {
    let mut daemon = PrivateDaemon::start();
    let home = Home::passable();
    let run_file = run_file(&home, &daemon);
    let mut command = home.seectl();
    command
        .args(["run", "--no-gc", "--output", "json"])
        .arg(run_file);
    let mut live = Live::start(&mut command);
    // It has spoken to the daemon, and is about to have the domain defined by it.
    let mut identifier = String::new();
    until("something that was written down", PATIENCE, || {
        assert!(live.runs(), "it ended before: {live:#?}");
        identifier = home.recorded().pop().unwrap_or_default();
        !home.record(&identifier).is_empty()
    });
    daemon.pause();
    live.signal(Signal::TERM);
    // libvirt's calls have half a minute each.
    let outcome = live.finish(3 * PATIENCE);
    daemon.cont();
    assert!(
        outcome.code.is_some(),
        "it did not end by itself: {outcome:#?}"
    );
    if !home.recorded().is_empty() {
        let collected = home.run(["gc"], PATIENCE);
        assert_eq!(collected.code, Some(0), "{collected:#?}");
    }
    assert_gone(&home, &daemon, &identifier);
}

#[test]
fn a_guest_that_ends_while_its_libvirtd_is_away_is_told_once_the_daemon_is_back() {
    runtime().block_on(async {
        let mut daemon = PrivateDaemon::start();
        let home = Home::passable();
        let lab = Lab::new(&home);
        let run_file = run_file(&home, &daemon);
        let mut watched = lab.allocate(&run_file).await.expect("a sandbox");
        let identifier = watched.identifier();
        poweron(&mut watched).await;

        // A daemon that was away for a moment finds the machine, and the machine its daemon.
        daemon.kill();
        daemon.restart();
        let machine = watched.environment.machine().clone();
        let state = machine.state().await.expect("it is connected again");
        assert_eq!(state, SandboxState::Running);
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.pause().await.expect("it is suspended");
        turn.resume().await.expect("it goes on");
        drop(turn);

        daemon.kill();
        let pid = emulator(&identifier).expect("it outlives its daemon");
        let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
        kill_process(pid, Signal::KILL).expect("it is ours");
        until("the emulator's end", PATIENCE, || {
            emulator(&identifier).is_none()
        });
        daemon.restart();
        let end = Instant::now() + PATIENCE;
        loop {
            let names = watched.names();
            if names.iter().any(|name| name.starts_with("guest_")) {
                break;
            }
            assert!(Instant::now() < end, "its end was not told: {names:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(machine.state().await.expect("a state").is_off());
        watched.end().await;
        lab.finish().await;
        assert_gone(&home, &daemon, &identifier);
    });
}

/// A run with a machine that runs, whose owner is killed.
fn orphan(home: &Home, daemon: &PrivateDaemon) -> String {
    orphan_of(home, &run_file(home, daemon))
}

/// The same with this run file.
fn orphan_of(home: &Home, run_file: &std::path::Path) -> String {
    let mut command = home.seectl();
    command
        .args(["run", "--no-gc", "--output", "json"])
        .arg(run_file);
    let mut live = Live::start(&mut command);
    let begun = live.wait_for("beginning", PATIENCE, |line| line.get("run").is_some());
    let identifier = begun.expect("it begins")["run"]["identifier"].clone();
    let identifier = identifier.as_str().expect("an identifier").to_owned();
    live.wait_for("machine that runs", PATIENCE, |line| {
        line["event"] == "post_poweron"
    })
    .expect("it starts");
    drop(live.kill());
    identifier
}

#[test]
fn a_machine_that_does_not_end_stays_in_the_ledger_and_a_later_collection_ends_it() {
    let daemon = PrivateDaemon::start();
    let home = Home::passable();
    let identifier = orphan(&home, &daemon);

    // Killed, and yet not gone: libvirt gives up on it.
    daemon.neglect();
    let collected = home.run(["gc"], REMOVAL);
    daemon.attend();
    assert_eq!(collected.code, Some(6), "{collected:#?}");
    assert_eq!(home.recorded(), std::slice::from_ref(&identifier));
    assert!(!daemon.objects(&identifier).is_empty(), "{collected:#?}");

    let collected = home.run(["gc"], PATIENCE);
    assert_eq!(collected.code, Some(0), "{collected:#?}");
    assert_gone(&home, &daemon, &identifier);
}

#[test]
fn a_machine_whose_daemon_is_gone_stays_in_the_ledger_and_a_later_collection_ends_it() {
    let mut daemon = PrivateDaemon::start();
    let home = Home::passable();
    let identifier = orphan(&home, &daemon);

    daemon.kill();
    let collected = home.run(["gc"], PATIENCE);
    assert_eq!(collected.code, Some(6), "{collected:#?}");
    assert_eq!(home.recorded(), std::slice::from_ref(&identifier));
    assert!(emulator(&identifier).is_some(), "{collected:#?}");

    daemon.restart();
    let collected = home.run(["gc"], PATIENCE);
    assert_eq!(collected.code, Some(0), "{collected:#?}");
    assert_gone(&home, &daemon, &identifier);
}

#[test]
fn a_container_that_its_daemon_forgot_is_ended_by_a_collection() {
    forget(|_| {});
}

#[test]
fn a_container_whose_controller_is_gone_is_ended_by_a_collection_also_when_it_is_frozen() {
    forget(|controller| {
        let group = std::fs::read_to_string(format!("/proc/{controller}/cgroup"));
        let group = group.expect("it runs");
        let freezer = group.lines().find_map(|line| line.split_once(":freezer:"));
        // Version 2 ends frozen processes by itself.
        if let Some((_, path)) = freezer {
            let state = format!("/sys/fs/cgroup/freezer{path}/freezer.state");
            std::fs::write(state, "FROZEN").expect("root may");
        }
        let controller = i32::try_from(controller).ok().and_then(Pid::from_raw);
        kill_process(controller.expect("a process"), Signal::KILL).expect("it is ours");
    });
}

/// Makes a daemon forget a container, of whose controller something becomes meanwhile, and collects.
fn forget(becomes: impl Fn(u32)) {
    let mut daemon = PrivateDaemon::start();
    let home = Home::passable();
    let run_file = container(&home, &daemon);
    let identifier = orphan_of(&home, &run_file);
    let of_it = |line: &str| line.contains("libvirt_lxc") && line.contains(&identifier);
    let all = daemon.processes();
    let controller = all.iter().find(|(_, line)| of_it(line));
    let (controller, _) = controller.expect("the container has a controller");
    let children = format!("/proc/{controller}/task/{controller}/children");
    let first = std::fs::read_to_string(children).expect("it runs");
    let first = std::path::PathBuf::from(format!("/proc/{}", first.trim()));
    assert!(first.join("stat").exists(), "the container runs: {first:?}");

    // As one that dies before it writes down what it has started.
    daemon.kill();
    daemon.told("rm", &["-f", &format!("/run/libvirt/lxc/{identifier}.xml")]);
    becomes(*controller);
    daemon.restart();
    assert!(first.exists(), "its end was not ours");

    let collected = home.run(["gc"], PATIENCE);
    assert_eq!(collected.code, Some(0), "{collected:#?}");
    assert!(!daemon.processes().iter().any(|(_, line)| of_it(line)));
    until("the container's end", PATIENCE, || !first.exists());
    assert_gone(&home, &daemon, &identifier);
}

/// A part of a run in which its daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Allocate,
    PowerOn,
    Teardown,
}

const PHASES: [Phase; 3] = [Phase::Allocate, Phase::PowerOn, Phase::Teardown];

/// A daemon, and runs on it.
struct Stage {
    daemon: PrivateDaemon,
    home: Home,
    lab: Lab,
    run_file: PathBuf,
    /// In which phase the daemon dies, and how long after its beginning.
    death: Option<(Phase, Duration)>,
    /// How long each phase took.
    lengths: [Duration; PHASES.len()],
}

impl Stage {
    /// Waits for a phase; where it is the one, the daemon is killed meanwhile, and started again.
    async fn phase<T>(
        daemon: &mut PrivateDaemon,
        death: Option<(Phase, Duration)>,
        phase: Phase,
        work: impl Future<Output = T>,
    ) -> (T, Duration) {
        let begin = Instant::now();
        let done = match death {
            Some((when, delay)) if when == phase => {
                let dies = async {
                    tokio::time::sleep(delay).await;
                    daemon.kill();
                    daemon.restart();
                };
                tokio::join!(work, dies).0
            }
            _ => work.await,
        };
        (done, begin.elapsed())
    }

    /// A run from its allocation to its end, clean or by a collection.
    async fn run(&mut self) {
        let identifier = see_core::Identifier::random();
        let name = identifier.to_string();
        let (begin, death, daemon) = (Instant::now(), self.death, &mut self.daemon);
        let dies_in = |phase| death.is_some_and(|(when, _)| when == phase);
        let allocating = self.lab.allocate_as(&self.run_file, identifier);
        let (allocated, length) = Self::phase(daemon, death, Phase::Allocate, allocating).await;
        self.lengths[0] = length;
        if let Ok(mut watched) = allocated {
            let starting = async {
                let mut turn = watched.environment.turn().await.expect("the turn");
                turn.poweron().await
            };
            let (started, length) = Self::phase(daemon, death, Phase::PowerOn, starting).await;
            self.lengths[1] = length;
            assert!(started.is_ok() || dies_in(Phase::PowerOn), "{started:?}");
            let ending = watched.environment.deallocate();
            let (ended, length) = Self::phase(daemon, death, Phase::Teardown, ending).await;
            self.lengths[2] = length;
            assert!(ended.is_clean() || death.is_some(), "{:?}", ended.errors);
            assert!(
                ended.is_clean() || self.home.recorded().contains(&name),
                "{death:?}: what is left is not written down: {:?}",
                ended.errors
            );
        } else {
            assert!(dies_in(Phase::Allocate), "{allocated:?}");
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "{death:?}: {:?}",
            begin.elapsed()
        );
        if self.home.recorded().contains(&name) {
            let collected = self.home.run(["gc"], PATIENCE);
            assert_eq!(collected.code, Some(0), "{death:?}: {collected:#?}");
        }
        assert_gone(&self.home, &self.daemon, &name);
    }
}

#[test]
fn a_libvirtd_that_is_killed_and_restarted_in_any_phase_of_a_machine_costs_nothing() {
    die_in_each_phase("a daemon that dies", run_file);
}

#[test]
fn a_libvirtd_that_is_killed_and_restarted_in_any_phase_of_a_container_costs_nothing() {
    die_in_each_phase("a daemon of containers that dies", container);
}

/// Kills the daemon in each phase of runs of this file, and starts it again: each ends cleanly, or is collected.
fn die_in_each_phase(dice: &str, run_file: fn(&Home, &PrivateDaemon) -> PathBuf) {
    let mut dice = Dice::of(dice);
    runtime().block_on(async {
        let daemon = PrivateDaemon::start();
        let home = Home::passable();
        let mut stage = Stage {
            run_file: run_file(&home, &daemon),
            lab: Lab::new(&home),
            home,
            daemon,
            death: None,
            lengths: [Duration::ZERO; PHASES.len()],
        };
        // Undisturbed, to know how long the phases are.
        stage.run().await;
        let lengths = stage.lengths;
        for (phase, length) in PHASES.into_iter().zip(lengths) {
            for fraction in dice.spread(rounds(1)) {
                stage.death = Some((phase, length.mul_f64(fraction)));
                stage.run().await;
            }
        }
        stage.lab.finish().await;
    });
}
