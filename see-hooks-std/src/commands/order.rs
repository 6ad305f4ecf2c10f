//! What an event asks for.

use super::{CommandsConfiguration, shell};
use see_agent::protocol::{Program, SAMPLE_PLACEHOLDER};
use see_core::config::DurationValue;
use see_core::{Error, ErrorKind, Event, Result, Value, path_from_text};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// A command or a sample to run, or why the event asks for none.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// Which of the two it is.
    pub(super) kind: Kind,
    /// The file of the host, for a sample.
    pub(super) sample: Option<PathBuf>,
    pub(super) command: Command,
    pub(super) background: bool,
    pub(super) deadline: Duration,
    /// The user, the working folder and the variables; what is started stands in `command`.
    surroundings: Program,
    /// The sample's name in the guest, once it is known to be another one than its own.
    pub(super) renamed: OnceLock<String>,
    /// What is wrong with the event.
    pub(super) mistake: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sample,
    Command,
}

/// What to run in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// The sample itself.
    Sample,
    /// A text for the guest's shell.
    Shell(String),
    /// A program and its arguments.
    Arguments(Vec<String>),
}

impl Order {
    pub(super) fn read(event: &Event, configuration: &CommandsConfiguration) -> Self {
        let kind = match event.name() {
            "run_sample" => Kind::Sample,
            _ => Kind::Command,
        };
        let mut mistake = None;
        let mut wrong = |name: &str, wanted: &str| {
            mistake.get_or_insert_with(|| {
                format!(
                    "the attribute `{name}` of `{}` has to be {wanted}",
                    event.name()
                )
            });
        };
        let attribute = |name| event.get(name).filter(|value| !value.is_null());
        let sample = match (kind, attribute("sample")) {
            (Kind::Sample, Some(Value::Text(path))) if !path.as_str().is_empty() => {
                Some(path_from_text(path.as_str()))
            }
            // A command may be all there is to run.
            (Kind::Sample, None) if attribute("command").is_some() => None,
            (Kind::Sample, _) => {
                wrong("sample", "the path of a file");
                None
            }
            (Kind::Command, _) => None,
        };
        let command = match (kind, attribute("command")) {
            (Kind::Sample, None) => Some(Command::Sample),
            (Kind::Sample, Some(Value::Text(text)))
                if text.as_str().is_empty() && sample.is_some() =>
            {
                Some(Command::Sample)
            }
            (_, Some(Value::Text(text))) => Some(Command::Shell(text.as_str().to_owned())),
            (_, Some(Value::Json(json))) => arguments(json).map(Command::Arguments),
            _ => None,
        };
        let command = command.unwrap_or_else(|| {
            wrong("command", "a text, or a list of texts");
            Command::Arguments(Vec::new())
        });
        let background = match attribute("async_flag") {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::Integer(number)) => *number != 0,
            Some(_) => {
                wrong("async_flag", "true or false");
                false
            }
        };
        let deadline = match attribute("deadline") {
            None => Some(configuration.deadline()),
            Some(Value::Integer(seconds)) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            Some(Value::Float(seconds)) => Duration::try_from_secs_f64(*seconds).ok(),
            Some(Value::Text(text)) => DurationValue::parse(text.as_str()).map(Duration::from),
            Some(_) => None,
        };
        let longest = see_agent::protocol::MAX_DEADLINE;
        let deadline = deadline.filter(|time| !time.is_zero() && *time <= longest);
        let deadline = deadline.unwrap_or_else(|| {
            wrong("deadline", "a time of at most seven days, such as \"90s\"");
            configuration.deadline()
        });
        let mut text = |name| match attribute(name) {
            None => String::new(),
            Some(Value::Text(text)) => text.as_str().to_owned(),
            Some(_) => {
                wrong(name, "a text");
                String::new()
            }
        };
        let (user, folder) = (text("user"), text("folder").into_bytes());
        let environment = match attribute("environment") {
            None => Some(Vec::new()),
            Some(Value::Json(json)) => variables(json),
            Some(_) => None,
        };
        let environment = environment.unwrap_or_else(|| {
            wrong("environment", "a map of texts");
            Vec::new()
        });
        let surroundings = Program {
            environment,
            user,
            folder,
            ..Program::default()
        };
        Self {
            kind,
            sample,
            command,
            background,
            deadline,
            surroundings,
            renamed: OnceLock::new(),
            mistake,
        }
    }

    /// Whether a user, a working folder or variables are asked for.
    pub(super) fn has_surroundings(&self) -> bool {
        self.surroundings != Program::default()
    }

    /// The program, for a guest of this system.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where the sample would not be one word of the command.
    pub(super) fn program(&self, system: &str) -> Result<Program> {
        let shell = |text: &str| Program {
            shell: text.as_bytes().to_vec(),
            ..self.surroundings.clone()
        };
        let has_sample = self.sample.is_some();
        let arguments: Vec<String> = match &self.command {
            Command::Sample => vec![SAMPLE_PLACEHOLDER.to_owned()],
            Command::Shell(text) if !has_sample => return Ok(shell(text)),
            Command::Shell(text) if system == "windows" => {
                return Ok(shell(&shell::as_placeholder(text)));
            }
            Command::Shell(text) => {
                shell::posix(text).map_err(|why| Error::new(ErrorKind::Configuration, why))?
            }
            Command::Arguments(list) if has_sample => list
                .iter()
                .map(|text| shell::as_placeholder(text))
                .collect(),
            Command::Arguments(list) => list.clone(),
        };
        Ok(Program {
            arguments: arguments.into_iter().map(String::into_bytes).collect(),
            ..self.surroundings.clone()
        })
    }
}

