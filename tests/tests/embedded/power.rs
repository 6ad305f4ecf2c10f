//! Changes of power, by the host and by the guest.

use see_core::{ErrorKind, Event, SandboxState, Value};
use see_tests::{Home, Lab, assert_nothing_remains, guest};

use crate::support::*;

#[test]
fn a_suspended_guest_stands_still_and_goes_on_where_it_stood() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let mut watched = lab
            .allocate(&home.run_file(Home::embedded()))
            .await
            .expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        let (code, _) = watched.command("echo here >/tmp/mark", CALL).await;
        assert_eq!(code, Some(0));

        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.pause().await.expect("it is suspended");
        let sandbox = turn.sandbox().clone();
        assert_eq!(
            sandbox.state().await.expect("a state"),
            SandboxState::Paused
        );
        let refused = turn.pause().await.expect_err("it stands already");
        assert_eq!(refused.kind(), ErrorKind::IllegalTransition);
        let first = picture(&sandbox).await;
        let second = picture(&sandbox).await;
        assert!(first == second, "a suspended screen changed");
        turn.resume().await.expect("it goes on");
        assert_eq!(
            sandbox.state().await.expect("a state"),
            SandboxState::Running
        );
        drop(turn);

        let (code, output) = watched.command("cat /tmp/mark", CALL).await;
        assert_eq!((code, output.trim()), (Some(0), "here"));
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweroff().await.expect("its power is cut");
        drop(turn);
        assert_eq!(
            sandbox.state().await.expect("a state"),
            SandboxState::Shutoff
        );
        let power: Vec<String> = watched
            .names()
            .into_iter()
            .filter(|name| name.starts_with("pre_") || name.starts_with("post_"))
            .collect();
        assert_eq!(
            power,
            [
                "pre_poweron",
                "post_poweron",
                "pre_pause",
                "post_pause",
                "pre_resume",
                "post_resume",
                "pre_poweroff",
                "post_poweroff"
            ]
        );
        assert_eq!(watched.all("guest_poweroff").len(), 0);
        drop(sandbox);
        watched.end().await;
        lab.finish().await;
    });
}

async fn picture(sandbox: &std::sync::Arc<dyn see_core::Sandbox>) -> Vec<u8> {
    let screen = sandbox.screenshot().expect("it has a screen");
    screen.take().await.expect("a picture").bytes
}

#[test]
fn a_guest_that_switches_itself_off_is_told() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let mut watched = lab
            .allocate(&home.run_file(Home::embedded()))
            .await
            .expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        watched
            .trigger(Event::new("run_command").with("command", "poweroff"))
            .await;
        watched.event("guest_poweroff", 0, BOOT).await;
        let state = watched
            .environment
            .sandbox()
            .state()
            .await
            .expect("a state");
        assert_eq!(state, SandboxState::Shutoff);
        // A machine that is off can be started again.
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts again");
        drop(turn);
        watched.event("ready", 1, BOOT).await;
        let identifier = watched.identifier();
        watched.end().await;
        lab.finish().await;
        assert_nothing_remains(&identifier);
    });
}

#[test]
fn a_guest_that_is_restarted_becomes_ready_again() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let mut watched = lab
            .allocate(&home.run_file(Home::embedded()))
            .await
            .expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        // What is in memory goes with the restart.
        let (code, _) = watched.command("echo here >/tmp/mark", CALL).await;
        assert_eq!(code, Some(0));
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.restart().await.expect("it is asked");
        drop(turn);
        watched.event("ready", 1, BOOT).await;
        let (code, output) = watched
            .command("test -e /tmp/mark && echo same || echo fresh", CALL)
            .await;
        assert_eq!((code, output.trim()), (Some(0), "fresh"));
        assert_eq!(
            watched.all("guest_reboot").len(),
            0,
            "it was the host's wish"
        );
        watched.end().await;
        lab.finish().await;
    });
}

#[test]
fn a_guest_that_restarts_by_itself_is_told() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let mut watched = lab
            .allocate(&home.run_file(Home::embedded()))
            .await
            .expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        watched
            .trigger(Event::new("run_command").with("command", "reboot -f"))
            .await;
        watched.event("guest_reboot", 0, BOOT).await;
        assert_eq!(watched.all("guest_poweroff").len(), 0);
        let finished = watched.event("command_finished", 0, BOOT).await;
        assert_eq!(
            finished.get("agent_lost").and_then(Value::as_bool),
            Some(true),
            "{finished:?}"
        );
        watched.end().await;
        lab.finish().await;
    });
}

#[test]
fn a_guest_without_an_agent_is_told_from_one_that_does_not_boot() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let context = serde_json::json!({ "disk": { "image": guest("guest-mute.qcow2") } });
        let mut watched = lab
            .allocate(&home.run_file(context))
            .await
            .expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        let mut causes = Vec::new();
        for seen in 0..2 {
            let event = watched.event("waiting_for_guest", seen, BOOT).await;
            let cause = event.get("cause").and_then(Value::as_str);
            causes.push(cause.unwrap_or_default().to_owned());
        }
        assert_eq!(causes, ["no_boot_output", "no_agent"]);
        assert_eq!(watched.all("ready").len(), 0);
        watched.end().await;
        lab.finish().await;
    });
}
