//! Waiting for what a run does on this host: its record, its files, its emulator.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Home;

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(2);

/// Waits until a condition holds.
///
/// # Panics
/// When it does not within `deadline`.
pub fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "waited {deadline:?} for {what}");
        std::thread::sleep(PERIOD);
    }
}

impl Home {
    /// The identifiers of the environments that have a record, sorted.
    pub fn recorded(&self) -> Vec<String> {
        let mut found: Vec<String> = std::fs::read_dir(self.path("state/ledger"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some(name.strip_suffix(".jsonl")?.to_owned())
            })
            .filter(|name| name.len() == 36)
            .collect();
        found.sort();
        found
    }

    /// The lines of an environment's record that are whole; none when it is gone.
    pub fn record(&self, identifier: &str) -> Vec<Value> {
        let path = self.path(&format!("state/ledger/{identifier}.jsonl"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("a record is lines of JSON"))
            .collect()
    }

    /// The files and folders that an environment's record names, whether they exist or not.
    pub fn recorded_paths(&self, identifier: &str) -> Vec<PathBuf> {
        let resource = |line: &Value| line.pointer("/intend/resource").cloned();
        let text = |resource: &Value, key: &str| {
            let text = resource.get(key).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        self.record(identifier)
            .iter()
            .filter_map(resource)
            .map(|resource| {
                PathBuf::from(text(&resource, "location")).join(text(&resource, "name"))
            })
            .filter(|path| path.is_absolute())
            .collect()
    }
}

/// The process of the emulator that runs an environment's machine.
pub fn emulator(identifier: &str) -> Option<u32> {
    let wanted = format!("\0-uuid\0{identifier}\0");
    std::fs::read_dir("/proc")
        .expect("/proc is there")
        .flatten()
        .find(|process| {
            // It may end while it is looked at.
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            line.windows(wanted.len())
                .any(|part| part == wanted.as_bytes())
        })
        .and_then(|process| process.file_name().to_str()?.parse().ok())
}
