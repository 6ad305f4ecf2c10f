//! A run file, run by a program of one's own: what `seectl run run.json --sample suspicious.sh` does, without a screen.

#![expect(clippy::print_stdout, reason = "an example shows something")]
use see_core::{Host, RunOptions, RunPlan, ledger::Ledger};

#[tokio::main]
async fn main() -> see_core::Result<()> {
    let ledger = Ledger::open(Ledger::default_root()?).await?;
    let host = Host::new(see_cli::registries::standard()?, ledger)?;
    let plan = RunPlan::from_file("run.json")?.with_sample("suspicious.sh");
    let run = plan.check(host.registries()).await?;
    let watch = |update| println!("{update:?}");
    let result = host.run(run, RunOptions::default(), watch).await?;
    println!("{:?}: {:?}", result.verdict, result.sample_result);
    host.finish(std::time::Duration::from_secs(30)).await
}
