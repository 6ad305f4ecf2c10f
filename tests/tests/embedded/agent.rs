//! The agent in a real guest: busy, killed and restarted by the guest's init.

use see_core::{Event, Value};
use see_tests::{Home, Lab, assert_nothing_remains};

use crate::support::*;

fn flag(event: &Event, name: &str) -> bool {
    let value = event.get(name).and_then(Value::as_bool);
    value.unwrap_or_else(|| panic!("{event:?} has no {name}"))
}

fn said(event: &Event, name: &str) -> String {
    let value = event.get(name).and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}

#[test]
fn an_agent_that_is_killed_costs_what_it_ran_and_one_that_is_busy_loses_and_leaves_nothing() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let run_file = home.run_file(Home::embedded());
        let mut watched = lab.allocate(&run_file).await.expect("a sandbox");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;

        let order = |command: &str| Event::new("run_command").with("command", command.to_owned());
        watched.trigger(order("sleep 600")).await;
        watched.event("command_started", 0, CALL).await;
        watched.trigger(order("kill -9 $(pidof see-agent)")).await;
        for seen in 0..2 {
            let finished = watched.event("command_finished", seen, BOOT).await;
            assert!(flag(&finished, "agent_lost"), "{finished:?}");
        }

        // Longer than a program may be quiet before the agent is pinged.
        let quiet = |number: usize| format!("sleep 8; echo {number}");
        let mut sample = b"#!/bin/sh\nexit 7\n".to_vec();
        sample.resize(8 << 20, b'#');
        let path = home.path("large");
        std::fs::write(&path, sample).expect("the home is writable");
        watched
            .trigger(Event::new("run_sample").with("sample", path.as_path()))
            .await;
        for number in 0..16 {
            watched.trigger(order(&quiet(number))).await;
        }
        let finished = watched.event("sample_finished", 0, RUN).await;
        let code = finished.get("exit_code").and_then(Value::as_i64);
        assert_eq!(code, Some(7), "{finished:?}");
        for seen in 2..18 {
            let finished = watched.event("command_finished", seen, RUN).await;
            assert!(!flag(&finished, "agent_lost"), "{finished:?}");
            let number = said(&finished, "output").trim().parse().expect("a number");
            assert_eq!(said(&finished, "command"), quiet(number));
        }
        assert_eq!(watched.all("ready").len(), 1, "the guest did not restart");

        let escape = order("setsid sh -c 'exec sleep 601'; wait").with("deadline", 2);
        watched.trigger(escape).await;
        let finished = watched.event("command_finished", 18, RUN).await;
        assert!(flag(&finished, "timed_out"), "{finished:?}");
        let gone = "while ps | grep '[s]leep 601'; do sleep 1; done";
        let (code, _) = watched.command(gone, CALL).await;
        assert_eq!(code, Some(0), "a session of its own is no way out");
        let identifier = watched.identifier();
        watched.end().await;
        lab.finish().await;
        assert_nothing_remains(&identifier);
    });
}