impl Command {
    /// As one text, for people and for python-see's agent.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Sample => SAMPLE_PLACEHOLDER.to_owned(),
            Self::Shell(text) => text.clone(),
            Self::Arguments(list) => list.join(" "),
        }
    }
}

/// The variables of a map of texts.
fn variables(json: &serde_json::Value) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let map = json.as_object()?.iter();
    map.map(|(name, value)| Some((bytes(name), bytes(value.as_str()?))))
        .collect()
}

/// A list of texts that is not empty.
fn arguments(json: &serde_json::Value) -> Option<Vec<String>> {
    let list = json.as_array().filter(|list| !list.is_empty())?;
    list.iter()
        .map(|item| item.as_str().map(ToOwned::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: Event) -> Order {
        Order::read(&event, &CommandsConfiguration::default())
    }

    #[test]
    fn a_sample_without_a_command_is_run_itself() {
        let order = read(
            Event::new("run_sample")
                .with("sample", "/x")
                .with("command", Value::Null),
        );
        assert_eq!(
            (order.command.clone(), order.mistake.clone()),
            (Command::Sample, None)
        );
        assert_eq!(order.program("linux").unwrap().arguments, [b"{sample}"]);
        assert_eq!(order.deadline, Duration::from_secs(300));
    }

    #[test]
    fn a_command_needs_no_sample() {
        let order = read(
            Event::new("run_sample")
                .with("sample", Value::Null)
                .with("command", "id"),
        );
        assert_eq!((order.sample, order.mistake), (None, None));
        assert_eq!(order.command, Command::Shell("id".to_owned()));
    }

    #[test]
    fn a_text_goes_to_the_shell_of_the_guests_system() {
        let order = read(Event::new("run_command").with("command", "ls; id"));
        for system in ["linux", "windows"] {
            let program = order.program(system).unwrap();
            assert_eq!(
                (&program.shell[..], program.arguments.len()),
                (&b"ls; id"[..], 0)
            );
        }
    }

    #[test]
    fn a_list_goes_to_no_shell() {
        let list = serde_json::json!(["echo", "$HOME"]);
        let order = read(Event::new("run_command").with("command", list));
        assert_eq!(
            order.program("linux").unwrap().arguments,
            [&b"echo"[..], b"$HOME"]
        );
    }

    #[test]
    fn deadlines_are_numbers_or_texts() {
        let command = || Event::new("run_command").with("command", "x");
        for (value, seconds) in [
            (Value::from(90), 90.0),
            ("1m30s".into(), 90.0),
            (0.5.into(), 0.5),
        ] {
            let order = read(command().with("deadline", value));
            assert_eq!(
                (order.deadline.as_secs_f64(), order.mistake),
                (seconds, None)
            );
        }
        for bad in [
            Value::from(-1),
            0.into(),
            "soon".into(),
            true.into(),
            1e300.into(),
        ] {
            let order = read(command().with("deadline", bad.clone()));
            assert!(
                order
                    .mistake
                    .is_some_and(|text| text.contains("`deadline`")),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn events_that_lack_something_are_told_so() {
        let missing = |order: Order, name: &str| {
            let mistake = order.mistake.expect("a mistake");
            assert!(mistake.contains(name), "{mistake}");
        };
        missing(read(Event::new("run_sample")), "`sample`");
        missing(read(Event::new("run_command")), "`command`");
        let list = serde_json::json!(["echo", 1]);
        missing(
            read(Event::new("run_command").with("command", list)),
            "`command`",
        );
        let flagged = Event::new("run_command")
            .with("command", "x")
            .with("async_flag", "yes");
        missing(read(flagged), "`async_flag`");
        let run = Event::new("run_command").with("command", "x");
        missing(read(run.clone().with("user", 7)), "`user`");
        let variables = serde_json::json!({ "A": 1 });
        missing(read(run.with("environment", variables)), "`environment`");
    }
}
