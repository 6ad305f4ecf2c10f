//! From the run file and the command line to what one run does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use see_core::config::{
    ConfigPath, Configuration, DurationValue, HookSection, HooksSection, Located, Place, RunFile,
    Substitutions,
};
use see_core::{
    Action, Error, ErrorKind, Identifier, Limits, Prepared, Protocol, Registries, Result,
    path_to_text,
};

use super::{guest_commands, notes};
use crate::args::RunArguments;
use crate::log;

/// How long a sample may run where nobody says.
const RUNTIME: Duration = Duration::from_secs(120);
/// What a run takes around its sample.
const AROUND: Duration = Duration::from_secs(300);

/// The key under which hooks learn where results belong.
const RESULTS: &str = "results_folder";

/// A run file with its overrides: what the runs of all samples have in common.
#[derive(Debug)]
pub(super) struct Plan {
    file: PathBuf,
    configuration: Configuration,
    command: Option<String>,
    runtime: Option<String>,
    results: Option<PathBuf>,
}

/// What one run does.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) identifier: Identifier,
    pub(super) run_file: PathBuf,
    pub(super) sample: Option<PathBuf>,
    pub(super) command: Option<String>,
    /// Where the run's own folder is made.
    pub(super) results_root: PathBuf,
    pub(super) protocol: Protocol,
    context: Configuration,
    hooks: HooksSection,
}

impl Plan {
    /// Reads the run file and applies the overrides.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] and the place of the mistake.
    pub(super) fn read(arguments: &RunArguments) -> Result<Self> {
        let mut configuration = Configuration::from_file(&arguments.run_file)?;
        for assignment in &arguments.set {
            configuration.set_assignment(assignment)?;
        }
        if let Some(backend) = &arguments.backend {
            configuration.set("context.backend", &quoted(backend))?;
        }
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|error| Error::io("there is no such path", error))
        };
        Ok(Self {
            file: absolute(&arguments.run_file)?,
            configuration: guest_commands::settled(&configuration)?,
            command: arguments.command.clone(),
            runtime: arguments.runtime.clone(),
            results: arguments.results.as_deref().map(absolute).transpose()?,
        })
    }

    /// The run file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The machine in a few words that follow what runs in it: its image, and what is unusual.
    pub(super) fn machine(&self) -> String {
        let find = |keys: &[&str]| {
            keys.iter()
                .try_fold(&self.configuration, |node, key| node.get(key))
        };
        let image = find(&["context", "disk", "image"]);
        let named = image.and_then(|image| ["name", "uri"].iter().find_map(|key| image.get(key)));
        let image = named.or(image).and_then(Configuration::as_str);
        let image = image.map(|image| image.rsplit('/').next().unwrap_or(image));
        let mut words = match image {
            Some(image) => format!(" in {image}"),
            None => String::new(),
        };
        if log::guests_are_emulated() {
            words.push_str(", emulated (no KVM)");
        }
        let mode = find(&["context", "network", "mode"]).and_then(Configuration::as_str);
        if let Some(mode) = mode {
            words.push_str(&format!(", network {mode}"));
        }
        words
    }

    /// What there is to say of the run file that is no mistake.
    pub(super) fn notes(&self, registries: &Registries) -> Vec<String> {
        notes::of(&self.configuration, registries)
    }

    /// Settles one run: its identifier, its results folder, and what the substitutions stand for.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] and the place of the mistake.
    pub(super) fn settle(&self, sample: Option<&Path>, registries: &Registries) -> Result<Settled> {
        let has_work = sample.is_some() || self.command.is_some();
        self.check_use(sample.is_some(), has_work)?;
        let substitutions = Substitutions::default()
            .sample(sample.map(path_to_text))
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
            run_file: self.file.clone(),
            sample: sample.map(Path::to_owned),
            command: self.command.clone(),
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
        if let Some(chosen) = &self.results {
            return Ok(chosen.clone());
        }
        let root = match hooks.configuration.get(RESULTS) {
            Some(written) => written.deserialize::<ConfigPath>()?.path().to_owned(),
            None => self.file.with_file_name("results"),
        };
        std::path::absolute(root).map_err(|error| Error::io("there is no working folder", error))
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

impl Settled {
    /// Checks everything; nothing is made.
    ///
    /// # Errors
    /// What is wrong with the context, the hooks or the host.
    pub(super) async fn check(&self, registries: &Registries) -> Result<Prepared> {
        registries.prepare(&self.context, &self.hooks).await
    }

    /// The folder of the run's results.
    pub(super) fn results(&self) -> PathBuf {
        self.results_root.join(self.identifier.to_string())
    }
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
