//! The hooks `screen` and `timers` in an environment.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod world;

use see_core::{ErrorKind, MishapKind, Picture};
use std::time::{Duration, Instant};
use world::{World, prepare, text};

const SCREEN: &str = r#"{ "configuration": { "results_folder": "RESULTS" }, "hooks": [
    { "name": "plugins.screen.ScreenHook", "configuration": { "screenshot_on_event": "look" } } ] }"#;

fn ppm() -> Picture {
    let pixels = [10, 20, 30, 40, 50, 60];
    let bytes = [&b"P6 2 1 255\n"[..], &pixels].concat();
    Picture {
        mime_type: "image/x-portable-pixmap".to_owned(),
        bytes,
    }
}

#[tokio::test]
async fn a_picture_is_written_as_png_under_a_name_of_its_own() {
    let mut world = World::new(SCREEN).await;
    world.control.show(ppm());
    world.poweron().await;
    world.trigger("look").await;
    world.trigger("look").await;
    world.event("screenshot_taken").await;
    let identifier = world.environment.identifier();
    for name in [
        format!("{identifier}_look.png"),
        format!("{identifier}_look_2.png"),
    ] {
        let file = std::fs::File::open(world.results().join(name)).expect("the picture");
        let reader = png::Decoder::new(std::io::BufReader::new(file)).read_info();
        assert_eq!(reader.expect("a PNG").info().size(), (2, 1));
    }
    let taken = world.all("screenshot_taken").remove(0);
    let path = world.results().join(format!("{identifier}_look.png"));
    assert_eq!(
        (text(&taken, "path"), text(&taken, "event")),
        (path.display().to_string(), "look".to_owned())
    );
    world.end().await;
}

#[tokio::test]
async fn a_paused_machine_is_shown_too_and_the_picture_is_there_when_the_trigger_is_over() {
    let mut world = World::new(SCREEN).await;
    world.control.show(ppm());
    let mut turn = world.environment.turn().await.expect("the turn");
    turn.poweron().await.expect("powered on");
    turn.pause().await.expect("paused");
    turn.trigger("look").await.expect("triggered");
    drop(turn);
    assert_eq!(
        std::fs::read_dir(world.results()).expect("results").count(),
        1
    );
    world.end().await;
}

#[tokio::test]
async fn a_machine_that_is_off_or_a_broken_picture_is_a_mishap_and_writes_nothing() {
    let mut world = World::new(SCREEN).await;
    world.trigger("look").await;
    world.poweron().await;
    world.control.show(Picture {
        mime_type: "image/png".to_owned(),
        bytes: b"junk".to_vec(),
    });
    world.trigger("look").await;
    let mishaps: Vec<String> = world
        .environment
        .bus()
        .mishaps()
        .0
        .into_iter()
        .filter_map(|mishap| match mishap.what {
            MishapKind::Failed(chain) => Some(chain),
            _ => None,
        })
        .collect();
    assert_eq!(mishaps.len(), 2, "{mishaps:?}");
    assert!(mishaps[0].contains("running or paused"), "{mishaps:?}");
    assert!(mishaps[1].contains("neither PNG nor PPM"), "{mishaps:?}");
    assert!(!world.results().exists());
    world.end().await;
}

#[tokio::test]
async fn timers_fire_in_their_order_and_not_early() {
    let section = r#"{ "hooks": [ { "name": "plugins.timers.TimersHook",
        "configuration": { "timers": { "second": "600ms", "first": 0.2 } } } ] }"#;
    let before = Instant::now();
    let world = World::new(section).await;
    world.event("second").await;
    assert!(before.elapsed() >= Duration::from_millis(600));
    assert_eq!(world.names(), ["first", "second"]);
    assert_eq!(world.all("first")[0].said_by(), "timers");
    world.end().await;
}

#[tokio::test]
async fn a_timer_that_is_not_due_does_not_hold_up_the_end() {
    let section = r#"{ "hooks": [ { "name": "timers",
        "configuration": { "timers": { "never": "1h" } } } ] }"#;
    let world = World::new(section).await;
    let before = Instant::now();
    world.end().await;
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn keys_that_are_missing_unknown_or_of_the_wrong_type_are_told() {
    for (configuration, told) in [
        (
            r#""name": "screen", "configuration": { "results_folder": "x" }"#,
            "screenshot_on_event",
        ),
        (
            r#""name": "timers", "configuration": { "timer": { "x": 1 } }"#,
            "timers",
        ),
        (
            r#""name": "timers", "configuration": { "timers": { "x": "soon" } }"#,
            "duration",
        ),
        (
            r#""name": "commands", "configuration": { "agent_port": 1 }"#,
            "agent-port",
        ),
        (
            r#""name": "commands", "configuration": { "agent-port": 70000 }"#,
            "agent-port",
        ),
        (r#""name": "comands""#, "commands"),
    ] {
        let error = prepare(&format!(r#"{{ "hooks": [ {{ {configuration} }} ] }}"#));
        let error = error.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.chain().contains(told), "{error} does not name {told}");
        assert!(error.place().is_some(), "{error} names no place");
    }
}
