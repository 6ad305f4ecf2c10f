//! How the event bus behaves, shown on environments of the fake backend.

mod properties;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{beside, environment, environment_with, serial, until};
use see_core::{
    AllocateOptions, BusLimits, Context, Environment, Error, ErrorKind, Event, HandlerFuture,
    MishapKind, Subscription, Turn,
};

type Log = Arc<Mutex<Vec<String>>>;

fn say(log: &Log, what: impl Into<String>) {
    log.lock().unwrap().push(what.into());
}

fn said(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

fn quick(limits: BusLimits) -> AllocateOptions {
    AllocateOptions {
        bus: limits,
        ..AllocateOptions::default()
    }
}

/// A serial handler that says a word.
fn logger(
    log: &Log,
    word: String,
) -> impl for<'a> Fn(&'a mut Turn, &'a Event) -> HandlerFuture<'a> + Send + Sync + 'static {
    let log = Arc::clone(log);
    move |_turn, _event| {
        say(&log, word.clone());
        Box::pin(async { Ok(()) })
    }
}

async fn trigger(environment: &mut Environment, name: &'static str) {
    environment
        .turn()
        .await
        .unwrap()
        .trigger(name)
        .await
        .unwrap();
}

fn only_mishap(environment: &Environment) -> MishapKind {
    let (mut mishaps, forgotten) = environment.bus().mishaps();
    assert_eq!((mishaps.len(), forgotten), (1, 0), "{mishaps:?}");
    mishaps.remove(0).what
}

#[tokio::test]
async fn a_handler_that_subscribes_in_a_trigger_is_called_from_the_next_one_on() {
    let (_host, mut environment) = environment().await;
    let context = environment.context("test");
    let log: Log = Arc::default();
    let (inner, log2) = (context.clone(), Arc::clone(&log));
    context.subscribe("event", move |_| {
        let log3 = Arc::clone(&log2);
        inner.subscribe("event", move |_| say(&log3, "late"));
    });
    trigger(&mut environment, "event").await;
    assert_eq!(said(&log), Vec::<String>::new());
    trigger(&mut environment, "event").await;
    assert_eq!(said(&log), ["late"]);
    environment.deallocate().await;
}

#[tokio::test]
async fn a_serial_handler_may_trigger_and_the_inner_event_is_handled_first() {
    let (_host, mut environment) = environment().await;
    let context = environment.context("test");
    let log: Log = Arc::default();
    let log2 = Arc::clone(&log);
    context.subscribe_serial(
        "outer",
        serial(move |turn, _| {
            let log = Arc::clone(&log2);
            Box::pin(async move {
                say(&log, "outer begins");
                turn.trigger("inner").await?;
                say(&log, "outer ends");
                Ok(())
            })
        }),
    );
    let log3 = Arc::clone(&log);
    context.subscribe("outer", move |_| say(&log3, "after"));
    let log4 = Arc::clone(&log);
    context.subscribe("inner", move |_| say(&log4, "inner"));
    trigger(&mut environment, "outer").await;
    assert_eq!(said(&log), ["outer begins", "inner", "outer ends", "after"]);
    environment.deallocate().await;
}

#[tokio::test]
async fn triggers_that_nest_without_end_are_refused_at_the_limit() {
    let (_host, mut environment) = environment().await;
    let context = environment.context("test");
    let refused: Arc<Mutex<Option<ErrorKind>>> = Arc::default();
    let refused2 = Arc::clone(&refused);
    context.subscribe_serial(
        "again",
        serial(move |turn, _| {
            let refused = Arc::clone(&refused2);
            Box::pin(async move {
                if let Err(error) = turn.trigger("again").await {
                    *refused.lock().unwrap() = Some(error.kind());
                }
                Ok(())
            })
        }),
    );
    trigger(&mut environment, "again").await;
    assert_eq!(*refused.lock().unwrap(), Some(ErrorKind::Exhausted));
    // The depth is back where it was.
    trigger(&mut environment, "again").await;
    environment.deallocate().await;
}

#[tokio::test]
async fn failures_and_panics_are_recorded_and_stop_nobody() {
    // Printing a panic takes a while; slowness is another test's.
    let (_host, mut environment) = environment_with(quick(BusLimits {
        slow_plain: Duration::MAX,
        ..BusLimits::default()
    }))
    .await;
    let context = environment.context("unlucky");
    let log: Log = Arc::default();
    context.subscribe("event", |_| panic!("plain"));
    context.subscribe_serial(
        "event",
        serial(|_, _| Box::pin(async { Err(Error::new(ErrorKind::Hook, "serial")) })),
    );
    context.subscribe_serial(
        "event",
        serial(|_, _| {
            Box::pin(async {
                tokio::task::yield_now().await;
                panic!("serial, later")
            })
        }),
    );
    context.subscribe_serial("event", serial(|_, _| panic!("before its future")));
    let log2 = Arc::clone(&log);
    context.subscribe("event", move |_| say(&log2, "still called"));
    trigger(&mut environment, "event").await;
    assert_eq!(said(&log), ["still called"]);
    let (mishaps, _) = environment.bus().mishaps();
    let told: Vec<String> = mishaps.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "unlucky on event: panicked: plain",
            "unlucky on event: failed: serial",
            "unlucky on event: panicked: serial, later",
            "unlucky on event: panicked: before its future",
        ]
    );
    environment.deallocate().await;
}

