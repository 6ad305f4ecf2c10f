//! How the event bus behaves, shown on environments of the fake backend.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{beside, environment, environment_with, serial, until};
use proptest::prelude::*;
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

/// One thing a test does to the bus.
#[derive(Debug, Clone)]
enum Act {
    Plain(u8),
    Serial(u8),
    Every,
    Unsubscribe(usize),
    Trigger(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..3_u8).prop_map(Act::Plain),
        (0..3_u8).prop_map(Act::Serial),
        Just(Act::Every),
        (0..12_usize).prop_map(Act::Unsubscribe),
        (0..3_u8).prop_map(Act::Trigger),
    ]
}

fn name(number: u8) -> String {
    format!("event{number}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn handlers_are_called_in_the_order_in_which_they_subscribed(acts in prop::collection::vec(act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (_host, mut environment) = environment().await;
            let context = environment.context("test");
            let log: Log = Arc::default();
            let mut live: Vec<(usize, Option<u8>, Subscription)> = Vec::new();
            let mut expected = Vec::new();
            for (number, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Plain(event) => {
                        let log = Arc::clone(&log);
                        let subscription = context.subscribe(&name(event), move |_| say(&log, number.to_string()));
                        live.push((number, Some(event), subscription));
                    }
                    Act::Every => {
                        let log = Arc::clone(&log);
                        let subscription = context.observe(move |_| say(&log, number.to_string()));
                        live.push((number, None, subscription));
                    }
                    Act::Serial(event) => {
                        let subscription = context.subscribe_serial(&name(event), logger(&log, number.to_string()));
                        live.push((number, Some(event), subscription));
                    }
                    Act::Unsubscribe(index) if !live.is_empty() => {
                        let (_, _, subscription) = live.remove(index % live.len());
                        context.unsubscribe(subscription);
                    }
                    Act::Unsubscribe(_) => {}
                    Act::Trigger(event) => {
                        expected.extend(
                            live.iter()
                                .filter(|(_, to, _)| to.is_none_or(|to| to == event))
                                .map(|(number, _, _)| number.to_string()),
                        );
                        environment.turn().await.unwrap().trigger(name(event)).await.unwrap();
                    }
                }
            }
            prop_assert_eq!(said(&log), expected);
            prop_assert!(environment.bus().mishaps().0.is_empty());
            environment.deallocate().await;
            Ok(())
        })?;
    }

    #[test]
    fn a_handler_that_unsubscribes_others_in_a_trigger_silences_just_them(
        count in 2..12_usize, at in 0..12_usize, victims in prop::collection::vec(0..12_usize, 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (_host, mut environment) = environment().await;
            let context = environment.context("test");
            let log: Log = Arc::default();
            let at = at % count;
            let subscriptions: Arc<Mutex<Vec<Subscription>>> = Arc::default();
            let gone: Vec<usize> = victims.iter().map(|victim| victim % count).collect();
            for number in 0..count {
                let (log, context2) = (Arc::clone(&log), context.clone());
                let (subscriptions2, gone) = (Arc::clone(&subscriptions), gone.clone());
                let subscription = context.subscribe("event", move |_| {
                    say(&log, number.to_string());
                    if number == at {
                        for victim in &gone {
                            context2.unsubscribe(subscriptions2.lock().unwrap()[*victim]);
                        }
                    }
                });
                subscriptions.lock().unwrap().push(subscription);
            }
            environment.turn().await.unwrap().trigger("event").await.unwrap();
            // Those before and at the one that unsubscribes had been called already.
            let expected: Vec<String> = (0..count)
                .filter(|number| *number <= at || !gone.contains(number))
                .map(|number| number.to_string())
                .collect();
            prop_assert_eq!(said(&log), expected);
            log.lock().unwrap().clear();
            environment.turn().await.unwrap().trigger("event").await.unwrap();
            let expected: Vec<String> = (0..count)
                .filter(|number| !gone.contains(number))
                .map(|number| number.to_string())
                .collect();
            prop_assert_eq!(said(&log), expected);
            environment.deallocate().await;
            Ok(())
        })?;
    }

    #[test]
    fn a_panicking_handler_among_others_silences_nobody(bad in prop::collection::vec(any::<bool>(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (_host, mut environment) = environment().await;
            let context = environment.context("test");
            let log: Log = Arc::default();
            for (number, panics) in bad.iter().copied().enumerate() {
                let log = Arc::clone(&log);
                context.subscribe("event", move |_| {
                    say(&log, number.to_string());
                    // Unwinding without the hook that prints: a property is tried often.
                    if panics {
                        std::panic::resume_unwind(Box::new("bad"));
                    }
                });
            }
            environment.turn().await.unwrap().trigger("event").await.unwrap();
            let everybody: Vec<String> = (0..bad.len()).map(|number| number.to_string()).collect();
            prop_assert_eq!(said(&log), everybody);
            let (mishaps, _) = environment.bus().mishaps();
            prop_assert_eq!(mishaps.len(), bad.iter().filter(|bad| **bad).count());
            environment.deallocate().await;
            Ok(())
        })?;
    }

    #[test]
    fn beside_handlers_are_at_most_as_many_as_allowed_and_each_is_run_or_refused(
        limit in 1..6_usize, events in 1..40_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (_host, mut environment) = environment_with(quick(BusLimits {
                beside: limit,
                ..BusLimits::default()
            }))
            .await;
            let context = environment.context("test");
            let log: Log = Arc::default();
            let counts: Arc<Mutex<(usize, usize)>> = Arc::default();
            let (log2, counts2) = (Arc::clone(&log), Arc::clone(&counts));
            context.subscribe_beside("event", beside(move |_| {
                let (log, counts) = (Arc::clone(&log2), Arc::clone(&counts2));
                Box::pin(async move {
                    {
                        let mut counts = counts.lock().unwrap();
                        counts.0 += 1;
                        counts.1 = counts.1.max(counts.0);
                    }
                    tokio::task::yield_now().await;
                    counts.lock().unwrap().0 -= 1;
                    say(&log, "ran");
                    Ok(())
                })
            }));
            let mut turn = environment.turn().await.unwrap();
            for _ in 0..events {
                turn.trigger("event").await.unwrap();
            }
            drop(turn);
            let refused = environment.bus().mishaps().0.len();
            // The end joins those that run.
            environment.deallocate().await;
            prop_assert!(counts.lock().unwrap().1 <= limit);
            prop_assert_eq!(said(&log).len() + refused, events);
            Ok(())
        })?;
    }

    #[test]
    fn attributes_come_out_as_they_went_in(pairs in prop::collection::vec(("[a-e]", any::<i64>()), 0..8)) {
        let mut expected: Vec<(String, i64)> = Vec::new();
        let mut event = Event::new("event");
        for (key, value) in pairs {
            event = event.with(key.clone(), value);
            match expected.iter_mut().find(|(known, _)| *known == key) {
                Some((_, old)) => *old = value,
                None => expected.push((key, value)),
            }
        }
        let found: Vec<(String, i64)> = event
            .attributes()
            .map(|(key, value)| (key.to_owned(), value.as_i64().unwrap()))
            .collect();
        prop_assert_eq!(found, expected);
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
