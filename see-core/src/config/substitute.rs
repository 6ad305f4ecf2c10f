//! The substitutions in strings: `${sample}`, `${command}`, `${runtime}` and `${env:NAME}`, and no others.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use super::Configuration;
use super::failure::shortened;
use super::nearest::{alternatives, nearest};
use super::tree::{Entry, Value};
use crate::{Error, Result};

const NAMES: [&str; 4] = ["sample", "command", "runtime", "env:NAME"];

type Lookup = Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// What the substitutions stand for in one run.
#[derive(Clone)]
pub struct Substitutions {
    sample: Option<String>,
    command: Option<String>,
    runtime: Json,
    environment: Lookup,
}

impl Default for Substitutions {
    /// No sample, no command, no runtime; the environment of this process.
    fn default() -> Self {
        Self {
            sample: None,
            command: None,
            runtime: Json::Null,
            environment: Arc::new(|name| std::env::var_os(name)),
        }
    }
}

impl fmt::Debug for Substitutions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substitutions")
            .field("sample", &self.sample)
            .field("command", &self.command)
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

impl Substitutions {
    /// What `${sample}` stands for.
    #[must_use]
    pub fn sample(mut self, sample: Option<impl Into<String>>) -> Self {
        self.sample = sample.map(Into::into);
        self
    }

    /// What `${command}` stands for.
    #[must_use]
    pub fn command(mut self, command: Option<impl Into<String>>) -> Self {
        self.command = command.map(Into::into);
        self
    }

    /// What `${runtime}` stands for: a number of seconds, a written duration, or null.
    #[must_use]
    pub fn runtime(mut self, runtime: impl Into<Json>) -> Self {
        self.runtime = runtime.into();
        self
    }

    /// Where `${env:NAME}` is looked up, instead of this process's environment.
    #[must_use]
    pub fn environment(
        mut self,
        lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static,
    ) -> Self {
        self.environment = Arc::new(lookup);
        self
    }

    /// What one name stands for; `None` for what this run has not.
    fn value(&self, name: &str, node: &Configuration) -> Result<Json> {
        let text = |text: &Option<String>| text.clone().map_or(Json::Null, Json::String);
        match name {
            "sample" => Ok(text(&self.sample)),
            "command" => Ok(text(&self.command)),
            "runtime" => Ok(self.runtime.clone()),
            _ => match name.strip_prefix("env:") {
                Some(variable) if !variable.is_empty() => self.variable(variable, node),
                _ => Err(unknown(name, node)),
            },
        }
    }

    fn variable(&self, name: &str, node: &Configuration) -> Result<Json> {
        let refused = |state: &str| {
            let message = format!("the environment variable `{}` {state}", shortened(name));
            Error::configuration(node.place(), message)
        };
        // The lookup of the standard library panics at these on some systems.
        if name.contains(['=', '\0']) {
            return Err(refused("cannot exist"));
        }
        match (self.environment)(name).map(OsString::into_string) {
            Some(Ok(value)) => Ok(Json::String(value)),
            Some(Err(_)) => Err(refused("is not UTF-8")),
            None => Err(refused("is not set")),
        }
    }
}

impl Configuration {
    /// This tree with the substitutions in its strings made; keys are left alone.
    ///
    /// A string that is one substitution becomes its value, whatever that is: a number, or null where the
    /// run has no such thing. `$${` stands for `${` itself, and what was put in is not looked at again.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) at the string with an unknown
    /// substitution, one that is not closed, a variable that is not set, or one without a value amid
    /// other text.
    pub fn substitute(&self, substitutions: &Substitutions) -> Result<Self> {
        let value = match self.value() {
            Value::String(text) if text.contains("${") => {
                let json = substituted(text, self, substitutions)?;
                return Ok(Self::of_json(json, self.origin(), self.key_path().clone()));
            }
            Value::List(items) => Value::List(
                items
                    .iter()
                    .map(|item| item.substitute(substitutions))
                    .collect::<Result<_>>()?,
            ),
            Value::Object(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| {
                        Ok(Entry {
                            value: entry.value.substitute(substitutions)?,
                            ..entry.clone()
                        })
                    })
                    .collect::<Result<_>>()?,
            ),
            _ => return Ok(self.clone()),
        };
        Ok(self.with_value(value))
    }
}

fn substituted(text: &str, node: &Configuration, values: &Substitutions) -> Result<Json> {
    let mut done = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        let before = &rest[..dollar];
        let inside = &rest[dollar + 2..];
        if let Some(before) = before.strip_suffix('$') {
            done.push_str(before);
            done.push_str("${");
            rest = inside;
            continue;
        }
        let Some((name, after)) = inside.split_once('}') else {
            let message = "expected `}` after `${`, found the end of the string";
            return Err(Error::configuration(node.place(), message)
                .advice("write `$${` for the characters themselves"));
        };
        let value = values.value(name, node)?;
        if dollar == 0 && done.is_empty() && after.is_empty() {
            return Ok(value);
        }
        done.push_str(before);
        match value {
            Json::String(value) => done.push_str(&value),
            Json::Null => {
                let message = format!("`${{{name}}}` has no value in this run");
                return Err(Error::configuration(node.place(), message)
                    .advice(format!("give a {name}, or take it out of the text")));
            }
            other => done.push_str(&other.to_string()),
        }
        rest = after;
    }
    done.push_str(rest);
    Ok(Json::String(done))
}

fn unknown(name: &str, node: &Configuration) -> Error {
    let message = format!(
        "unknown substitution `${{{}}}`, expected {}",
        shortened(name),
        alternatives(
            &NAMES
                .map(|name| format!("${{{name}}}"))
                .each_ref()
                .map(String::as_str)
        ),
    );
    let advice = nearest(name, NAMES)
        .map(|near| format!("did you mean `${{{near}}}`?"))
        .unwrap_or_else(|| String::from("write `$${` for the characters themselves"));
    Error::configuration(node.place(), message).advice(advice)
}
