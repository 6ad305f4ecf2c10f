//! Errors as plain data, for programs.

use serde::Serialize;

use crate::config::Origin;
use crate::{Error, ErrorKind, path_to_text};

/// One error as plain data: what a program needs that reads `result.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// What sort of failure it is.
    pub kind: ErrorKind,
    /// What was attempted, such as `allocate`.
    pub operation: Option<String>,
    /// What it failed on, such as a path or a domain.
    pub subject: Option<String>,
    /// The file in which it was asked for.
    pub file: Option<String>,
    /// The line there, from 1.
    pub line: Option<u32>,
    /// The column there in characters, from 1.
    pub column: Option<u32>,
    /// The key there, such as `context.disk.image`.
    pub key: Option<String>,
    /// What happened.
    pub message: String,
    /// What lies beneath it, the nearest first.
    pub causes: Vec<String>,
    /// What would have worked.
    pub advice: Option<String>,
}

impl ErrorReport {
    /// An error, and each that was found beside it.
    pub fn of(error: &Error) -> Vec<Self> {
        let beside = error.further().iter().flat_map(Self::of);
        std::iter::once(Self::of_one(error)).chain(beside).collect()
    }

    fn of_one(error: &Error) -> Self {
        let place = error.place();
        let (file, line, column) = match place.map(|place| &place.origin) {
            Some(Origin::File { path, line, column }) => {
                (Some(path_to_text(path)), Some(*line), Some(*column))
            }
            _ => (None, None, None),
        };
        let key = place.map(|place| place.key.clone());
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            causes.push(source.to_string());
            cause = source.source();
        }
        Self {
            kind: error.kind(),
            operation: error.operation().map(str::to_owned),
            subject: error.subject_text().map(str::to_owned),
            file,
            line,
            column,
            key: key.filter(|key| !key.is_empty()),
            message: error.message().to_owned(),
            causes,
            advice: error.advice_text().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Configuration;

    #[test]
    fn an_error_is_told_with_its_place_in_parts_and_with_those_beside_it() {
        let text = "{\n  \"versoin\": 1 }";
        let configuration = Configuration::from_str("run.json", text).unwrap();
        let error = configuration.check_keys(&["version"]).unwrap_err();
        let cause = std::io::Error::other("no room");
        let other = Error::new(ErrorKind::Io, "it cannot be written").caused_by(cause);
        let reports = ErrorReport::of(&Error::all([error, other]).unwrap());
        let json = serde_json::to_value(reports).unwrap();
        assert_eq!(
            json,
            serde_json::json!([
                { "kind": "configuration", "operation": null, "subject": null,
                  "file": "run.json", "line": 2, "column": 3, "key": "versoin",
                  "message": "unknown key `versoin`, expected `version`", "causes": [],
                  "advice": "did you mean `version`?" },
                { "kind": "io", "operation": null, "subject": null, "file": null, "line": null,
                  "column": null, "key": null, "message": "it cannot be written",
                  "causes": ["no room"], "advice": null },
            ])
        );
    }
}
