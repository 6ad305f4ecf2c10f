//! A client that is not ours: images come onto the servers by curl.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::program;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header; the first where there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut same = self
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name));
        same.next().map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The same, where the status is one of success.
    ///
    /// # Panics
    /// Where it is not.
    #[must_use]
    pub fn ok(self) -> Self {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            self.text()
        );
        self
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Curl {
    /// The lines of curl's configuration. It reads them from its input: arguments are everybody's to read.
    configuration: String,
    body: Option<Body>,
}

#[derive(Debug)]
enum Body {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Curl {
    pub(super) fn new(method: &str, url: &str) -> Self {
        let mut request = Self {
            configuration: "silent\nshow-error\npath-as-is\nmax-time = 300\n".to_owned(),
            body: None,
        };
        request.option("request", method);
        request.option("url", url);
        if method == "HEAD" {
            request.configuration.push_str("head\n");
        }
        request
    }

    /// Sets an option of curl's, by its long name.
    pub(super) fn option(&mut self, name: &str, value: &str) {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(self.configuration, "{name} = \"{escaped}\"");
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.option("header", &format!("{name}: {value}"));
        self
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json")
            .bytes(body.to_string().as_bytes())
    }

    pub(super) fn bytes(mut self, body: &[u8]) -> Self {
        self.body = Some(Body::Bytes(body.to_owned()));
        self
    }

    pub(super) fn file(mut self, path: &Path) -> Self {
        self.body = Some(Body::File(path.to_owned()));
        self
    }

    /// Sends it.
    ///
    /// # Panics
    /// When there is no answer.
    pub(super) fn send(self) -> Answer {
        let url = self.configuration.clone();
        self.try_send()
            .unwrap_or_else(|error| panic!("no answer: {error}\n{url}"))
    }

    /// Sends it; what curl says where there is no answer.
    pub(super) fn try_send(mut self) -> Result<Answer, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let (head, body) = (path("head"), path("body"));
        self.option("dump-header", &head);
        self.option("output", &body);
        match self.body.take() {
            Some(Body::Bytes(bytes)) => {
                let sent = path("sent");
                std::fs::write(&sent, bytes).expect("a temporary folder is writable");
                self.upload(&sent);
            }
            Some(Body::File(file)) => self.upload(&file.to_string_lossy()),
            None => {}
        }
        let mut child = program("curl", folder.path())
            .args(["--config", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("curl is installed: `cargo xtask setup` does it");
        let mut input = child.stdin.take().expect("it is piped");
        input
            .write_all(self.configuration.as_bytes())
            .expect("curl reads its configuration");
        drop(input);
        let output = child.wait_with_output().expect("a child can be waited for");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let head = std::fs::read_to_string(&head).expect("curl wrote it");
        let mut answer = parsed(&head);
        // No file where there was no body.
        answer.body = std::fs::read(&body).unwrap_or_default();
        Ok(answer)
    }

    fn upload(&mut self, file: &str) {
        self.option("upload-file", file);
    }
}

/// The last head of those that curl wrote: others are interim answers.
fn parsed(head: &str) -> Answer {
    let last = head.trim_end().split("\r\n\r\n").last().unwrap_or_default();
    let mut lines = last.lines();
    let status = lines
        .next()
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("no status in {head:?}"));
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: Vec::new(),
    }
}
