//! Plugins that watch and drive a run.

use std::fmt;

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use crate::{Context, Result};

/// A plugin that can be named in a configuration.
///
/// It is attached once the sandbox is allocated, subscribes what it wants to hear of, and is cleaned up
/// before the sandbox is released. Its handlers and tasks belong to its [`Context`] and end before
/// `cleanup` runs.
///
/// ```
/// use async_trait::async_trait;
/// use see_core::{Context, Event, Hook, Result};
///
/// /// Says in the log when the machine started.
/// struct Herald;
///
/// /// The herald's configuration.
/// #[derive(serde::Deserialize)]
/// struct HeraldConfiguration {
///     /// What to say.
///     greeting: String,
/// }
///
/// #[async_trait]
/// impl Hook for Herald {
///     const NAME: &'static str = "herald";
///     type Configuration = HeraldConfiguration;
///
///     async fn attach(configuration: HeraldConfiguration, context: &Context) -> Result<Self> {
///         context.subscribe("post_poweron", move |event: &Event| {
///             println!("{} at {:?}", configuration.greeting, event.timestamp());
///         });
///         Ok(Self)
///     }
/// }
/// ```
#[async_trait]
pub trait Hook: Send + Sync + Sized + 'static {
    /// The name in configurations.
    const NAME: &'static str;
    /// Other names that mean the same.
    const ALIASES: &'static [&'static str] = &[];
    /// What stands under `configuration`, merged with the keys shared by all hooks.
    type Configuration: DeserializeOwned + Send + Sync;

    /// Joins an environment.
    ///
    /// # Errors
    /// Fails the whole allocation, with everything undone, unless the hook is configured with
    /// `"required": false`.
    async fn attach(configuration: Self::Configuration, context: &Context) -> Result<Self>;

    /// Leaves it again; called once, after the hook's handlers and tasks ended.
    ///
    /// # Errors
    /// Are reported with the teardown, which goes on.
    async fn cleanup(&self) -> Result<()> {
        Ok(())
    }
}

/// An attached hook, whatever its type.
#[async_trait]
pub(crate) trait Attached: Send + Sync {
    async fn leave(&self) -> Result<()>;
}

#[async_trait]
impl<T: Hook> Attached for T {
    async fn leave(&self) -> Result<()> {
        self.cleanup().await
    }
}

/// A hook whose configuration is checked and that waits to be attached.
#[async_trait]
pub(crate) trait Attach: Send + Sync {
    async fn attach(self: Box<Self>, context: &Context) -> Result<Box<dyn Attached>>;
}

struct Checked<T: Hook>(T::Configuration);

#[async_trait]
impl<T: Hook> Attach for Checked<T> {
    async fn attach(self: Box<Self>, context: &Context) -> Result<Box<dyn Attached>> {
        Ok(Box::new(T::attach(self.0, context).await?))
    }
}

/// A hook that is ready to be attached: its name, and whether an allocation without it is worthless.
pub struct PreparedHook {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) attach: Box<dyn Attach>,
}

impl fmt::Debug for PreparedHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedHook")
            .field("name", &self.name)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

impl PreparedHook {
    /// A hook with this configuration.
    pub fn new<T: Hook>(configuration: T::Configuration, required: bool) -> Self {
        Self {
            name: T::NAME,
            required,
            attach: Box::new(Checked::<T>(configuration)),
        }
    }
}
