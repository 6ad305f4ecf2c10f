//! How the agent of a guest that boots is found, and what is told where it is not.

use super::*;

#[tokio::test]
async fn an_agent_that_comes_late_is_waited_for_and_the_reason_told() {
    let mut world = World::new(COMMANDS).await;
    let guest = Guest::new(None);
    let silent = Arc::new(Mutex::new(Vec::new()));
    let (kept, theirs) = (Arc::clone(&silent), Arc::clone(&guest));
    let first = AtomicBool::new(true);
    world.control.answer(move || {
        if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            // Connected, and nobody there; later the line breaks, as when the guest restarts.
            let (ours, other) = tokio::io::duplex(1 << 20);
            kept.lock().expect("unpoisoned").push(other);
            return Box::new(ours);
        }
        Box::new(theirs.dial())
    });
    world.poweron().await;
    let waiting = world.event("waiting_for_guest").await;
    assert_eq!(text(&waiting, "cause"), "no_agent", "{waiting:?}");
    silent.lock().expect("unpoisoned").clear();
    world.event("ready").await;
    world.end().await;
}

#[tokio::test]
async fn a_machine_that_goes_off_while_it_boots_is_not_ready_for_that_reason() {
    let mut world = World::new(COMMANDS).await;
    world.poweron().await;
    let waiting = world.event("waiting_for_guest").await;
    assert_eq!(text(&waiting, "cause"), "no_channel", "{waiting:?}");
    world.control.guest_becomes(SandboxState::Shutoff);
    let not_ready = world.event("not_ready").await;
    assert_eq!(text(&not_ready, "cause"), "no_power", "{not_ready:?}");
    let run = sample(&world, "true");
    world.trigger(run).await;
    let finished = world.event("sample_finished").await;
    assert!(
        text(&finished, "error").contains("no_power"),
        "{finished:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn looking_for_the_agent_ends_at_its_deadline() {
    let mut world = World::new(&COMMANDS.replace("20s", "500ms")).await;
    let before = Instant::now();
    world.poweron().await;
    let not_ready = world.event("not_ready").await;
    assert_eq!(text(&not_ready, "cause"), "no_channel", "{not_ready:?}");
    assert!(before.elapsed() < Duration::from_secs(10));
    assert!(world.all("ready").is_empty());
    world.end().await;
}

#[tokio::test]
async fn over_tcp_the_token_opens_the_agent() {
    let guest = Guest::new(Some(TOKEN));
    let settings = tcp(guest.listens(), Some(TOKEN));
    let mut world = World::with(COMMANDS, settings, false)
        .await
        .expect("an environment");
    world.poweron().await;
    assert_eq!(
        text(&world.event("waiting_for_guest").await, "cause"),
        "no_lease"
    );
    world
        .trigger(Event::new("ip_address").with("address", "127.0.0.1"))
        .await;
    world.event("ready").await;
    world
        .trigger(Event::new("run_command").with("command", "echo hello"))
        .await;
    assert_eq!(
        text(&world.event("command_finished").await, "output"),
        "hello\n"
    );
    world.end().await;
}

#[tokio::test]
async fn a_wrong_token_is_told_at_once() {
    let guest = Guest::new(Some("another token altogether"));
    let settings = tcp(guest.listens(), Some(TOKEN));
    let mut world = World::with(COMMANDS, settings, false)
        .await
        .expect("an environment");
    world.poweron().await;
    world
        .trigger(Event::new("ip_address").with("address", "127.0.0.1"))
        .await;
    let not_ready = world.event("not_ready").await;
    assert_eq!(text(&not_ready, "cause"), "wrong_token", "{not_ready:?}");
    assert!(!format!("{not_ready:?}").contains(TOKEN));
    world.end().await;
}

#[tokio::test]
async fn without_a_token_one_is_handed_over_the_guest_channel() {
    let guest = Guest::new(None);
    let settings = tcp(guest.listens(), None);
    let mut world = World::with(COMMANDS, settings, false)
        .await
        .expect("an environment");
    let theirs = Arc::clone(&guest);
    world.control.answer(move || Box::new(theirs.dial()));
    world.poweron().await;
    world
        .trigger(Event::new("ip_address").with("address", "127.0.0.1"))
        .await;
    world.event("ready").await;
    world.end().await;
}

#[tokio::test]
async fn a_guest_that_restarts_becomes_ready_again() {
    let (mut world, _guest) = ready().await;
    let mut turn = world.environment.turn().await.expect("the turn");
    turn.restart().await.expect("restarted");
    drop(turn);
    support::until("ready again", || world.all("ready").len() == 2).await;
    world
        .trigger(Event::new("run_command").with("command", "echo again"))
        .await;
    assert_eq!(
        text(&world.event("command_finished").await, "output"),
        "again\n"
    );
    world.end().await;
}

#[tokio::test]
async fn a_guest_that_restarts_itself_becomes_ready_again() {
    let (mut world, _guest) = ready().await;
    world.control.guest_reboots();
    support::until("ready again", || world.all("ready").len() == 2).await;
    let again = Event::new("run_command").with("command", "echo again");
    world.trigger(again).await;
    assert_eq!(
        text(&world.event("command_finished").await, "output"),
        "again\n"
    );
    world.end().await;
}
