//! The machine of an environment: a driver with a queue for its actions, deadlines, and watchers.

mod power;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard, Notify};

use self::power::Power;
use crate::changes::{ChangeSender, Changes};
use crate::sync::died;
use crate::{
    Address, Console, Driver, Error, ErrorKind, GuestChannel, HypervisorLog, Identifier, Isolation,
    Meter, Result, SandboxChange, SandboxState, Screenshot, Transition,
};

/// How long a cut of the power, or the release, waits for an action under way. It is the way out when a hypervisor
/// hangs, so it does not wait for what hangs.
const OVERTAKES: Duration = Duration::from_secs(5);

/// A throw-away machine, to look at; cheap to clone.
///
/// Its power is changed through a [`Turn`](crate::Turn), and only so: every change has its events, and is known as
/// ours and not the guest's. A hook that is no serial handler has no turn, and posts events instead:
///
/// ```compile_fail,E0599
/// async fn cut_the_power(context: &see_core::Context) {
///     let _ = context.machine().destroy().await;
/// }
/// ```
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

struct Inner {
    identifier: Identifier,
    driver: Box<dyn Driver>,
    changes: ChangeSender,
    /// One action at a time. The work itself holds it, not the one who waits for that.
    queue: Mutex<()>,
    released: AtomicBool,
    power: Power,
    /// We changed the power: what the guest did meanwhile was not looked at.
    acted: Notify,
    runtime: Handle,
    limit: Duration,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Machine").field(&self.0.driver).finish()
    }
}

impl Machine {
    /// A machine whose driver tells of changes through `changes`. Each answer and each action has the time `limit`.
    pub(crate) fn new(
        identifier: Identifier,
        driver: Box<dyn Driver>,
        changes: ChangeSender,
        runtime: Handle,
        limit: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            identifier,
            driver,
            changes,
            queue: Mutex::default(),
            released: AtomicBool::new(false),
            power: Power::default(),
            acted: Notify::new(),
            runtime,
            limit,
        }))
    }

    /// The environment that it belongs to.
    pub fn identifier(&self) -> Identifier {
        self.0.identifier
    }

    /// The state it is in now.
    ///
    /// # Errors
    /// When the hypervisor does not answer in time, or the machine is gone.
    pub async fn state(&self) -> Result<SandboxState> {
        let state = self.0.driver.state();
        within(self.0.limit, "the hypervisor to tell the state", state).await
    }

    /// The addresses the guest has now; empty where it has no network or no lease yet.
    ///
    /// # Errors
    /// When the hypervisor does not answer in time.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let addresses = self.0.driver.addresses();
        within(self.0.limit, "the hypervisor to tell addresses", addresses).await
    }

    /// Why the guest may have no address, where the host shows a cause: [`Driver::why_no_address`].
    pub async fn why_no_address(&self) -> Option<String> {
        let why = self.0.driver.why_no_address();
        tokio::time::timeout(self.0.limit, why).await.ok().flatten()
    }

    /// Whether the guest has a network on which addresses may be expected.
    pub fn has_network(&self) -> bool {
        self.0.driver.has_network()
    }

    /// Its changes from now on.
    pub fn watch(&self) -> Changes {
        self.0.changes.watch()
    }

    /// Pictures of the screen.
    pub fn screenshot(&self) -> Option<&dyn Screenshot> {
        self.0.driver.screenshot()
    }

    /// A byte channel to the guest that needs no network.
    pub fn guest_channel(&self) -> Option<&dyn GuestChannel> {
        self.0.driver.guest_channel()
    }

    /// The files of this host that hold what the guest writes to its disks.
    pub fn disks(&self) -> Vec<PathBuf> {
        self.0.driver.disks()
    }

    /// Text that the guest writes to its console.
    pub fn console(&self) -> Option<&dyn Console> {
        self.0.driver.console()
    }

    /// What the hypervisor writes about the machine.
    pub fn hypervisor_log(&self) -> Option<&dyn HypervisorLog> {
        self.0.driver.hypervisor_log()
    }

    /// What it takes of the host.
    pub fn meter(&self) -> Option<&dyn Meter> {
        self.0.driver.meter()
    }

    /// The walls around the guest's network.
    pub fn isolation(&self) -> Option<&dyn Isolation> {
        self.0.driver.isolation()
    }

    /// The hypervisor's own objects, for finer control; what they are, the backend documents.
    pub fn native(&self) -> Option<&dyn Any> {
        self.0.driver.native()
    }

    /// Whether the machine is off, as far as the hypervisor says.
    pub(crate) async fn is_off(&self) -> bool {
        self.state().await.is_ok_and(SandboxState::is_off)
    }

    /// Changes its power, behind the actions that were asked for before. What has begun ends even when this future is
    /// dropped, or its time is over.
    pub(crate) async fn act(&self, transition: Transition) -> Result<()> {
        let machine = self.clone();
        let work = self.0.runtime.spawn(async move {
            let mut change = machine.0.power.begin(transition);
            let done = machine.0.act(transition).await;
            change.succeeded = done.is_ok();
            drop(change);
            machine.0.acted.notify_one();
            done
        });
        let joined = async { work.await.unwrap_or_else(|failed| Err(died(failed))) };
        let done = within(self.0.limit, "the hypervisor", joined).await;
        done.map_err(|error| match error.operation() {
            Some(_) => error,
            None => error.during(transition.name()),
        })
    }

    /// Ends it for this process: no action is begun any more, and no change is told. Asking again is harmless.
    pub(crate) async fn release(&self) -> Result<()> {
        let machine = self.clone();
        let work = self.0.runtime.spawn(async move {
            let inner = &machine.0;
            let again = inner.released.swap(true, Ordering::AcqRel);
            let _turn = inner.turn(OVERTAKES).await;
            inner.changes.close();
            match again {
                true => Ok(()),
                false => inner.driver.release().await,
            }
        });
        work.await.unwrap_or_else(|failed| Err(died(failed)))
    }

    /// Waits until we changed the power: [`hear`](Self::hear) then has to look what the guest did meanwhile.
    pub(crate) async fn acted(&self) {
        self.0.acted.notified().await;
    }

    /// What the guest did to its own power, as the name of an event, after a change was told.
    pub(crate) async fn hear(&self, change: SandboxChange) -> Option<&'static str> {
        let power = &self.0.power;
        if change == SandboxChange::Rebooted {
            return Some(power.rebooted());
        }
        // Reports may be late or lost: what counts is how the machine stands now.
        let look = power.look();
        match self.state().await {
            Ok(state) => power.found(look, state),
            Err(error) => {
                tracing::debug!("the machine's state is not known: {error}");
                None
            }
        }
    }

    /// From now on nothing that it does is taken for the guest's doing.
    pub(crate) fn is_to_end(&self) {
        self.0.power.want_off();
    }

    /// Whether we want it to be off.
    pub(crate) fn is_wanted_off(&self) -> bool {
        self.0.power.is_wanted_off()
    }

    /// How the guest ended itself, if it did.
    pub(crate) fn guest_end(&self) -> Option<&'static str> {
        self.0.power.guest_end()
    }
}

