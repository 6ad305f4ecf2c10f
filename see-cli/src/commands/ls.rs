//! `seectl ls`: the environments of this user on this host.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::SystemTime;

use see_core::ledger::{Ledger, Listed, RecordState};
use see_core::{Error, ErrorKind, Identifier, Result};
use serde_json::json;

use crate::args::{LsArguments, Output};
use crate::exit_code;
use crate::render::{age, escape_line};

/// Lists them, and returns the exit code.
///
/// # Errors
/// Where the ledger cannot be read, or nobody reads the list.
pub(crate) async fn ls(arguments: &LsArguments) -> Result<u8> {
    let ledger = Ledger::open(Ledger::default_root()?).await?;
    let mut listed = ledger.list().await?;
    if let Some(beginning) = &arguments.identifier {
        let only = find(&listed, beginning)?;
        listed.retain(|listed| listed.identifier == only);
    }
    let text = match arguments.output {
        Output::Text if listed.is_empty() => String::from("no environments\n"),
        Output::Text => listed.iter().map(in_words).collect(),
        Output::Json => listed.iter().map(as_json).collect(),
    };
    print(&text)?;
    Ok(exit_code::OK)
}

/// The environment whose identifier begins like this.
///
/// # Errors
/// [`ErrorKind::NotFound`] where there is none, [`ErrorKind::Configuration`] where there are several.
pub(super) fn find(listed: &[Listed], beginning: &str) -> Result<Identifier> {
    let mut found = listed
        .iter()
        .map(|listed| listed.identifier)
        .filter(|identifier| identifier.to_string().starts_with(beginning));
    let wrong = |kind, message| {
        let error = Error::new(kind, message).subject(beginning);
        Err(error.advice("`seectl ls` lists what there is"))
    };
    match (found.next(), found.next()) {
        (Some(identifier), None) => Ok(identifier),
        (Some(_), Some(_)) => wrong(
            ErrorKind::Configuration,
            "several environments begin like this",
        ),
        (None, _) => wrong(ErrorKind::NotFound, "there is no such environment"),
    }
}

/// Writes to stdout.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        // Somebody like `head` read as much as it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Error::io("stdout cannot be written", error)),
    }
}

fn in_words(listed: &Listed) -> String {
    let state = match &listed.state {
        RecordState::Alive => String::from("alive"),
        RecordState::Kept(until) => {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            format!("kept for {}", age(left))
        }
        RecordState::Orphaned => String::from("orphaned"),
        RecordState::Broken(error) => format!("broken: {}", escape_line(&error.chain())),
        _ => String::from("unknown"),
    };
    let since = listed
        .started
        .and_then(|started| SystemTime::now().duration_since(started).ok());
    let owner = match (listed.pid, since) {
        (Some(pid), Some(since)) => {
            format!("uid {}, pid {pid} started {} ago", listed.uid, age(since))
        }
        (Some(pid), None) => format!("uid {}, pid {pid}", listed.uid),
        (None, _) => format!("uid {}", listed.uid),
    };
    let age = age(listed.age);
    let mut text = format!("{}  {state}, {age} old, {owner}\n", listed.identifier);
    let mut line = |indented: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    {}", escape_line(indented));
    };
    if !listed.note.is_empty() {
        line(&listed.note);
    }
    for resource in &listed.holdings {
        match resource.path() {
            Some(path) => line(&format!("{} {}", resource.kind, path.display())),
            None if resource.location.is_empty() => {
                line(&format!("{} {}", resource.kind, resource.name));
            }
            None => line(&format!(
                "{} {} at {}",
                resource.kind, resource.name, resource.location
            )),
        }
    }
    text
}

fn as_json(listed: &Listed) -> String {
    let unix = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    };
    let (state, until, error) = match &listed.state {
        RecordState::Alive => ("alive", None, None),
        RecordState::Kept(until) => ("kept", Some(unix(*until)), None),
        RecordState::Orphaned => ("orphaned", None, None),
        RecordState::Broken(error) => ("broken", None, Some(error.chain())),
        _ => ("unknown", None, None),
    };
    let object = json!({
        "identifier": listed.identifier,
        "state": state,
        "kept_until": until,
        "error": error,
        "age": listed.age.as_secs_f64(),
        "uid": listed.uid,
        "pid": listed.pid,
        "started": listed.started.map(unix),
        "note": listed.note,
        "holdings": listed.holdings,
    });
    format!("{object}\n")
}
