//! Changes of power, by the host and by the guest.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use see_context::Native;
use see_core::{ErrorKind, Event, Identifier, SandboxState, Value};
use see_libvirt::{DomainEvent, DomainEvents};
use see_tests::{Home, Lab, Watched, assert_nothing_remains, emulator, guest, monitor};
use serde_json::json;

use crate::support::*;

/// Plays a test on a machine with this context that has just been started, and ends it.
fn on_a_started_machine(
    context: impl FnOnce(&Home) -> serde_json::Value,
    play: impl AsyncFnOnce(&mut Watched),
) {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let run_file = home.run_file(context(&home));
        let mut watched = lab.allocate(&run_file).await.expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        play(&mut watched).await;
        let identifier = watched.identifier();
        watched.end().await;
        lab.finish().await;
        assert_nothing_remains(&identifier);
    });
}

/// The same once the guest has booted.
fn on_a_ready_guest(play: impl AsyncFnOnce(&mut Watched)) {
    on_a_started_machine(
        |_| Home::embedded(),
        async |watched| {
            watched.event("ready", 0, BOOT).await;
            play(watched).await;
        },
    );
}

async fn state(watched: &Watched) -> SandboxState {
    let state = watched.environment.machine().state().await;
    state.expect("a state")
}

/// What libvirt tells of the machine from now on.
async fn libvirts_events(watched: &Watched) -> DomainEvents {
    let machine = watched.environment.machine().clone();
    let native = machine.native().and_then(|native| native.downcast_ref());
    let native: &Native = native.expect("a libvirt domain");
    let events = native.connection.domain_events(native.domain.uuid()).await;
    events.expect("libvirt tells events")
}

async fn picture(watched: &Watched) -> Vec<u8> {
    let screen = watched.environment.machine().screenshot();
    let picture = screen.expect("it has a screen").take().await;
    picture.expect("a picture").bytes
}

/// Sends a signal to the emulator.
fn signal(watched: &Watched, signal: Signal) {
    let pid = emulator(&watched.identifier()).expect("it runs");
    let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("it is ours");
}

#[test]
fn a_suspended_guest_stands_still_and_goes_on_where_it_stood() {
    on_a_ready_guest(async |watched| {
        let (code, _) = watched.command("echo here >/tmp/mark", CALL).await;
        assert_eq!(code, Some(0));

        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.pause().await.expect("it is suspended");
        let refused = turn.pause().await.expect_err("it stands already");
        assert_eq!(refused.kind(), ErrorKind::IllegalTransition);
        drop(turn);
        assert_eq!(state(watched).await, SandboxState::Paused);
        let first = picture(watched).await;
        let second = picture(watched).await;
        assert!(first == second, "a suspended screen changed");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.resume().await.expect("it goes on");
        drop(turn);
        assert_eq!(state(watched).await, SandboxState::Running);

        let (code, output) = watched.command("cat /tmp/mark", CALL).await;
        assert_eq!((code, output.trim()), (Some(0), "here"));
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweroff().await.expect("its power is cut");
        drop(turn);
        assert_eq!(state(watched).await, SandboxState::Shutoff);
        let power: Vec<String> = watched
            .names()
            .into_iter()
            .filter(|name| name.starts_with("pre_") || name.starts_with("post_"))
            .collect();
        let expected = ["poweron", "pause", "resume", "poweroff"]
            .map(|name| [format!("pre_{name}"), format!("post_{name}")])
            .concat();
        assert_eq!(power, expected);
        assert_eq!(watched.all("guest_poweroff").len(), 0);
    });
}

#[test]
fn a_paused_machine_can_be_switched_off_and_one_whose_emulator_is_killed_has_crashed() {
    on_a_started_machine(
        |_| Home::embedded(),
        async |watched| {
            let mut turn = watched.environment.turn().await.expect("the turn");
            turn.pause().await.expect("it is suspended");
            turn.poweroff().await.expect("its power is cut");
            turn.poweron().await.expect("it starts again");
            drop(turn);
            assert_eq!(watched.all("guest_crash").len(), 0);

            signal(watched, Signal::KILL);
            watched.event("guest_crash", 0, AT_ONCE).await;
            assert_eq!(state(watched).await, SandboxState::Crashed);
            assert_eq!(watched.all("guest_poweroff").len(), 0);
            // What crashed can be started again.
            let mut turn = watched.environment.turn().await.expect("the turn");
            turn.poweron().await.expect("it starts again");
            drop(turn);
            assert_eq!(state(watched).await, SandboxState::Running);
        },
    );
}