#[tokio::test]
async fn a_serial_handler_is_dropped_at_its_deadline() {
    let (_host, mut environment) = environment_with(quick(BusLimits {
        handler_deadline: Duration::from_millis(200),
        ..BusLimits::default()
    }))
    .await;
    let context = environment.context("test");
    context.subscribe_serial("event", serial(|_, _| Box::pin(std::future::pending())));
    trigger(&mut environment, "event").await;
    let mishap = only_mishap(&environment);
    assert!(matches!(mishap, MishapKind::TimedOut(_)), "{mishap:?}");
    environment.deallocate().await;
}

#[tokio::test]
async fn a_plain_handler_that_dawdles_is_reported() {
    let (_host, mut environment) = environment_with(quick(BusLimits {
        slow_plain: Duration::from_millis(20),
        ..BusLimits::default()
    }))
    .await;
    let context = environment.context("test");
    context.subscribe("event", |_| {
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
    });
    trigger(&mut environment, "event").await;
    let mishap = only_mishap(&environment);
    assert!(matches!(mishap, MishapKind::Slow(_)), "{mishap:?}");
    environment.deallocate().await;
}

#[tokio::test]
async fn beside_handlers_do_not_hold_up_the_trigger_and_one_too_many_is_refused() {
    let (_host, mut environment) = environment_with(quick(BusLimits {
        beside: 2,
        ..BusLimits::default()
    }))
    .await;
    let context = environment.context("test");
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let log: Log = Arc::default();
    let (gate2, log2) = (Arc::clone(&gate), Arc::clone(&log));
    context.subscribe_beside(
        "event",
        beside(move |_| {
            let (gate, log) = (Arc::clone(&gate2), Arc::clone(&log2));
            Box::pin(async move {
                let _pass = gate.acquire().await;
                say(&log, "through");
                Ok(())
            })
        }),
    );
    for _ in 0..3 {
        trigger(&mut environment, "event").await;
    }
    assert_eq!(said(&log), Vec::<String>::new());
    let mishap = only_mishap(&environment);
    assert!(matches!(mishap, MishapKind::NoRoom(2)), "{mishap:?}");
    gate.add_permits(2);
    until("both handlers are through", || said(&log).len() == 2).await;
    environment.deallocate().await;
}

#[tokio::test]
async fn posted_events_are_handled_when_the_turn_is_free() {
    let (_host, mut environment) = environment().await;
    let context: Context = environment.context("poster");
    let log: Log = Arc::default();
    let log2 = Arc::clone(&log);
    context.subscribe("posted", move |event| say(&log2, event.said_by()));
    let turn = environment.turn().await.unwrap();
    context.post("posted").unwrap();
    tokio::task::yield_now().await;
    assert_eq!(said(&log), Vec::<String>::new(), "the turn is held");
    drop(turn);
    until("the posted event is handled", || said(&log) == ["poster"]).await;
    environment.deallocate().await;
}

#[tokio::test]
async fn a_full_queue_refuses_a_post_instead_of_waiting() {
    let (_host, mut environment) = environment_with(quick(BusLimits {
        queue: 2,
        ..BusLimits::default()
    }))
    .await;
    let context = environment.context("test");
    let turn = environment.turn().await.unwrap();
    context.post("one").unwrap();
    context.post("two").unwrap();
    assert_eq!(
        context.post("three").unwrap_err().kind(),
        ErrorKind::Exhausted
    );
    drop(turn);
    environment.deallocate().await;
}

#[tokio::test]
async fn a_wait_hears_an_event_that_fired_between_listening_and_waiting() {
    let (_host, mut environment) = environment().await;
    let mut turn = environment.turn().await.unwrap();
    let mut ear = turn.listen("early");
    turn.trigger(Event::new("early").with("n", 1))
        .await
        .unwrap();
    let heard = turn.wait(&mut ear, Duration::from_secs(5)).await.unwrap();
    assert_eq!(heard.get("n").and_then(|n| n.as_i64()), Some(1));
    let missed = turn
        .wait(&mut ear, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(missed.kind(), ErrorKind::Timeout);
    drop(turn);
    environment.deallocate().await;
}

#[tokio::test]
async fn a_wait_ends_when_somebody_says_that_the_event_will_not_come() {
    let (_host, mut environment) = environment().await;
    let context = environment.context("hook");
    let mut turn = environment.turn().await.unwrap();
    let mut ear = turn.listen("ready");
    context
        .post(Event::new("not_ready").with("message", "no agent answers"))
        .unwrap();
    let error = turn
        .wait(&mut ear, Duration::from_secs(60))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Guest);
    assert_eq!(error.to_string(), "wait for ready: no agent answers");
    drop((ear, turn));
    environment.deallocate().await;
}
