//! What a sandbox claims to be able to do.

use std::path::Path;
use std::sync::Arc;

use super::bench::Bench;
use super::lifecycle::change;
use crate::testing::report::{Outcome, Stumble, ensure};
use crate::{Sandbox, Transition};

pub(super) async fn claims(bench: Arc<Bench>) -> Outcome {
    let mut environment = bench.environment().await?;
    let sandbox = Arc::clone(environment.sandbox());
    let claimed = claimed_by(&*sandbox);
    let on = change(&bench, &mut environment, Transition::Poweron);
    bench.within("poweron", on).await??;
    let settled = bench.candidate.settle(&*sandbox);
    bench
        .within("the guest", settled)
        .await?
        .map_err(|error| Stumble::from(error).during("bring the guest up"))?;
    for name in &claimed {
        bench
            .within(name, shown(name, &*sandbox))
            .await?
            .map_err(|stumble| stumble.during(name))?;
    }
    let running = claimed_by(&*sandbox);
    ensure(running == claimed, || {
        format!("claimed {claimed:?} before it ran, and {running:?} while it runs")
    })?;
    let off = change(&bench, &mut environment, Transition::Poweroff);
    bench.within("poweroff", off).await??;
    // Of a machine that is off an error is fine, but no panic and no endless wait.
    if let Some(screen) = sandbox.screenshot() {
        let _ = bench
            .within("a picture of a machine that is off", screen.take())
            .await?;
    }
    if let Some(channel) = sandbox.guest_channel() {
        let _ = bench
            .within("a channel to a machine that is off", channel.open())
            .await?;
    }
    bench.end(environment).await?;
    Ok(format!("shown: {}", claimed.join(", ")))
}

fn claimed_by(sandbox: &dyn Sandbox) -> Vec<&'static str> {
    [
        ("screenshot", sandbox.screenshot().is_some()),
        ("guest channel", sandbox.guest_channel().is_some()),
        ("disks", !sandbox.disks().is_empty()),
        ("console", sandbox.console().is_some()),
        ("isolation", sandbox.isolation().is_some()),
        ("meter", sandbox.meter().is_some()),
        ("native", sandbox.native().is_some()),
        ("network", sandbox.has_network()),
        ("no network", !sandbox.has_network()),
    ]
    .into_iter()
    .filter_map(|(name, claimed)| claimed.then_some(name))
    .collect()
}

async fn shown(name: &str, sandbox: &dyn Sandbox) -> Outcome<()> {
    match name {
        "screenshot" => {
            let Some(screen) = sandbox.screenshot() else {
                return Err(gone());
            };
            let picture = screen.take().await?;
            ensure(
                !picture.bytes.is_empty() && picture.mime_type.starts_with("image/"),
                || format!("{} bytes of {:?}", picture.bytes.len(), picture.mime_type),
            )
        }
        "guest channel" => {
            let Some(channel) = sandbox.guest_channel() else {
                return Err(gone());
            };
            drop(channel.open().await?);
            // Its end is given back, for whoever comes next.
            drop(channel.open().await?);
            Ok(())
        }
        "disks" => sandbox.disks().iter().try_for_each(|disk| is_there(disk)),
        "console" => sandbox
            .console()
            .map_or_else(|| Err(gone()), |console| is_there(console.log())),
        "isolation" => {
            let Some(walls) = sandbox.isolation() else {
                return Err(gone());
            };
            walls.check().await?;
            walls.closed().await?;
            Ok(())
        }
        "meter" => {
            let Some(meter) = sandbox.meter() else {
                return Err(gone());
            };
            let before = meter.usage().await?;
            let after = meter.usage().await?;
            let (cpu, memory) = (before.cpu.is_some(), before.memory.is_some());
            let told = cpu || memory || before.pids.is_some() || before.disk.is_some();
            ensure(
                told && before.halted.is_none() && after.cpu >= before.cpu,
                || format!("{before:?}, and then {after:?}"),
            )
        }
        "no network" => {
            let addresses = sandbox.addresses().await?;
            ensure(addresses.is_empty(), || {
                format!("a guest without network has the addresses {addresses:?}")
            })
        }
        "network" => Ok(sandbox.addresses().await.map(drop)?),
        // Whatever it is, there is nothing that a stranger could ask of it.
        _ => Ok(()),
    }
}

fn gone() -> Stumble {
    Stumble::Failed("it was claimed before, and is claimed no more".to_owned())
}

fn is_there(path: &Path) -> Outcome<()> {
    let shown = path.display();
    ensure(path.is_absolute(), || format!("{shown} is not absolute"))?;
    ensure(path.exists(), || format!("there is no {shown}"))
}
