//! A run as a value: read from a run file or built in code, checked whole, and done by a [`Host`](crate::Host).

mod artifacts;
mod folder;
mod guest_commands;
mod kept;
mod notes;
mod outcome;
mod run;
mod sample;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use outcome::{Artifact, RunHeader, RunResult, SampleResult, StepResult, Verdict};
pub use run::{RunOptions, RunUpdate};

use crate::config::{
    ConfigPath, Configuration, DurationValue, HookSection, HooksSection, Located, Place, RunFile,
    Substitutions,
};
use crate::{
    Action, Error, ErrorKind, Identifier, Limits, Prepared, Protocol, Registries, Result,
    path_to_text,
};

/// How long a sample may run where nobody says.
const RUNTIME: Duration = Duration::from_secs(120);
/// What a run takes around its sample.
const AROUND: Duration = Duration::from_secs(300);

/// The key under which hooks learn where results belong.
const RESULTS: &str = "results_folder";

/// What is to be run, and in what machine: a run file or the like of it, with what a command line adds.
///
/// [`RunPlan::check`] checks it whole, and [`Host::run`](crate::Host::run) does what was checked.
///
/// ```
/// use see_core::RunPlan;
/// use see_core::config::Configuration;
///
/// let run = Configuration::from_str("run.json", r#"{ "version": 1, "context": {} }"#)?;
/// let plan = RunPlan::new(run)
///     .with_assignment("context.memory=1GiB")?
///     .with_command("id");
/// # Ok::<(), see_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RunPlan {
    file: Option<PathBuf>,
    configuration: Configuration,
    sample: Option<PathBuf>,
    command: Option<String>,
    runtime: Option<String>,
    results: Option<PathBuf>,
}

/// A run whose configuration, sample and host were checked: nothing has been made yet.
#[derive(Debug)]
pub struct CheckedRun {
    identifier: Identifier,
    plan: RunPlan,
    /// Where the run's own folder is made.
    results_root: PathBuf,
    protocol: Protocol,
    prepared: Prepared,
    notes: Vec<String>,
}

impl RunPlan {
    /// A run as a run file describes it, whose relative paths start at the file's folder.
    ///
    /// # Errors
    /// Where the file cannot be read; [`ErrorKind::Configuration`] and the place where it is not JSON.
    pub fn from_file(file: impl AsRef<Path>) -> Result<Self> {
        let configuration = Configuration::from_file(file.as_ref())?;
        Ok(Self {
            file: Some(absolute(file.as_ref())?),
            ..Self::new(configuration)
        })
    }

