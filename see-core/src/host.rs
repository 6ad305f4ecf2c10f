//! Where environments are allocated and torn down: on a runtime of its own, so that neither a dropped
//! future nor a dropped runtime leaks.

use std::fmt;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};

use crate::bus::BusLimits;
use crate::config::{Configuration, HooksSection};
use crate::hook::PreparedHook;
use crate::ledger::{Collectors, Ledger, Looked, Record, Trail};
use crate::mishap::MishapKind;
use crate::settings::{AgentSettings, Limits};
use crate::shared::{EndLimits, Parts, Shared};
use crate::sync::died;
use crate::teardown::{Resident, Stay, remove_all};
use crate::{
    Allocation, Environment, Error, ErrorKind, EventBus, Identifier, ImageProgress, Machine,
    PreparedBackend, Registries, Result, Stop,
};

/// How long environments may take to end when their owner panics: the time for release and removal, and a minute for
/// handlers and hooks.
const PANIC_DEADLINE: Duration = Duration::from_secs(300);

/// Allocates environments and tears them down, on a runtime of its own.
///
/// Work that was begun here ends here: when the caller's future is dropped, the allocation is stopped,
/// undone, and nothing is left. Call [`Host::finish`] before the process ends. A host that is dropped by a
/// panic waits until what it made is torn down.
pub struct Host {
    runtime: Option<Runtime>,
    registries: Registries,
    ledger: Ledger,
    /// How many environments live; each holds a [`Stay`].
    staying: watch::Sender<usize>,
    stop: Stop,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("registries", &self.registries)
            .field("staying", &*self.staying.borrow())
            .finish_non_exhaustive()
    }
}

/// A checked configuration: nothing has been made yet.
#[derive(Debug)]
pub struct Prepared {
    /// The backend.
    pub backend: PreparedBackend,
    /// The hooks, in the order in which they are attached.
    pub hooks: Vec<PreparedHook>,
    /// How the agent is reached.
    pub agent: AgentSettings,
    /// What the run may use.
    pub limits: Limits,
}

/// How an allocation is made.
#[derive(Debug, Clone, Default)]
pub struct AllocateOptions {
    /// The identifier; a random one where it is `None`.
    pub identifier: Option<Identifier>,
    /// A remark for the ledger, shown by `seectl ls`.
    pub note: String,
    /// The bus's limits.
    pub bus: BusLimits,
    /// The teardown's deadlines.
    pub end: EndLimits,
    /// Where it is told how far the fetch of images is.
    pub progress: ImageProgress,
    /// By which [`Host::look`] finds out what is left in the end.
    pub trail: Trail,
}

impl Registries {
    /// Checks a context section and a hooks section, whole, before anything is made: not even a ledger.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] and the place of the first mistake; and what the backend reports of
    /// the host.
    pub async fn prepare(&self, context: &Configuration, hooks: &HooksSection) -> Result<Prepared> {
        let agent = section(context, "agent")?;
        let limits = section(context, "limits")?;
        let hooks = self.hooks.prepare(hooks)?;
        let backend = self.backends.prepare(context, &self.images).await?;
        Ok(Prepared {
            backend,
            hooks,
            agent,
            limits,
        })
    }
}

