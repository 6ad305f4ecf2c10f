//! How long it takes to make a sandbox and to remove it. `cargo xtask bench sandboxes` runs it beside python-see.
//!
//! `bench_sandboxes FOLDER ROUNDS CONTEXT`: the ledger lies in the folder, the context section is JSON. Nothing is
//! started. The first sandbox is not counted: the host's abilities are looked up once a process. Prints one JSON object
//! of seconds: `{"allocate": [ … ], "deallocate": [ … ]}`.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use see_core::config::{Configuration, HooksSection};
use see_core::ledger::Ledger;
use see_core::{AllocateOptions, Host, Registries, Stop};
use serde_json::json;

/// The longest wait for the end of what was begun.
const END: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rounds, context] = &words[..] else {
        return Err("usage: bench_sandboxes FOLDER ROUNDS CONTEXT".into());
    };
    let folder = Path::new(folder);
    let context = Configuration::from_str(folder.join("run.json"), context)?;
    let mut registries = Registries::new();
    see_context::register(&mut registries)?;
    let host = Host::new(registries, Ledger::open_blocking(folder.join("state"))?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (mut allocate, mut deallocate) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        for _ in 0..=rounds.parse()? {
            let prepared = host.prepare(&context, &HooksSection::default()).await?;
            let begun = Instant::now();
            let options = AllocateOptions::default();
            let allocating = host.allocate(prepared, options, Stop::new());
            let environment = allocating.await?;
            allocate.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let teardown = environment.deallocate().await;
            deallocate.push(begun.elapsed().as_secs_f64());
            if !teardown.is_clean() {
                return Err(format!("{teardown:?}").into());
            }
        }
        host.finish(END).await?;
        Ok::<(), Box<dyn Error>>(())
    })?;
    println!(
        "{}",
        json!({ "allocate": allocate[1..], "deallocate": deallocate[1..] })
    );
    Ok(())
}
