//! The top level of a run file, and its hooks section.

use serde::Deserialize;

use super::failure::Failure;
use super::{Configuration, Located, python_see};
use crate::{Error, Result};

/// The version of run files that this is.
const VERSION: u64 = 1;

/// A run file, its sections still untyped: backends, hooks and the protocol read their own.
///
/// ```
/// use see_core::config::{Configuration, RunFile};
///
/// let text = r#"{ "version": 1, "context": {}, "hooks": { "hooks": [ { "name": "commands" } ] } }"#;
/// let run = RunFile::read(&Configuration::from_str("run.json", text)?)?;
/// assert_eq!(*run.hooks.hooks[0].name, "commands");
/// # Ok::<(), see_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RunFile {
    /// The machine: the backend's configuration.
    pub context: Configuration,
    /// The hooks; none where the file has no such section.
    pub hooks: HooksSection,
    /// The steps of the run, where the file says them.
    pub protocol: Option<Configuration>,
}

/// The hooks of a run.
#[derive(Debug, Clone, Default)]
pub struct HooksSection {
    /// What is shared by all of them: an object.
    pub configuration: Configuration,
    /// The hooks, in their order.
    pub hooks: Vec<HookSection>,
}

/// One hook of a run.
#[derive(Debug, Clone)]
pub struct HookSection {
    /// Which hook: a registered name or alias.
    pub name: Located<String>,
    /// Its own keys, without the shared ones: an object.
    pub configuration: Configuration,
    /// Whether a run without it is worthless. It is, unless the file says `"required": false`: then the run goes on
    /// where it is not known, or cannot be attached.
    pub required: bool,
}

#[derive(Deserialize)]
struct TopLevel {
    version: Located<u64>,
    context: Configuration,
    hooks: Option<Configuration>,
    protocol: Option<Configuration>,
}

#[derive(Deserialize)]
struct Section {
    configuration: Option<Configuration>,
    hooks: Vec<Configuration>,
}

#[derive(Deserialize)]
struct Member {
    name: Located<String>,
    configuration: Option<Configuration>,
    required: Option<bool>,
}

impl RunFile {
    /// Reads the top level of a run file and its hooks section.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) and the place: a version other than
    /// 1, unknown keys, no context, or sections of the wrong shape.
    pub fn read(configuration: &Configuration) -> Result<Self> {
        if let Some(error) = python_see::no_run_file(configuration) {
            return Err(error);
        }
        // The version comes first: the keys of another one are not known here.
        if let Some(version) = configuration.get("version") {
            check_version(&version.deserialize()?)?;
        }
        let top: TopLevel = configuration.deserialize()?;
        check_version(&top.version)?;
        object(&top.context)?;
        // `null` is refused: a section that somebody emptied should not look like one that works.
        let hooks = match configuration.get("hooks") {
            Some(hooks) if hooks.is_null() => return Err(no_hooks(hooks)),
            _ => top.hooks.as_ref().map(HooksSection::read).transpose()?,
        };
        if let Some(protocol) = &top.protocol
            && !protocol.is_list()
        {
            let failure = Failure::expected("a list of steps", protocol.kind());
            return Err(failure.or_at(|| protocol.place()).0);
        }
        Ok(Self {
            context: top.context,
            hooks: hooks.unwrap_or_default(),
            protocol: top.protocol,
        })
    }
}

impl HooksSection {
    /// Reads a hooks section, also one that is wrapped in one more `"hooks": {…}`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) and the place: unknown keys, no
    /// list of hooks, or hooks that are no objects.
    pub fn read(section: &Configuration) -> Result<Self> {
        if !section.is_object() {
            return Err(no_hooks(section));
        }
        if let Some(inner) = section.get("hooks")
            && !inner.is_list()
        {
            // python-see's documents show the whole section inside a further `hooks`.
            let is_wrapper = inner.is_object() && section.entries().count() == 1;
            return match is_wrapper {
                true if inner.get("hooks").is_some_and(Configuration::is_object) => {
                    Err(no_list(&inner.get("hooks").cloned().unwrap_or_default()))
                }
                true => Self::read(inner),
                false => Err(no_list(inner)),
            };
        }
        let read: Section = section.deserialize()?;
        let shared = read.configuration.unwrap_or_default();
        object(&shared)?;
        Ok(Self {
            configuration: shared,
            hooks: read
                .hooks
                .iter()
                .map(HookSection::read)
                .collect::<Result<_>>()?,
        })
    }
}

impl HookSection {
    fn read(member: &Configuration) -> Result<Self> {
        if !member.is_object() {
            let expected = "an object with the key `name`";
            let failure = Failure::expected(expected, member.kind());
            let advice = member
                .as_str()
                .map(|name| format!("write {}", serde_json::json!({ "name": name })));
            return Err(failure.advise(advice).or_at(|| member.place()).0);
        }
        let read: Member = member.deserialize()?;
        let configuration = read
            .configuration
            .unwrap_or_else(|| member.empty_child("configuration"));
        object(&configuration)?;
        Ok(Self {
            name: read.name,
            configuration,
            required: read.required.unwrap_or(true),
        })
    }
}

fn check_version(version: &Located<u64>) -> Result<()> {
    if **version == VERSION {
        return Ok(());
    }
    let message = format!("expected the version {VERSION}, found {version}");
    Err(Error::configuration(version.place().clone(), message))
}

fn object(node: &Configuration) -> Result<()> {
    if node.is_object() {
        return Ok(());
    }
    let failure = Failure::expected("an object", node.kind());
    Err(failure.or_at(|| node.place()).0)
}

/// The section is not an object.
fn no_hooks(section: &Configuration) -> Error {
    let failure = Failure::expected("an object with the key `hooks`", section.kind());
    let advice = if section.is_null() {
        String::from("leave the key out to run without hooks")
    } else {
        String::from(r#"write {"hooks": [{"name": …}]}"#)
    };
    failure.advise(Some(advice)).or_at(|| section.place()).0
}

/// The hooks within the section are not a list.
fn no_list(hooks: &Configuration) -> Error {
    Failure::expected("a list of hooks", hooks.kind())
        .advise(Some(r#"write [{"name": …}], or [] for none"#))
        .or_at(|| hooks.place())
        .0
}
