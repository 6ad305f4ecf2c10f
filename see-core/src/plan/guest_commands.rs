//! `${sample}` in the commands of a run file: the sample in the guest, since the host's path says nothing there.

use crate::config::Configuration;
use crate::{Error, Result};
use serde_json::Value;

/// The reference to the sample, in run files.
const REFERENCE: &str = "${sample}";
/// What stands for the sample in a command for the guest.
const IN_GUEST: &str = "{sample}";

/// The run file with `{sample}` in place of `${sample}` in the commands of its `run_sample` events.
///
/// # Errors
/// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) at a `run_command` with `${sample}`: the guest has
/// no such file, and the host's path would be read by the guest's shell.
pub(super) fn settled(configuration: &Configuration) -> Result<Configuration> {
    let mut settled = configuration.clone();
    let Some(protocol) = configuration.get("protocol") else {
        return Ok(settled);
    };
    for (index, step) in protocol.items().iter().enumerate() {
        let event = step.get("event").and_then(Configuration::as_str);
        let command = step.get("attributes").and_then(|all| all.get("command"));
        let Some(command) = command else {
            continue;
        };
        let key = format!("protocol[{index}].attributes.command");
        let texts = std::iter::once((key.clone(), command)).chain(
            (command.items().iter().enumerate())
                .map(|(number, item)| (format!("{key}[{number}]"), item)),
        );
        for (key, node) in texts {
            let Some(text) = node.as_str().filter(|text| text.contains(REFERENCE)) else {
                continue;
            };
            match event {
                Some("run_sample") => {
                    settled.set(&key, &Value::from(in_guest(text)).to_string())?;
                }
                Some("run_command") if in_guest(text) != text => {
                    let message = "`${sample}` is a file of the host, which a `run_command` does not bring into the guest";
                    return Err(Error::configuration(node.place(), message)
                        .advice("use the event `run_sample`, in whose command `{sample}` is the file in the guest"));
                }
                _ => {}
            }
        }
    }
    Ok(settled)
}

/// The text with each reference replaced that is not escaped as `$${sample}`.
fn in_guest(text: &str) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(REFERENCE) {
        let (before, after) = rest.split_at(at);
        done.push_str(before);
        done.push_str(if before.ends_with('$') {
            REFERENCE
        } else {
            IN_GUEST
        });
        rest = &after[REFERENCE.len()..];
    }
    done.push_str(rest);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(step: &str) -> Result<Configuration> {
        settled(&Configuration::from_str(
            "run.json",
            &format!(r#"{{ "protocol": [{step}] }}"#),
        )?)
    }

    #[test]
    fn a_command_for_a_sample_names_the_file_in_the_guest() {
        let cases = [
            (r#""sh ${sample} a""#, r#""sh {sample} a""#),
            (r#""${sample}""#, r#""{sample}""#),
            (
                r#""echo $${sample}; ${sample}""#,
                r#""echo $${sample}; {sample}""#,
            ),
            (r#"["sh", "${sample}"]"#, r#"["sh","{sample}"]"#),
        ];
        for (written, expected) in cases {
            let step = format!(
                r#"{{ "event": "run_sample", "attributes": {{ "sample": "${{sample}}", "command": {written} }} }}"#
            );
            let found = run(&step).unwrap();
            let found = found.get("protocol").unwrap().items()[0]
                .get("attributes")
                .unwrap()
                .clone();
            let command: Value = found.get("command").unwrap().deserialize().unwrap();
            assert_eq!(command.to_string(), expected);
            assert_eq!(found.get("sample").unwrap().as_str(), Some(REFERENCE));
        }
    }

    #[test]
    fn a_command_without_a_sample_cannot_name_one() {
        let error =
            run(r#"{ "event": "run_command", "attributes": { "command": "cat ${sample}" } }"#)
                .unwrap_err();
        assert!(error.to_string().contains("run_command"), "{error}");
        for step in [
            r#"{ "event": "run_command", "attributes": { "command": "echo $${sample}" } }"#,
            r#"{ "event": "other", "attributes": { "command": "cat ${sample}" } }"#,
        ] {
            run(step).unwrap();
        }
    }
}
