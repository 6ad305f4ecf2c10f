//! Which hooks, backends and image providers there are: ordinary values, never global.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;

use crate::backend::{Backend, Preparation, PreparedBackend};
use crate::config::{
    Configuration, HookSection, HooksSection, Located, fields_of, nearest, python_see,
};
use crate::hook::{Hook, PreparedHook};
use crate::image::{ImageRegistry, ImageSource};
use crate::ledger::Collectors;
use crate::names::Names;
use crate::sync::lock;
use crate::{Error, ErrorKind, Result};

/// Everything that a configuration can name.
///
/// A front-end crate fills it; two programs, or two environments, may have different ones.
#[derive(Debug, Default)]
pub struct Registries {
    /// The hooks.
    pub hooks: HookRegistry,
    /// The backends.
    pub backends: BackendRegistry,
    /// The image providers.
    pub images: ImageRegistry,
    /// What removes each kind of resource that a dead owner left; the core's own kinds are there already.
    pub collectors: Collectors,
}

impl Registries {
    /// Registries in which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }
}

type PrepareHook = fn(&Configuration, bool) -> Result<PreparedHook>;

/// The hooks that are known.
#[derive(Debug, Default)]
pub struct HookRegistry(Names<HookEntry>);

struct HookEntry {
    fields: fn() -> &'static [&'static str],
    prepare: PrepareHook,
}

impl HookRegistry {
    /// Registers a hook.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where its name or an alias is taken.
    pub fn add<T: Hook>(&mut self) -> Result<()> {
        let entry = HookEntry {
            fields: fields_of::<T::Configuration>,
            prepare: |configuration, required| {
                Ok(PreparedHook::new::<T>(
                    configuration.deserialize()?,
                    required,
                ))
            },
        };
        self.0.add("hook", T::NAME, T::ALIASES, entry)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.entries.keys().copied()
    }

    /// Checks a `hooks` section, and makes each hook ready to be attached.
    ///
    /// A hook gets its own keys and those shared ones that it knows; its own win. One that is not known and not
    /// required is left out: [`HookRegistry::left_out`] tells which.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] and the place: an unknown hook that is required, a wrong configuration, or a
    /// shared key that none of the hooks knows, where all of them are known.
    pub fn prepare(&self, section: &HooksSection) -> Result<Vec<PreparedHook>> {
        let mut known_somewhere = BTreeSet::new();
        let mut prepared = Vec::with_capacity(section.hooks.len());
        for hook in &section.hooks {
            let entry = match self.entry(hook) {
                Ok(entry) => entry,
                Err(_) if !hook.required => continue,
                Err(error) => return Err(error),
            };
            let fields = (entry.fields)();
            known_somewhere.extend(fields);
            let configuration = hook
                .configuration
                .merge_shared(&section.configuration, fields);
            prepared.push((entry.prepare)(&configuration, hook.required)?);
        }
        // Whose keys they are that no hook knows cannot be told where a hook is not known.
        if prepared.len() == section.hooks.len() {
            let known: Vec<&str> = known_somewhere.into_iter().collect();
            section.configuration.check_keys(&known)?;
        }
        Ok(prepared)
    }

    /// Why each hook of the section is left out that is neither known nor required, with its place.
    pub fn left_out(&self, section: &HooksSection) -> Vec<Error> {
        let optional = section.hooks.iter().filter(|hook| !hook.required);
        optional.filter_map(|hook| self.entry(hook).err()).collect()
    }

    /// Whether one of the section's hooks knows this key, so that it may be shared.
    pub fn knows(&self, section: &HooksSection, key: &str) -> bool {
        let entries = section
            .hooks
            .iter()
            .filter_map(|hook| self.entry(hook).ok());
        entries
            .map(|entry| (entry.fields)())
            .any(|fields| fields.contains(&key))
    }

    fn entry(&self, hook: &HookSection) -> Result<&HookEntry> {
        self.0.find("hook", &hook.name).map_err(|error| {
            let error = python_see::unknown_hook(&hook.name).unwrap_or(error);
            error.at(hook.name.place().clone())
        })
    }
}

type PreparingBackend<'a> = Pin<Box<dyn Future<Output = Result<PreparedBackend>> + Send + 'a>>;

/// The backends that are known.
#[derive(Debug, Default)]
pub struct BackendRegistry(Names<BackendEntry>);

struct BackendEntry {
    recognises: fn(&Configuration) -> bool,
    prepare: for<'a> fn(Configuration, &'a Preparation<'a>) -> PreparingBackend<'a>,
}

