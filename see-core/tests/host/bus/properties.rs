//! What holds for every order of subscriptions and events, tried on many.

use proptest::prelude::*;

use super::*;

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
