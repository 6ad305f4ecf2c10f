//! How long it takes to make sandboxes and to remove them. `cargo xtask bench sandboxes` runs it beside python-see.
//!
//! `bench_sandboxes FOLDER ROUNDS AT_ONCE CONTEXT`: the ledger lies in the folder, the context section is JSON. So many
//! at once are made and removed, so many times. Nothing is started. The first sandbox is not counted: the host's
//! abilities are looked up once a process. Prints one JSON object of seconds, for each sandbox and for all of them:
//! `{"allocate": [ … ], "deallocate": [ … ], "all": … }`.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use see_core::config::{Configuration, HooksSection};
use see_core::ledger::Ledger;
use see_core::{AllocateOptions, Host, Registries, Stop};
use serde_json::json;
use tokio::task::JoinSet;

/// The longest wait for the end of what was begun.
const END: Duration = Duration::from_secs(60);

/// Seconds to make each sandbox and to remove it.
type Measured = Result<Vec<(f64, f64)>, Box<dyn Error + Send + Sync>>;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rounds, at_once, context] = &words[..] else {
        return Err("usage: bench_sandboxes FOLDER ROUNDS AT_ONCE CONTEXT".into());
    };
    let (rounds, at_once): (usize, usize) = (rounds.parse()?, at_once.parse()?);
    let folder = Path::new(folder);
    let context = Arc::new(Configuration::from_str(folder.join("run.json"), context)?);
    let mut registries = Registries::new();
    see_context::register(&mut registries)?;
    let ledger = Ledger::open_blocking(folder.join("state"))?;
    let host = Arc::new(Host::new(registries, ledger)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let printed = runtime.block_on(async {
        one_after_the_other(Arc::clone(&host), Arc::clone(&context), 1).await?;
        let begun = Instant::now();
        let mut working = JoinSet::new();
        for _ in 0..at_once {
            working.spawn(one_after_the_other(
                Arc::clone(&host),
                Arc::clone(&context),
                rounds,
            ));
        }
        let (mut allocate, mut deallocate) = (Vec::new(), Vec::new());
        while let Some(measured) = working.join_next().await {
            for (made, removed) in measured?? {
                allocate.push(made);
                deallocate.push(removed);
            }
        }
        let all = begun.elapsed().as_secs_f64();
        let host = Arc::into_inner(host).ok_or("something else uses the host")?;
        host.finish(END).await?;
        let printed = json!({ "allocate": allocate, "deallocate": deallocate, "all": all });
        Ok::<_, Box<dyn Error + Send + Sync>>(printed)
    })?;
    println!("{printed}");
    Ok(())
}

async fn one_after_the_other(
    host: Arc<Host>,
    context: Arc<Configuration>,
    rounds: usize,
) -> Measured {
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        let prepared = host.prepare(&context, &HooksSection::default()).await?;
        let options = AllocateOptions::default();
        let environment = host.allocate(prepared, options, Stop::new()).await?;
        let made = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let teardown = environment.deallocate().await;
        measured.push((made, begun.elapsed().as_secs_f64()));
        if !teardown.is_clean() {
            return Err(format!("{teardown:?}").into());
        }
    }
    Ok(measured)
}
