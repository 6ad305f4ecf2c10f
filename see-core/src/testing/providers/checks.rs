//! The image itself: whole, the same, never written, for many at once.

use std::sync::Arc;

use super::bench::{Bench, Look, Way, whole};
use super::content;
use crate::config::Configuration;
use crate::testing::report::{Outcome, Stumble, ensure};
use crate::{Error, ErrorKind, ImagePhase, ImageProgress, ImageReport};

/// How many ask at once.
const CROWD: usize = 8;

pub(super) async fn malformed(bench: Arc<Bench>) -> Outcome {
    let mut section = bench.candidate.section("malformed");
    let settings = &mut section["provider_configuration"];
    if settings.is_null() {
        *settings = serde_json::json!({});
    }
    settings["a-key-that-nobody-knows"] = true.into();
    let mut sections = bench.candidate.malformed();
    sections.push(section);
    let tried = sections.len();
    for section in sections {
        let text = section.to_string();
        let written = Configuration::from_str("run.json", &text)?;
        match bench.registries.images.prepare(&written) {
            Ok(_) => return Err(Stumble::Failed(format!("accepted: {text}"))),
            Err(error) => ensure(
                error.kind() == ErrorKind::Configuration && error.place().is_some(),
                || format!("{text}: {:?} without a place: {error}", error.kind()),
            )?,
        }
    }
    Ok(format!("{tried} sections"))
}

pub(super) async fn image(bench: Arc<Bench>) -> Outcome {
    let wanted = content(1, 1_500_000);
    bench.candidate.put("conformance-whole", &wanted).await?;
    bench.right("conformance-whole", &wanted).await?;
    Ok(String::new())
}

pub(super) async fn again(bench: Arc<Bench>) -> Outcome {
    let wanted = content(2, 300_001);
    bench.candidate.put("conformance-again", &wanted).await?;
    let first = bench.right("conformance-again", &wanted).await?;
    let before = Look::at(&first)?;
    for _ in 0..3 {
        let path = bench.right("conformance-again", &wanted).await?;
        ensure(path == first, || {
            format!("first {}, then {}", first.display(), path.display())
        })?;
    }
    let after = Look::at(&first)?;
    ensure(before == after, || {
        format!("it was {before:?} and became {after:?}")
    })?;
    Ok(String::new())
}

pub(super) async fn changed(bench: Arc<Bench>) -> Outcome {
    let name = "conformance-changed";
    for (seed, length) in [(3, 200_000), (4, 210_000)] {
        let wanted = content(seed, length);
        bench.candidate.put(name, &wanted).await?;
        bench.right(name, &wanted).await?;
    }
    Ok(String::new())
}

pub(super) async fn crowd(bench: Arc<Bench>) -> Outcome {
    let name = "conformance-crowd";
    let wanted = content(5, 2_000_003);
    bench.candidate.put(name, &wanted).await?;
    let asks: Vec<_> = (0..CROWD)
        .map(|_| {
            let (bench, wanted) = (Arc::clone(&bench), wanted.clone());
            tokio::spawn(async move { bench.right(name, &wanted).await })
        })
        .collect();
    for ask in asks {
        ask.await
            .map_err(|failed| Stumble::from(crate::sync::died(failed)))??;
    }
    Ok(format!("{CROWD} at once"))
}

pub(super) async fn missing(bench: Arc<Bench>) -> Outcome {
    let name = "conformance-missing";
    let told = |error: &Error| -> Outcome<()> {
        // A provider of files finds out when it is prepared, and says where it was asked for.
        let early = error.kind() == ErrorKind::Configuration && error.place().is_some();
        ensure(early || error.kind() == ErrorKind::NotFound, || {
            format!("found {:?}, expected NotFound: {error}", error.kind())
        })?;
        ensure(early || error.advice_text().is_some(), || {
            format!("it says nothing of what would be right: {error}")
        })
    };
    for before in ["never there", "removed"] {
        let ask = bench.ask(name, Way::default()).await?;
        let judged = match &ask.outcome {
            Ok(image) => Err(Stumble::Failed(format!(
                "there is none, and it gave {}",
                image.path.display()
            ))),
            Err(error) => told(error),
        };
        bench.settle(&ask).await?;
        judged.map_err(|stumble| stumble.during(before))?;
        if before == "never there" {
            bench.candidate.put(name, &content(6, 4096)).await?;
            bench.candidate.remove(name).await?;
        }
    }
    Ok(String::new())
}

