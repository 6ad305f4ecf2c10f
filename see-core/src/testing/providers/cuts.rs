//! Asks that core cuts short at every point that they pass, and what comes after them.

use std::sync::Arc;
use std::time::Duration;

use super::bench::{Bench, Way, whole};
use super::checks::not_applicable;
use super::content;
use crate::fault::Point;
use crate::fault::{Act, Faults};
use crate::testing::report::{Outcome, Stumble, ensure};

use crate::{ErrorKind, ImageProgress, Stop};

/// More points than any ask has.
const ENDLESS: u32 = 10_000;

/// How long a source may take to begin with an image that it then stalls.
const BEGIN: Duration = Duration::from_secs(5);

pub(super) async fn failing(bench: Arc<Bench>) -> Outcome {
    let act = |_: &Stop| Act::Fail;
    let passed = each(&bench, "conformance-failing", act, |faults, failed| {
        let matters = matches!(faults.struck(), Some(Point::Intend | Point::Created));
        ensure(failed || !matters, || {
            "the ledger refused to write, and the provider went on".to_owned()
        })
    })
    .await?;
    match passed {
        0 => Err(not_applicable("it writes nothing into the ledger")),
        passed => Ok(format!("{passed} writes")),
    }
}

pub(super) async fn panicking(bench: Arc<Bench>) -> Outcome {
    let passed = each(
        &bench,
        "conformance-panicking",
        |_| Act::Panic,
        |_, _| Ok(()),
    )
    .await?;
    match passed {
        0 => Err(not_applicable("it passes no point of core's")),
        passed => Ok(format!("{passed} points")),
    }
}

pub(super) async fn stopped(bench: Arc<Bench>) -> Outcome {
    let act = |stop: &Stop| Act::Stop(stop.asked());
    let passed = each(&bench, "conformance-stopped", act, |_, _| Ok(())).await?;
    match passed {
        0 => Err(not_applicable(
            "it is done at once, and never looks at its stop",
        )),
        passed => Ok(format!("{passed} points")),
    }
}

/// Asks for one image with a fault at the first point, at the second, and so on, until one is not reached any
/// more; after each of them it must be had whole. The image changes in between, so that there is something to
/// fetch.
async fn each(
    bench: &Bench,
    name: &str,
    act: impl Fn(&Stop) -> Act,
    right: impl Fn(&Faults, bool) -> Outcome<()>,
) -> Outcome<u32> {
    for at in 1..ENDLESS {
        let during = |stumble: Stumble| stumble.during(format!("at point {at}"));
        let wanted = content(at.into(), 400_000 + at as usize);
        bench.candidate.put(name, &wanted).await?;
        let stop = Stop::new();
        let faults = Faults::new(act(&stop), at);
        faults.arm(true);
        let way = Way {
            stop,
            faults: faults.clone(),
            progress: ImageProgress::new(),
        };
        let ask = bench.ask(name, way).await;
        faults.arm(false);
        let ask = ask.map_err(during)?;
        let struck = faults.struck().is_some();
        let judged = match &ask.outcome {
            Ok(image) => whole(&image.path, &wanted),
            Err(error) if !struck => Err(Stumble::Failed(error.chain())),
            Err(_) => Ok(()),
        };
        bench.settle(&ask).await.map_err(during)?;
        judged.map_err(during)?;
        right(&faults, ask.outcome.is_err()).map_err(during)?;
        bench
            .right(name, &wanted)
            .await
            .map_err(|stumble| during(stumble.during("the next ask")))?;
        if !struck {
            return Ok(at - 1);
        }
    }
    Err(Stumble::Failed(format!("an ask has {ENDLESS} points")))
}

pub(super) async fn stalled(bench: Arc<Bench>) -> Outcome {
    let name = "conformance-stalled";
    let wanted = content(11, 2_000_000);
    bench.candidate.put(name, &wanted).await?;
    let Some(stalling) = bench.candidate.stall(name).await else {
        return Err(not_applicable("the source cannot be made to"));
    };
    stalling?;
    let (stop, progress) = (Stop::new(), ImageProgress::new());
    let mut listener = progress.listen();
    let asked = stop.clone();
    let stopping = tokio::spawn(async move {
        // Whether some of it came decides nothing: a stop ends it in any case.
        let begun = listener.wait_for(|report| report.done > 0);
        let begun = matches!(tokio::time::timeout(BEGIN, begun).await, Ok(Ok(_)));
        asked.stop();
        begun
    });
    let way = Way {
        stop,
        progress,
        ..Way::default()
    };
    let ask = bench.ask(name, way).await?;
    let begun = stopping.await.unwrap_or(false);
    let judged = match &ask.outcome {
        Ok(image) => whole(&image.path, &wanted),
        Err(error) => ensure(error.kind() == ErrorKind::Stopped, || {
            format!("found {:?}, expected Stopped: {error}", error.kind())
        }),
    };
    bench.settle(&ask).await?;
    bench.candidate.heal().await?;
    judged?;
    bench.right(name, &wanted).await?;
    Ok(match begun {
        true => "stopped in the middle".to_owned(),
        false => "stopped before the first byte".to_owned(),
    })
}