    /// A run whose configuration a program built: what a run file holds.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            file: None,
            configuration,
            sample: None,
            command: None,
            runtime: None,
            results: None,
        }
    }

    /// The file that is run in the guest; in the run file, `${sample}`.
    #[must_use]
    pub fn with_sample(mut self, sample: impl Into<PathBuf>) -> Self {
        self.sample = Some(sample.into());
        self
    }

    /// The command that runs in the guest; in the run file, `${command}`.
    #[must_use]
    pub fn with_command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// How long the sample may run, such as `90s`; in the run file, `${runtime}`. Without it 2 minutes, or the whole
    /// run's time where that is shorter.
    #[must_use]
    pub fn with_runtime(mut self, runtime: impl Into<String>) -> Self {
        self.runtime = Some(runtime.into());
        self
    }

    /// The folder in which the run makes a folder of its own, named after its identifier. Without it
    /// `hooks.configuration.results_folder`, else `results` beside the run file or in the working folder.
    #[must_use]
    pub fn with_results(mut self, folder: impl Into<PathBuf>) -> Self {
        self.results = Some(folder.into());
        self
    }

    /// Sets one key of the configuration, such as `context.memory=1GiB`. The value is JSON, or else a string.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where it is no assignment, or the key cannot be there.
    pub fn with_assignment(mut self, assignment: &str) -> Result<Self> {
        self.configuration.set_assignment(assignment)?;
        Ok(self)
    }

    /// Names the backend, whatever the configuration says.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where `context` is no object.
    pub fn with_backend(mut self, backend: &str) -> Result<Self> {
        self.configuration
            .set("context.backend", &quoted(backend))?;
        Ok(self)
    }

    /// The configuration with what was set.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// What there is to say of the configuration that is no mistake: hooks that are left out, and what python-see did
    /// otherwise with such a file.
    pub fn notes(&self, registries: &Registries) -> Vec<String> {
        notes::of(&self.configuration, registries)
    }

    /// Checks everything, and the host; nothing is made.
    ///
    /// # Errors
    /// All that is wrong with the configuration, each with its place; [`ErrorKind::PermissionDenied`] where rights are
    /// missing; and what the backend reports of the host.
    pub async fn check(&self, registries: &Registries) -> Result<CheckedRun> {
        if let Some(sample) = self.sample.clone() {
            folder::blocking(move || sample::check(&sample)).await?;
        }
        let settled = self.settle(registries)?;
        let prepared = registries.prepare(&settled.context, &settled.hooks).await?;
        Ok(CheckedRun {
            identifier: settled.identifier,
            plan: settled.plan,
            results_root: settled.results_root,
            protocol: settled.protocol,
            prepared,
            notes: self.notes(registries),
        })
    }

    /// Settles one run: its identifier, its results folder, and what the substitutions stand for.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] and the place of the mistake.
    fn settle(&self, registries: &Registries) -> Result<Settled> {
        let mut plan = self.clone();
        plan.sample = self.sample.as_deref().map(absolute).transpose()?;
        plan.configuration = guest_commands::settled(&self.configuration)?;
        plan.settle_whole(registries)
    }

    fn settle_whole(self, registries: &Registries) -> Result<Settled> {
        let has_work = self.sample.is_some() || self.command.is_some();
        self.check_use(self.sample.is_some(), has_work)?;
        let substitutions = Substitutions::default()
            .sample(self.sample.as_deref().map(path_to_text))
            .command(self.command.clone())
            .runtime(self.runtime());
        let configuration = self.configuration.substitute(&substitutions)?;
        let run = RunFile::read(&configuration)?;
        let protocol = match &run.protocol {
            Some(steps) => steps.clone(),
            None => {
                let runtime = DurationValue::parse(&self.runtime()).map(|value| value.0);
                let standard = Protocol::standard(runtime.filter(|_| has_work));
                Configuration::from_json(standard).substitute(&substitutions)?
            }
        };
        let protocol = Protocol::from_configuration(&protocol)?;
        self.check_time(&run.context, &protocol)?;
        let mut hooks = run.hooks;
        if configuration.get("hooks").is_none() {
            hooks.hooks.push(default_hook());
        }
        let identifier = Identifier::random();
        let results_root = self.results_root(&hooks)?;
        let wanted = hooks.configuration.get(RESULTS).is_some();
        if wanted || registries.hooks.knows(&hooks, RESULTS) {
            let folder = results_root.join(identifier.to_string());
            hooks.configuration.set(RESULTS, &quoted(utf8(&folder)?))?;
        }
        Ok(Settled {
            identifier,
            plan: self,
            results_root,
            protocol,
            context: run.context,
            hooks,
        })
    }

    /// How long the sample may run.
    fn runtime(&self) -> String {
        self.runtime.clone().unwrap_or_else(|| {
            let limits = self
                .configuration
                .get("context")
                .and_then(|context| context.get("limits"));
            let run = limits.and_then(|limits| limits.get("run"));
            // What is wrong with it is found with everything else.
            let run = run.and_then(|run| run.deserialize::<DurationValue>().ok());
            let shorter = run.filter(|run| run.0 < RUNTIME);
            shorter.unwrap_or(DurationValue(RUNTIME)).to_string()
        })
    }

    /// What is meant to take longer than the whole run may cannot go well.
    fn check_time(&self, context: &Configuration, protocol: &Protocol) -> Result<()> {
        let section = context.get("limits");
        let limits = section.map_or_else(|| Ok(Limits::default()), Configuration::deserialize)?;
        let limit = limits.run;
        let too_long = |place: Place, what: String, time: Duration| {
            let message = format!(
                "{what} is longer than the whole run may take: `context.limits.run` is {limit}"
            );
            let enough = DurationValue(time.saturating_add(AROUND));
            Error::configuration(place, message).advice(format!(
                "give the run more time: `--set context.limits.run={enough}`"
            ))
        };
        if let Some(given) = &self.runtime
            && let Some(runtime) = DurationValue::parse(given)
            && runtime.0 > limit.0
        {
            let run = section.and_then(|limits| limits.get("run"));
            let place = run.unwrap_or(context).place();
            return Err(too_long(place, format!("`--runtime {given}`"), runtime.0));
        }
        for step in &protocol.steps {
            if let Action::Wait {
                event: None,
                timeout,
            } = &step.action
                && *timeout > limit.0
                && let Some(place) = &step.place
            {
                let what = format!("a wait of {}", DurationValue(*timeout));
                return Err(too_long(place.clone(), what, *timeout));
            }
        }
        Ok(())
    }

    fn results_root(&self, hooks: &HooksSection) -> Result<PathBuf> {
        let written = match (&self.results, hooks.configuration.get(RESULTS)) {
            (Some(chosen), _) => Some(chosen.clone()),
            (None, Some(written)) => Some(written.deserialize::<ConfigPath>()?.path().to_owned()),
            (None, None) => None,
        };
        absolute(&written.unwrap_or_else(|| self.results_beside()))
    }

    fn results_beside(&self) -> PathBuf {
        match &self.file {
            Some(file) => file.with_file_name("results"),
            None => PathBuf::from("results"),
        }
    }

    /// A sample that nothing refers to, and a reference to a sample that is not given, are slips.
    fn check_use(&self, has_sample: bool, has_work: bool) -> Result<()> {
        let own_protocol = self.configuration.get("protocol").is_some();
        match first_with(&self.configuration, "${sample}") {
            None if has_sample && own_protocol => {
                let place = self.configuration.get("protocol").map(Configuration::place);
                let error = Error::new(
                    ErrorKind::Configuration,
                    "expected `${sample}` somewhere in the run file, since --sample is given",
                );
                Err(match place {
                    Some(place) => error.at(place),
                    None => error,
                })
            }
            Some(node) if !has_work => Err(Error::configuration(
                node.place(),
                "`${sample}` stands for nothing in this run",
            )
            .advice("give a sample with --sample FILE")),
            _ => Ok(()),
        }
    }
}

/// What one run does, before the registries were asked about it.
struct Settled {
    identifier: Identifier,
    plan: RunPlan,
    results_root: PathBuf,
    protocol: Protocol,
    context: Configuration,
    hooks: HooksSection,
}

impl CheckedRun {
    /// The folder of the run's results.
    pub fn results(&self) -> PathBuf {
        self.results_root.join(self.identifier.to_string())
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io("there is no working folder", error))
}

/// The hook of a run file that names none.
fn default_hook() -> HookSection {
    HookSection {
        name: Located::new(String::from("commands"), Configuration::empty().place()),
        configuration: Configuration::empty(),
        required: true,
    }
}

/// The first string that contains `text`.
fn first_with<'a>(node: &'a Configuration, text: &str) -> Option<&'a Configuration> {
    if node.as_str().is_some_and(|string| string.contains(text)) {
        return Some(node);
    }
    let items = node.items().iter();
    let values = node.entries().map(|(_, value)| value);
    items
        .chain(values)
        .find_map(|child| first_with(child, text))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(
            ErrorKind::Configuration,
            "expected a path in UTF-8, found other bytes in it",
        )
        .subject(path.display())
    })
}