#[test]
fn an_emulator_that_hangs_is_switched_off_past_the_command_that_hangs_on_it() {
    on_a_started_machine(
        |_| Home::embedded(),
        async |watched| {
            signal(watched, Signal::STOP);
            let mut turn = watched.environment.turn().await.expect("the turn");
            // It goes on when nobody waits for it any more.
            let hanging = tokio::time::timeout(Duration::from_secs(1), turn.pause()).await;
            hanging.expect_err("the emulator answered");
            let begin = Instant::now();
            turn.poweroff().await.expect("its power is cut");
            drop(turn);
            assert!(begin.elapsed() < HANGS, "{:?}", begin.elapsed());
            assert_eq!(state(watched).await, SandboxState::Shutoff);
            // What hung has ended with its emulator.
            let mut turn = watched.environment.turn().await.expect("the turn");
            turn.poweron().await.expect("it starts again");
        },
    );
}

#[test]
fn a_shutdown_of_an_emulator_that_hangs_is_forced_at_its_deadline() {
    on_a_started_machine(
        |_| Home::embedded(),
        async |watched| {
            signal(watched, Signal::STOP);
            let begin = Instant::now();
            let mut turn = watched.environment.turn().await.expect("the turn");
            let shutdown = turn.shutdown(Duration::from_secs(3)).await;
            drop(turn);
            assert!(shutdown.expect("its power is cut").forced);
            assert!(begin.elapsed() < HANGS, "{:?}", begin.elapsed());
            assert_eq!(state(watched).await, SandboxState::Shutoff);
            assert_eq!(emulator(&watched.identifier()), None);
            let told = watched.event("post_shutdown", 0, CALL).await;
            let told = told.get("message").and_then(Value::as_str);
            assert!(
                told.is_some_and(|told| told.starts_with("waited 3.0s")),
                "{told:?}"
            );
        },
    );
}

/// A domain whose machine stands after a panic, with the device by which a kernel tells of it.
const PANICS: &str = "<domain type='qemu'><name>panics</name><memory unit='MiB'>160</memory><vcpu>1</vcpu>\
    <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>\
    <on_crash>preserve</on_crash><devices>\
    <disk type='file' device='disk'><target dev='vda' bus='virtio'/></disk>\
    <controller type='usb' model='none'/><panic model='isa'/></devices></domain>";

#[test]
fn a_machine_whose_panic_device_is_written_to_has_crashed_and_can_be_switched_off() {
    on_a_started_machine(
        |home| {
            home.write("domain.xml", PANICS);
            json!({
                "domain": { "configuration": "domain.xml" },
                "disk": { "image": guest("guest.qcow2") },
            })
        },
        async |watched| {
            let machine = watched.environment.machine().clone();
            let native = machine.native().and_then(|native| native.downcast_ref());
            let native: &Native = native.expect("a libvirt domain");
            // What a kernel's driver for the device does when it panics: it writes 1 to its port.
            let told = monitor(&native.domain, "o /b 0x505 1").await;
            told.expect("the monitor answers");
            watched.event("guest_crash", 0, AT_ONCE).await;
            assert_eq!(state(watched).await, SandboxState::Crashed);
            let mut turn = watched.environment.turn().await.expect("the turn");
            turn.poweroff().await.expect("its power is cut");
            drop(turn);
            assert_eq!(state(watched).await, SandboxState::Shutoff);
        },
    );
}

