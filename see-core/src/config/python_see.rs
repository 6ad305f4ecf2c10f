//! Files that python-see's users have, and what is told of them where they are not a run file's.

use super::{Configuration, Origin, Place};
use crate::{Error, ErrorKind};

/// The keys of python-see's context files.
const CONTEXT: [&str; 4] = ["domain", "disk", "network", "hypervisor"];
/// The keys of a run file.
const RUN_FILE: [&str; 3] = ["version", "context", "protocol"];
/// How the names of python-see's reference hooks begin, and the one of its tutorial.
const HOOKS: [&str; 5] = [
    "plugins.disk.",
    "plugins.memory.",
    "plugins.network.",
    "plugins.vnc.",
    "vnc.",
];

/// Why a file is not a run file, where it is one of python-see's two files or the inside of a run file.
pub(super) fn no_run_file(configuration: &Configuration) -> Option<Error> {
    let has = |key: &&str| configuration.get(key).is_some();
    if has(&"context") {
        return None;
    }
    let is_context = CONTEXT.iter().any(has) && !has(&"hooks");
    let is_hooks = has(&"hooks") && !RUN_FILE.iter().any(has);
    let shell = |before: &str, file: &str, after: &str| {
        format!("{{ printf '{before}'; cat {file}; printf '{after}'; }} > run.json")
    };
    let file = file_name(configuration.origin());
    let context = r#"{"version": 1, "context": "#;
    let hooks = r#"\n, "hooks": "#;
    let (message, advice) = if is_context && has(&"version") {
        let key = CONTEXT.into_iter().find(|key| has(key)).unwrap_or_default();
        (
            format!("`{key}` describes the machine, and belongs into the key `context`"),
            String::from(r#"write {"version": 1, "context": {…}, "hooks": {…}}"#),
        )
    } else if is_context {
        let mut advice = format!(
            "write the run file with `{}`, and `seectl run run.json`",
            shell(context, &file, r"\n}\n")
        );
        if !has(&"hypervisor") {
            advice.push_str(
                r#"; python-see ran it on qemu:///system: add --set context.hypervisor=qemu:///system for that"#,
            );
        }
        (
            String::from(
                "this is a context, as python-see has it in a file of its own, and not a whole run file",
            ),
            advice,
        )
    } else if is_hooks {
        let both = format!("context.json; printf '{hooks}'; cat {file}");
        (
            String::from(
                "this is a list of hooks, as python-see has it in a file of its own, and not a whole run file",
            ),
            format!(
                "write the run file of both files with `{}`, and `seectl run run.json`",
                shell(context, &both, r"\n}\n")
            ),
        )
    } else {
        return None;
    };
    let place = Place {
        origin: configuration.origin().clone(),
        key: String::new(),
    };
    Some(Error::configuration(place, message).advice(advice))
}

/// The file as a word of a shell.
fn file_name(origin: &Origin) -> String {
    let Origin::File { path, .. } = origin else {
        return String::from("FILE");
    };
    let path = path.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    match path.chars().all(is_plain) && !path.starts_with('-') {
        true => path.into_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

/// What is told of a hook that is not known and has a name of python-see's kind; nothing of other names.
pub(crate) fn unknown_hook(name: &str) -> Option<Error> {
    if HOOKS.iter().any(|prefix| name.starts_with(prefix)) {
        let message = format!(
            "python-see's hook `{}` is not in this version",
            name.escape_debug()
        );
        let advice = r#"write "required": false beside its name to run without it, or take it out"#;
        return Some(Error::new(ErrorKind::Configuration, message).advice(advice));
    }
    None
}