impl Host {
    /// A host that knows these registries and writes into this ledger.
    ///
    /// # Errors
    /// Where the operating system gives no threads.
    pub fn new(registries: Registries, ledger: Ledger) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("see-host")
            .enable_all()
            .build()
            .map_err(|error| Error::io("the host's threads cannot be started", error))?;
        Ok(Self {
            runtime: Some(runtime),
            registries,
            ledger,
            staying: watch::Sender::new(0),
            stop: Stop::new(),
        })
    }

    /// What can be named in a configuration.
    pub fn registries(&self) -> &Registries {
        &self.registries
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Checks a context section and a hooks section, as [`Registries::prepare`].
    ///
    /// # Errors
    /// As [`Registries::prepare`].
    pub async fn prepare(&self, context: &Configuration, hooks: &HooksSection) -> Result<Prepared> {
        self.registries.prepare(context, hooks).await
    }

    /// Makes an environment: the sandbox first, then the hooks. A whole one, or nothing is left.
    ///
    /// When the returned future is dropped, the allocation is stopped and undone in the background.
    ///
    /// # Errors
    /// What the backend or a required hook reports; [`ErrorKind::Stopped`] where `stop` was asked for.
    pub async fn allocate(
        &self,
        prepared: Prepared,
        options: AllocateOptions,
        stop: Stop,
    ) -> Result<Environment> {
        let Some(runtime) = &self.runtime else {
            return Err(Error::stopped("allocate"));
        };
        if self.stop.is_stopped() {
            return Err(Error::stopped("allocate").advice("the host is finishing"));
        }
        let (send, receive) = oneshot::channel();
        let abandoned = Abandoned(Some(stop.clone()));
        let work = Work {
            prepared,
            options,
            ledger: self.ledger.clone(),
            collectors: self.registries.collectors.clone(),
            runtime: runtime.handle().clone(),
            stay: Stay::new(&self.staying),
            stop: stop.clone(),
        };
        let finishing = self.stop.token();
        runtime.spawn(async move {
            let allocation = tokio::spawn(work.allocate());
            let stopper = async {
                finishing.stopped().await;
                stop.stop();
                std::future::pending::<()>().await;
            };
            let outcome = tokio::select! {
                joined = allocation => joined.unwrap_or_else(|failed| Err(died(failed))),
                () = stopper => return,
            };
            // Nobody waits any more: the environment comes back and is torn down.
            if let Err(Ok(environment)) = send.send(outcome) {
                environment.deallocate().await;
            }
        });
        let outcome = receive
            .await
            .unwrap_or_else(|_| Err(Error::stopped("allocate")));
        // The allocation is over: from here on the caller decides about the stop.
        abandoned.disarm();
        outcome
    }

    /// Looks at the host for what an environment that has ended may have left: everything that it wrote into the
    /// ledger, and what comes with that. It is part of no deadline of the teardown; nothing is changed.
    ///
    /// Nothing was looked for where the allocation did not begin.
    pub async fn look(&self, trail: &Trail) -> Vec<Looked> {
        trail.look(&self.registries.collectors).await
    }

    /// Ends what is left: asks every allocation under way to stop, and waits for every environment to be
    /// torn down. Nothing can be allocated any more.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] where something was still there at the deadline; it stays in the ledger.
    pub async fn finish(mut self, deadline: Duration) -> Result<()> {
        self.stop.stop();
        let mut staying = self.staying.subscribe();
        let gone = tokio::time::timeout(deadline, staying.wait_for(|count| *count == 0))
            .await
            .is_ok();
        let left = *self.staying.borrow();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if gone {
            return Ok(());
        }
        Err(
            Error::timeout(format!("{left} environments to end"), deadline)
                .during("finish")
                .advice("what they hold is in the ledger: collect it"),
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.stop();
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        if !std::thread::panicking() {
            // Dropping a runtime blocks, which an async caller must not do.
            return runtime.shutdown_background();
        }
        // The process is likely to end with this panic, and nobody calls `finish` any more: what was made is
        // torn down in order before. On a thread of its own, since this one may belong to a runtime.
        let mut staying = self.staying.subscribe();
        let ending = std::thread::spawn(move || {
            let gone = async {
                let gone = staying.wait_for(|count| *count == 0);
                tokio::time::timeout(PANIC_DEADLINE, gone).await.is_ok()
            };
            if !runtime.block_on(gone) {
                tracing::error!(
                    "environments are left behind by a panic: `seectl gc` collects them"
                );
            }
            runtime.shutdown_background();
        });
        // It panics only where the runtime is broken, and then nothing can be done.
        let _ = ending.join();
    }
}

fn section<T: serde::de::DeserializeOwned + Default>(
    context: &Configuration,
    key: &str,
) -> Result<T> {
    context
        .get(key)
        .map_or_else(|| Ok(T::default()), Configuration::deserialize)
}

/// Stops the allocation when the caller's future is dropped.
struct Abandoned(Option<Stop>);

impl Abandoned {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.stop();
        }
    }
}