/// The keys of a context section that name the backend; the second is python-see's.
const BACKEND_KEYS: [&str; 2] = ["backend", "name"];

impl BackendRegistry {
    /// Registers a backend.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where its name or an alias is taken.
    pub fn add<T: Backend>(&mut self) -> Result<()> {
        let entry = BackendEntry {
            recognises: T::recognises,
            prepare: |configuration, preparation| {
                Box::pin(async move {
                    let typed = configuration.deserialize()?;
                    Ok(PreparedBackend::new(T::prepare(typed, preparation).await?))
                })
            },
        };
        self.0.add("backend", T::NAME, T::ALIASES, entry)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.entries.keys().copied()
    }

    /// Checks a `context` section with the backend that it names, or that recognises it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] and the place: an unknown backend, none or several that recognise the
    /// section, or a configuration that cannot work; and what the backend reports of the host.
    pub async fn prepare(
        &self,
        context: &Configuration,
        images: &ImageRegistry,
    ) -> Result<PreparedBackend> {
        let preparation = preparation(context, images);
        self.prepare_with(context, &preparation).await
    }

    /// The images that a `context` section asks for, in the order in which its backend does: what can be
    /// fetched before the first run.
    ///
    /// A backend that cannot work on this host, since its hypervisor does not run say, still tells which
    /// images it would have used.
    ///
    /// # Errors
    /// As [`BackendRegistry::prepare`]; where the host is what fails, only if no image was asked for before.
    pub async fn images(
        &self,
        context: &Configuration,
        images: &ImageRegistry,
    ) -> Result<Vec<ImageSource>> {
        let preparation = preparation(context, images);
        let prepared = self.prepare_with(context, &preparation).await;
        let asked = std::mem::take(&mut *lock(&preparation.asked));
        match prepared {
            Err(error) if error.kind() == ErrorKind::Configuration || asked.is_empty() => {
                Err(error)
            }
            _ => Ok(asked),
        }
    }

    async fn prepare_with(
        &self,
        context: &Configuration,
        preparation: &Preparation<'_>,
    ) -> Result<PreparedBackend> {
        let entry = self.select(context)?;
        let rest = BACKEND_KEYS
            .iter()
            .fold(context.clone(), |rest, key| rest.without(key));
        (entry.prepare)(rest, preparation).await
    }

    /// No backend recognises the context: its hypervisor is what tells, where it has one.
    fn unrecognised(&self, context: &Configuration) -> Error {
        let known = self.names().collect::<Vec<_>>().join(", ");
        let Some((node, uri)) = context
            .get("hypervisor")
            .and_then(|node| Some((node, node.as_str()?)))
        else {
            return Error::configuration(context.place(), "no backend recognises this context")
                .advice(format!("name one with the key `backend`: {known}"));
        };
        let message = format!(
            "no backend recognises the hypervisor `{}`, known backends are: {known}",
            uri.escape_debug()
        );
        let error = Error::configuration(node.place(), message);
        let scheme = uri.split([':', '+']).next().unwrap_or(uri);
        match nearest(scheme, self.names()) {
            Some(near) if near != scheme => error.advice(format!(
                "did you mean `{near}{}`?",
                uri[scheme.len()..].escape_debug()
            )),
            _ => error.advice(format!("name one with the key `backend`: {known}")),
        }
    }

    fn select(&self, context: &Configuration) -> Result<&BackendEntry> {
        let mut named = BACKEND_KEYS.iter().filter_map(|key| context.get(key));
        if let Some(node) = named.next() {
            let name: Located<String> = node.deserialize()?;
            let entry = self.0.find("backend", &name);
            return entry.map_err(|error| error.at(name.place().clone()));
        }
        let candidates: Vec<(&str, &BackendEntry)> = self
            .0
            .entries
            .iter()
            .filter(|(_, entry)| (entry.recognises)(context))
            .map(|(name, entry)| (*name, entry))
            .collect();
        match candidates.as_slice() {
            [(_, entry)] => Ok(entry),
            [] => Err(self.unrecognised(context)),
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
                Err(Error::configuration(
                    context.place(),
                    format!(
                        "several backends recognise this context: {}",
                        names.join(", ")
                    ),
                )
                .advice("name one with the key `backend`"))
            }
        }
    }
}

fn preparation<'a>(context: &Configuration, images: &'a ImageRegistry) -> Preparation<'a> {
    Preparation {
        images,
        place: context.place(),
        asked: Mutex::default(),
    }
}