pub(super) async fn spoiled(bench: Arc<Bench>) -> Outcome {
    let name = "conformance-spoiled";
    let wanted = content(7, 700_000);
    bench.candidate.put(name, &wanted).await?;
    let Some(spoilt) = bench.candidate.spoil(name).await else {
        return Err(not_applicable("the source cannot be made to"));
    };
    spoilt?;
    let ask = bench.ask(name, Way::default()).await?;
    let judged = match &ask.outcome {
        // Some sources promise nothing by which it could be noticed; but what comes must be what is there.
        Ok(image) => whole(&image.path, &wanted),
        Err(_) => Ok(()),
    };
    bench.settle(&ask).await?;
    bench.candidate.heal().await?;
    judged?;
    bench.right(name, &wanted).await?;
    Ok(match &ask.outcome {
        Ok(_) => "it came whole all the same".to_owned(),
        Err(error) => error.message().to_owned(),
    })
}

pub(super) async fn unreachable(bench: Arc<Bench>) -> Outcome {
    let name = "conformance-unreachable";
    let wanted = content(8, 100_000);
    bench.candidate.put(name, &wanted).await?;
    bench.right(name, &wanted).await?;
    let Some(unplugged) = bench.candidate.unplug().await else {
        return Err(not_applicable("the source cannot be made to"));
    };
    unplugged?;
    let ask = bench.ask(name, Way::default()).await?;
    let judged = match &ask.outcome {
        Ok(image) => whole(&image.path, &wanted).map(|()| "it gives what it has".to_owned()),
        Err(error) => {
            let fits = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
            ensure(fits && error.advice_text().is_some(), || {
                format!("{:?}: {error}", error.kind())
            })
            .map(|()| error.message().to_owned())
        }
    };
    bench.settle(&ask).await?;
    bench.candidate.heal().await?;
    let notes = judged?;
    bench.right(name, &wanted).await?;
    Ok(notes)
}

pub(super) async fn progress(bench: Arc<Bench>) -> Outcome {
    let name = "conformance-progress";
    let wanted = content(9, 3_000_000);
    bench.candidate.put(name, &wanted).await?;
    let progress = ImageProgress::new();
    let mut listener = progress.listen();
    let listening = tokio::spawn(async move {
        let mut heard: Vec<ImageReport> = Vec::new();
        // It ends with the last sender.
        while listener.changed().await.is_ok() {
            heard.push(*listener.borrow_and_update());
        }
        heard.push(*listener.borrow());
        heard
    });
    let way = Way {
        progress,
        ..Way::default()
    };
    let ask = bench.ask(name, way).await?;
    bench.settle(&ask).await?;
    ask.outcome?;
    let heard = listening
        .await
        .map_err(|failed| Stumble::from(crate::sync::died(failed)))?;
    for report in &heard {
        ensure(
            report.total.is_none_or(|total| report.done <= total),
            || format!("more done than there is: {report:?}"),
        )?;
    }
    for pair in heard.windows(2) {
        let same = pair[0].phase == pair[1].phase && pair[1].done != 0;
        ensure(!same || pair[0].done <= pair[1].done, || {
            format!("{:?} fell to {:?}", pair[0], pair[1])
        })?;
    }
    let fetched = heard
        .iter()
        .rfind(|report| report.phase == ImagePhase::Fetching);
    let Some(fetched) = fetched else {
        return Err(not_applicable(
            "it fetches nothing, so there is nothing to tell",
        ));
    };
    ensure(
        fetched.total.is_none_or(|total| fetched.done == total),
        || format!("the image is there, and the last word was {fetched:?}"),
    )?;
    Ok(format!("{} reports heard", heard.len()))
}

pub(super) fn not_applicable(why: &str) -> Stumble {
    Stumble::NotApplicable(why.to_owned())
}