impl Inner {
    /// The right to act, or none where an earlier action still holds it after `patience`.
    async fn turn(&self, patience: Duration) -> Option<MutexGuard<'_, ()>> {
        tokio::time::timeout(patience, self.queue.lock()).await.ok()
    }

    async fn act(&self, transition: Transition) -> Result<()> {
        if transition == Transition::Poweroff {
            return self.destroy().await;
        }
        let Some(_turn) = self.turn(self.limit).await else {
            return Err(Error::timeout("an earlier action to end", self.limit));
        };
        self.check_released()?;
        match transition {
            Transition::Poweron => self.driver.start().await,
            Transition::Pause => self.driver.suspend().await,
            Transition::Resume => self.driver.resume().await,
            Transition::Shutdown => self.driver.shutdown().await,
            Transition::Restart => self.driver.reboot().await,
            Transition::Poweroff => self.driver.destroy().await,
        }
    }

    /// Cuts the power, also beside an action that hangs.
    async fn destroy(&self) -> Result<()> {
        let turn = self.turn(OVERTAKES).await;
        self.check_released()?;
        if turn.is_some() {
            return self.driver.destroy().await;
        }
        tracing::warn!("an action hangs: after {OVERTAKES:.0?} the power is cut beside it");
        let state = tokio::time::timeout(OVERTAKES, self.driver.state()).await;
        let is_on = matches!(state, Ok(Ok(state)) if !state.is_off());
        self.driver.destroy().await?;
        if is_on {
            return Ok(());
        }
        // A slow start that has not reached the hypervisor yet goes on, and would leave the machine on.
        let _turn = self.turn(self.limit).await;
        self.check_released()?;
        self.driver.destroy().await
    }

    fn check_released(&self) -> Result<()> {
        match self.released.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::NotFound, "the machine was released")),
            false => Ok(()),
        }
    }
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(Error::timeout(what, limit)))
}