/// One allocation.
struct Work {
    prepared: Prepared,
    options: AllocateOptions,
    ledger: Ledger,
    collectors: Collectors,
    runtime: tokio::runtime::Handle,
    stay: Stay,
    stop: Stop,
}

impl Work {
    async fn allocate(self) -> Result<Environment> {
        let Self {
            prepared,
            options,
            ledger,
            collectors,
            runtime,
            stay,
            stop,
        } = self;
        let identifier = options.identifier.unwrap_or_else(Identifier::random);
        let token = stop.token();
        token.check("allocate")?;
        let record = ledger.begin(identifier, options.note).await?;
        record.only_for(collectors.clone());
        options.trail.follow(&record);
        let allocation = Allocation {
            progress: options.progress,
            ..Allocation::new(record, token.clone())
        };
        let (backend, lent) = (prepared.backend, allocation.clone());
        // In a task of its own, so that a panic is an error like any other.
        let made = tokio::spawn(async move { backend.allocate(&lent).await });
        let driver = match made.await.unwrap_or_else(|failed| Err(died(failed))) {
            Ok(driver) => driver,
            Err(error) => {
                undo(&allocation.record, &collectors, options.end.removal).await;
                return Err(error);
            }
        };
        let machine = Machine::new(
            identifier,
            driver,
            allocation.changes,
            runtime.clone(),
            options.end.power,
        );
        let parts = Parts {
            collectors,
            queue: options.bus.queue,
            agent: prepared.agent,
            stop,
            limits: options.end,
        };
        let shared = Shared::new(machine, allocation.record, runtime, parts);
        let mut environment = Environment::new(shared, EventBus::new(options.bus), stay);
        if let Err(error) = attach_all(&mut environment, prepared.hooks, &token).await {
            environment.deallocate().await;
            return Err(error);
        }
        Ok(environment)
    }
}

async fn attach_all(
    environment: &mut Environment,
    hooks: Vec<PreparedHook>,
    token: &crate::StopToken,
) -> Result<()> {
    for PreparedHook {
        name,
        required,
        attach,
    } in hooks
    {
        if required {
            environment.bus().mishaps.require(name);
        }
        let context = environment.hook_context(name);
        let lent = context.clone();
        let attaching = tokio::spawn(async move { attach.attach(&lent).await });
        let limit = environment.end_limits().hook;
        // A hook that attaches looks at its context's stop token; it is not cut off by it.
        let attached = match tokio::time::timeout(limit, attaching).await {
            Ok(joined) => joined.unwrap_or_else(|failed| Err(died(failed))),
            Err(_) => Err(Error::timeout("the hook to attach", limit)),
        };
        match attached {
            Ok(hook) => environment.add_hook(Resident {
                name,
                required,
                context,
                hook,
            }),
            Err(error) => {
                context.end(Duration::from_secs(1)).await;
                let error = error.during("attach").subject(format!("hook {name}"));
                if required || error.kind() == ErrorKind::Stopped {
                    return Err(error);
                }
                environment
                    .bus()
                    .record("attach", name, MishapKind::Failed(error.chain()));
            }
        }
        token.check("attach")?;
    }
    Ok(())
}

/// Removes what a failed allocation made, and its record. What cannot be removed stays for collection.
async fn undo(record: &Record, collectors: &Collectors, limit: Duration) {
    for error in remove_all(record, collectors, limit).await {
        tracing::warn!("a failed allocation leaves something: {}", error.chain());
    }
    match record.close().await {
        Ok(left) if left.is_empty() => {}
        Ok(left) => tracing::warn!("{} resources are left for collection", left.len()),
        Err(error) => tracing::warn!("left for collection: {}", error.chain()),
    }
}
