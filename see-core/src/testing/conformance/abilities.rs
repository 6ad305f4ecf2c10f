//! What a sandbox claims to be able to do.

use std::path::Path;
use std::sync::Arc;

use super::bench::Bench;
use super::lifecycle::change;
use crate::testing::report::{Outcome, Stumble, ensure};
use crate::{Machine, Transition};

pub(super) async fn claims(bench: Arc<Bench>) -> Outcome {
    let mut environment = bench.environment().await?;
    let machine = environment.machine().clone();
    let claimed = claimed_by(&machine);
    let on = change(&bench, &mut environment, Transition::Poweron);
    bench.within("poweron", on).await??;
    let settled = bench.candidate.settle(&machine);
    bench
        .within("the guest", settled)
        .await?
        .map_err(|error| Stumble::from(error).during("bring the guest up"))?;
    for name in &claimed {
        bench
            .within(name, shown(name, &machine))
            .await?
            .map_err(|stumble| stumble.during(name))?;
    }
    let running = claimed_by(&machine);
    ensure(running == claimed, || {
        format!("claimed {claimed:?} before it ran, and {running:?} while it runs")
    })?;
    let off = change(&bench, &mut environment, Transition::Poweroff);
    bench.within("poweroff", off).await??;
    // Of a machine that is off an error is fine, but no panic and no endless wait.
    if let Some(screen) = machine.screenshot() {
        let _ = bench
            .within("a picture of a machine that is off", screen.take())
            .await?;
    }
    if let Some(channel) = machine.guest_channel() {
        let _ = bench
            .within("a channel to a machine that is off", channel.open())
            .await?;
    }
    bench.end(environment).await?;
    Ok(format!("shown: {}", claimed.join(", ")))
}

fn claimed_by(machine: &Machine) -> Vec<&'static str> {
    [
        ("screenshot", machine.screenshot().is_some()),
        ("guest channel", machine.guest_channel().is_some()),
        ("disks", !machine.disks().is_empty()),
        ("console", machine.console().is_some()),
        ("isolation", machine.isolation().is_some()),
        ("meter", machine.meter().is_some()),
        ("native", machine.native().is_some()),
        ("network", machine.has_network()),
        ("no network", !machine.has_network()),
    ]
    .into_iter()
    .filter_map(|(name, claimed)| claimed.then_some(name))
    .collect()
}

async fn shown(name: &str, machine: &Machine) -> Outcome<()> {
    match name {
        "screenshot" => {
            let Some(screen) = machine.screenshot() else {
                return Err(gone());
            };
            let picture = screen.take().await?;
            ensure(
                !picture.bytes.is_empty() && picture.mime_type.starts_with("image/"),
                || format!("{} bytes of {:?}", picture.bytes.len(), picture.mime_type),
            )
        }
        "guest channel" => {
            let Some(channel) = machine.guest_channel() else {
                return Err(gone());
            };
            drop(channel.open().await?);
            // Its end is given back, for whoever comes next.
            drop(channel.open().await?);
            Ok(())
        }
        "disks" => machine.disks().iter().try_for_each(|disk| is_there(disk)),
        "console" => machine
            .console()
            .map_or_else(|| Err(gone()), |console| is_there(console.log())),
        "isolation" => {
            let Some(walls) = machine.isolation() else {
                return Err(gone());
            };
            walls.check().await?;
            walls.closed().await?;
            Ok(())
        }
        "meter" => {
            let Some(meter) = machine.meter() else {
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
            let addresses = machine.addresses().await?;
            ensure(addresses.is_empty(), || {
                format!("a guest without network has the addresses {addresses:?}")
            })
        }
        "network" => Ok(machine.addresses().await.map(drop)?),
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