#[test]
fn a_guest_that_switches_itself_off_or_restarts_is_told_and_one_that_is_started_again_becomes_ready()
 {
    on_a_ready_guest(async |watched| {
        watched
            .trigger(Event::new("run_command").with("command", "poweroff"))
            .await;
        let end = Instant::now() + BOOT;
        while emulator(&watched.identifier()).is_some() {
            assert!(Instant::now() < end, "it does not switch itself off");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        watched.event("guest_poweroff", 0, AT_ONCE).await;
        watched.event("command_finished", 0, BOOT).await;
        assert_eq!(state(watched).await, SandboxState::Shutoff);
        // A machine that is off can be started again.
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts again");
        drop(turn);
        watched.event("ready", 1, BOOT).await;

        // What is in memory goes with a restart.
        let (code, _) = watched.command("echo here >/tmp/mark", CALL).await;
        assert_eq!(code, Some(0));
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.restart().await.expect("it is asked");
        drop(turn);
        watched.event("ready", 2, BOOT).await;
        let (code, output) = watched
            .command("test -e /tmp/mark && echo same || echo fresh", CALL)
            .await;
        assert_eq!((code, output.trim()), (Some(0), "fresh"));
        let reboots = watched.all("guest_reboot");
        assert!(reboots.is_empty(), "it was the host's wish: {reboots:?}");

        let seen = watched.all("command_finished").len();
        let mut told = libvirts_events(watched).await;
        watched
            .trigger(Event::new("run_command").with("command", "reboot -f"))
            .await;
        let reboots = async { while told.next().await != Some(DomainEvent::Rebooted) {} };
        let rebooted = tokio::time::timeout(BOOT, reboots).await;
        rebooted.expect("libvirt tells that it restarts");
        watched.event("guest_reboot", 0, AT_ONCE).await;
        assert_eq!(watched.all("guest_poweroff").len(), 1);
        let finished = watched.event("command_finished", seen, BOOT).await;
        let lost = finished.get("agent_lost").and_then(Value::as_bool);
        assert_eq!(lost, Some(true), "{finished:?}");
    });
}

#[test]
fn a_guest_that_suspends_itself_to_memory_ends_a_wait_at_once_and_is_named() {
    on_a_ready_guest(async |watched| {
        let mut turn = watched.environment.turn().await.expect("the turn");
        let mut never = turn.listen("never");
        let sleep = Event::new("run_command").with("command", "echo mem >/sys/power/state");
        turn.trigger(sleep).await.expect("triggered");
        let error = turn.wait(&mut never, BOOT).await.expect_err("it sleeps");
        assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
        assert!(error.to_string().contains("suspended itself"), "{error}");
        drop(never);
        drop(turn);
        watched.event("guest_suspend", 0, AT_ONCE).await;
        assert_eq!(state(watched).await, SandboxState::Suspended);
    });
}

#[test]
fn a_guest_without_an_agent_is_told_from_one_that_does_not_boot_and_its_shutdown_says_for_what_it_waited()
 {
    on_a_started_machine(
        |_| json!({ "disk": { "image": guest("guest-mute.qcow2") } }),
        async |watched| {
            // Its firmware does not look at the power button.
            let mut turn = watched.environment.turn().await.expect("the turn");
            let short = Duration::from_millis(300);
            let shutdown = turn.shutdown(short).await.expect("its power is cut");
            assert!(shutdown.forced);
            turn.poweron().await.expect("it starts again");
            drop(turn);
            let told = watched.event("post_shutdown", 0, CALL).await;
            assert_eq!(
                told.get("message").and_then(Value::as_str),
                Some("waited 300.0ms for the guest to switch itself off")
            );
            let mut causes = Vec::new();
            for seen in 0.. {
                let event = watched.event("waiting_for_guest", seen, BOOT).await;
                let cause = event.get("cause").and_then(Value::as_str);
                causes.push(cause.unwrap_or_default().to_owned());
                if causes.last().is_some_and(|last| last == "no_agent") {
                    break;
                }
            }
            assert!(causes.contains(&"no_boot_output".to_owned()), "{causes:?}");
            assert_eq!(watched.all("ready").len(), 0);
        },
    );
}

#[test]
fn a_panic_of_its_owner_ends_a_machine_in_order_before_the_host_is_gone() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    let identifier = Identifier::random();
    let ran = Cell::new(false);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        runtime().block_on(async {
            let lab = Lab::new(&home);
            let watched = lab.allocate_as(&run_file, identifier).await;
            let mut watched = watched.expect("a sandbox");
            let mut turn = watched.environment.turn().await.expect("the turn");
            turn.poweron().await.expect("it starts");
            ran.set(emulator(&identifier.to_string()).is_some());
            panic!("the owner gave up");
        });
    }));
    assert!(panicked.is_err() && ran.get(), "no machine ran");
    assert_eq!(emulator(&identifier.to_string()), None);
    assert_eq!(home.recorded(), Vec::<String>::new());
    assert_nothing_remains(&identifier.to_string());
}
