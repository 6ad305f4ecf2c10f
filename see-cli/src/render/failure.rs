//! An error as a compiler would show it: where, what, the line itself, and what would be right.

use std::fmt::Write;

use see_core::config::Excerpt;
use see_core::{Error, ErrorKind};

use super::escape;

/// The error with all that is known of it; ends with a line break.
///
/// ```text
/// error: run.json:5:7: context.disk.imgae: unknown key `imgae`, expected `image` or `clone`
///   |
/// 5 |       "imgae": "guest.qcow2"
///   |       ^^^^^^^
///   = help: did you mean `image`?
/// ```
pub(crate) fn failure(error: &Error) -> String {
    let mut first = String::from("error: ");
    if let Some(place) = error.place() {
        push(&mut first, format_args!("{place}: "));
    }
    for part in [error.operation(), error.subject_text()]
        .into_iter()
        .flatten()
    {
        push(&mut first, format_args!("{part}: "));
    }
    first.push_str(error.message());
    let mut text = escape::line(&first);
    text.push('\n');
    let mut margin = String::new();
    if let Some(excerpt) = error.place().and_then(Excerpt::of) {
        let number = excerpt.line.to_string();
        margin = " ".repeat(number.len());
        let underline = " ".repeat(excerpt.before) + &"^".repeat(excerpt.length);
        let shown = escape_keeping_width(&excerpt.text);
        push(
            &mut text,
            format_args!("{margin} |\n{number} | {shown}\n{margin} | {underline}\n"),
        );
    }
    let mut told = first;
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let words = source.to_string();
        // A wrapper that already quotes its cause says nothing new.
        if !told.contains(&words) {
            let words = escape::line(&words);
            push(&mut text, format_args!("{margin} = cause: {words}\n"));
        }
        told.push_str(&words);
        cause = source.source();
    }
    if let Some(advice) = error.advice_text() {
        let advice = escape::line(advice);
        push(&mut text, format_args!("{margin} = help: {advice}\n"));
    }
    for further in error.further() {
        text.push_str(&failure(further));
    }
    let count = error.further().len() + 1;
    if count > 1 && error.kind() == ErrorKind::Configuration {
        push(
            &mut text,
            format_args!("{count} findings, nothing was made\n"),
        );
    }
    text
}

/// One character for one, so that the caret stays beneath the mistake.
fn escape_keeping_width(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            _ if character.is_control() || escape::is_invisible(character) => '\u{fffd}',
            _ => character,
        })
        .collect()
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use see_core::config::Configuration;

    use super::*;

    #[test]
    fn an_error_without_a_place_shows_subject_causes_and_advice() {
        let cause = std::io::Error::other("the disk\x1b[2J is tired");
        let error = Error::new(ErrorKind::Io, "it cannot be written")
            .during("allocate")
            .subject("/tmp/x\ny")
            .caused_by(cause)
            .advice("free some space");
        insta::assert_snapshot!(failure(&error), @r"
        error: allocate: /tmp/x\ny: it cannot be written
         = cause: the disk\x1b[2J is tired
         = help: free some space
        ");
    }

    #[test]
    fn each_of_several_errors_is_shown() {
        let errors =
            ["one", "two"].map(|what| Error::new(ErrorKind::Configuration, what).advice("mend it"));
        insta::assert_snapshot!(failure(&Error::all(errors).unwrap()), @r"
        error: one
         = help: mend it
        error: two
         = help: mend it
        2 findings, nothing was made
        ");
    }

    #[test]
    fn a_mistake_in_a_file_is_underlined() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let text = "{\n  \"ä\": 1, \"versoin\": 1\n}";
        std::fs::write(&path, text).unwrap();
        let configuration = Configuration::from_file(&path).unwrap();
        let error = configuration.check_keys(&["ä", "version"]).unwrap_err();
        let shown = failure(&error).replace(folder.path().to_str().unwrap(), "FOLDER");
        insta::assert_snapshot!(shown, @r#"
        error: FOLDER/run.json:2:11: versoin: unknown key `versoin`, expected `ä` or `version`
          |
        2 |   "ä": 1, "versoin": 1
          |           ^^^^^^^^^
          = help: did you mean `version`?
        "#);
    }
}
