//! How many events a second the bus carries. `cargo xtask bench events` runs it beside python-see.
//!
//! Prints one JSON object a line: `{"case": …, "events_per_second": …}`.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use see_core::ledger::Ledger;
use see_core::testing::{FakeBackend, FakeConfiguration};
use see_core::{
    AgentSettings, AllocateOptions, Environment, Event, Host, Limits, Prepared, PreparedBackend,
    Registries, Result, Stop,
};

/// How long each case runs.
const RUN: Duration = Duration::from_millis(500);
/// How many beside handlers may be under way: somewhat below the limit, since one that has counted is not
/// yet done.
const WINDOW: u64 = 768;
/// Events between two looks at the clock.
const BATCH: u64 = 1000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("see-bench-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder for the bench");
    let host = Host::new(Registries::new(), Ledger::open(folder.join("state")).await?)?;
    for case in ["plain", "attribute", "hundred", "beside"] {
        let prepared = Prepared {
            backend: PreparedBackend::new(FakeBackend::new(FakeConfiguration::new(&folder))),
            hooks: Vec::new(),
            agent: AgentSettings::default(),
            limits: Limits::default(),
        };
        let options = AllocateOptions::default();
        let mut environment = host.allocate(prepared, options, Stop::new()).await?;
        let rate = measure(case, &mut environment).await?;
        println!("{{\"case\": \"{case}\", \"events_per_second\": {rate:.0}}}");
        environment.deallocate().await;
    }
    host.finish(Duration::from_secs(10)).await?;
    std::fs::remove_dir_all(&folder).expect("the bench's folder can be removed");
    Ok(())
}

async fn measure(case: &str, environment: &mut Environment) -> Result<f64> {
    let handled = Arc::new(AtomicU64::new(0));
    let context = environment.context("bench");
    let handlers = if case == "hundred" { 100 } else { 1 };
    for _ in 0..handlers {
        if case == "beside" {
            let handled = Arc::clone(&handled);
            context.subscribe_beside(
                "tick",
                move |_event: Event| -> see_core::HandlerFuture<'static> {
                    let handled = Arc::clone(&handled);
                    Box::pin(async move {
                        handled.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    })
                },
            );
        } else {
            // It does nothing, as python-see's does: what is measured is the bus.
            context.subscribe("tick", |event| {
                std::hint::black_box(event);
            });
        }
    }
    let mut turn = environment.turn().await?;
    let started = Instant::now();
    let mut triggered = 0_u64;
    while started.elapsed() < RUN {
        for _ in 0..BATCH {
            let event = Event::new("tick");
            let event = if case == "attribute" {
                event.with("value", 1)
            } else {
                event
            };
            // A handler that finds no room is refused, so the bench waits for room.
            while case == "beside" && triggered - handled.load(Ordering::Relaxed) > WINDOW {
                std::thread::yield_now();
            }
            turn.trigger(event).await?;
            triggered += 1;
        }
    }
    while case == "beside" && handled.load(Ordering::Relaxed) < triggered {
        tokio::task::yield_now().await;
    }
    let rate = triggered as f64 / started.elapsed().as_secs_f64();
    drop(turn);
    let (mishaps, _) = environment.bus().mishaps();
    assert!(
        mishaps.is_empty(),
        "not every event was handled: {}",
        mishaps[0]
    );
    Ok(rate)
}
