//! OpenStack Swift, one replica of everything, behind its S3 interface.

mod settings;

use std::path::{Path, PathBuf};

use super::authority::Authority;
use super::curl::{Answer, Curl};
use super::server::Server;
use super::{Signal, folder, front, ports};

/// The servers behind the proxy.
const KINDS: [&str; 3] = ["account", "container", "object"];

/// A Swift that speaks S3.
#[derive(Debug)]
pub struct Swift {
    proxy: Server,
    /// TLS in front of it.
    front: Server,
    authority: Authority,
    /// They run as long as this.
    _nodes: Vec<Server>,
    folder: PathBuf,
    // The next test program waits for the folder.
    _lock: std::fs::File,
}

impl Swift {
    /// The access key.
    pub const KEY: &'static str = "test:tester";
    /// The secret key.
    pub const SECRET: &'static str = "tester-secret-of-s3";
    /// The region.
    pub const REGION: &'static str = "us-east-1";
    /// The domain beneath which each bucket has a host's name, once somebody looks it up.
    pub const DOMAIN: &'static str = "buckets.test";

    pub(super) fn start() -> Self {
        let own = folder().join("swift");
        std::fs::create_dir_all(&own).expect("the target folder is writable");
        let lock = super::server::alone_in(&own);
        let port = |name: &str| ports::remembered(&own.join(format!("{name}.port")));
        let node_ports = KINDS.map(port);
        let proxy_port = port("proxy");
        let authority = Authority::in_folder(&own.join("authority"));
        let behind = [(port("secure-proxy"), proxy_port)];
        let front = front::before(&own, &authority, &behind);
        settings::write(&own, proxy_port, &node_ports);
        empty(&own);
        let nodes: Vec<Server> = KINDS
            .into_iter()
            .zip(node_ports)
            .map(|(kind, port)| server(kind, &own, port))
            .collect();
        let proxy = server("proxy", &own, proxy_port);
        for node in &nodes {
            node.begin();
        }
        proxy.begin();
        front.begin();
        for node in &nodes {
            node.await_port();
        }
        front.await_port();
        let swift = Self {
            proxy,
            front,
            authority,
            _nodes: nodes,
            folder: own,
            _lock: lock,
        };
        swift.await_answers();
        swift
    }

    /// Stops the server that clients talk to: connections break, new ones are refused.
    pub fn stop(&self, signal: Signal) {
        self.proxy.stop(signal);
    }

    /// Starts it again after [`Swift::stop`], on the same port.
    pub fn again(&self) {
        self.proxy.begin();
        self.await_answers();
    }

    fn await_answers(&self) {
        self.proxy.await_port();
        let url = format!("{}/healthcheck", self.endpoint());
        self.proxy.await_that("it is healthy", || {
            let answer = Curl::new("GET", &url).try_send();
            answer.is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Where its S3 is, without a bucket.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy.port())
    }

    /// The same over https.
    pub fn secure_endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.front.port())
    }

    /// Who signed its certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The port of its S3.
    pub fn port(&self) -> u16 {
        self.proxy.port()
    }

    /// What the proxy has logged: one line a request, with its path.
    pub fn log(&self) -> String {
        let file = self.proxy.log_file();
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }

    /// How many bytes of an object the proxy sent, by its log: over all requests that came to their end.
    pub fn sent(&self, bucket: &str, object: &str) -> u64 {
        let log = self.log();
        let request = format!(" GET /{bucket}/{object} HTTP/1.0 20");
        let answers = log.lines().filter_map(|line| line.split_once(&request));
        // The last digit of the status, referer, program, token, what came, and what was sent.
        let bytes = answers.filter_map(|(_, rest)| rest.split(' ').nth(5)?.parse::<u64>().ok());
        bytes.sum()
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) {
        drop(self.call("PUT", name, &[]).ok());
    }

    /// From now on the bucket keeps every version.
    pub fn keep_versions(&self, bucket: &str) {
        let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <Status>Enabled</Status></VersioningConfiguration>";
        drop(
            self.request("PUT", &format!("{bucket}?versioning="))
                .bytes(body.as_bytes())
                .send()
                .ok(),
        );
    }

    /// Stores an object; gives its version where the bucket keeps them.
    pub fn put(&self, bucket: &str, key: &str, content: &[u8]) -> Option<String> {
        let answer = self
            .request("PUT", &format!("{bucket}/{key}"))
            .bytes(content)
            .send()
            .ok();
        answer.header("x-amz-version-id").map(str::to_owned)
    }

    /// Stores a file of this host as an object.
    pub fn put_file(&self, bucket: &str, key: &str, file: &Path) {
        let request = self.request("PUT", &format!("{bucket}/{key}"));
        drop(request.file(file).send().ok());
    }

    /// Stores an object in parts, each but the last of 5 MiB at least, so that its ETag is no MD5 of the whole;
    /// gives the ETag.
    pub fn put_parts(&self, bucket: &str, key: &str, parts: &[&[u8]]) -> String {
        let object = format!("{bucket}/{key}");
        let begun = self.call("POST", &format!("{object}?uploads="), &[]).ok();
        let upload = between(&begun.text(), "<UploadId>", "</UploadId>");
        let mut list = String::from("<CompleteMultipartUpload>");
        for (number, part) in (1..).zip(parts) {
            let path = format!("{object}?partNumber={number}&uploadId={upload}");
            let stored = self.request("PUT", &path).bytes(part).send().ok();
            let etag = stored.header("ETag").expect("each part has one");
            list += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        list += "</CompleteMultipartUpload>";
        let path = format!("{object}?uploadId={upload}");
        let whole = self
            .request("POST", &path)
            .bytes(list.as_bytes())
            .send()
            .ok();
        let text = whole.text().replace("&quot;", "\"");
        between(&text, "<ETag>", "</ETag>")
            .trim_matches('"')
            .to_owned()
    }

    /// Deletes an object; with versions it is hidden behind a marker.
    pub fn delete(&self, bucket: &str, key: &str) {
        drop(self.call("DELETE", &format!("{bucket}/{key}"), &[]).ok());
    }

    /// Any signed request: the path with bucket, key and query. The query's words are sorted, and each has a `=`.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send()
    }

    fn request(&self, method: &str, path: &str) -> Curl {
        // In the URL, as curl's option `user` ends the key at its colon.
        let key = Self::KEY.replace(':', "%3A");
        let (secret, port) = (Self::SECRET, self.port());
        let url = format!("http://{key}:{secret}@127.0.0.1:{port}/{path}");
        let mut request = Curl::new(method, &url)
            // Bodies are not hashed beforehand: it is loopback.
            .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
        request.option("aws-sigv4", &format!("aws:amz:{}:s3", Self::REGION));
        request
    }

    /// The folder in which it keeps everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn server(kind: &'static str, own: &Path, port: u16) -> Server {
    let program = format!("/usr/bin/swift-{kind}-server");
    let file = format!("{kind}.conf");
    Server::new(kind, own, port, &[&program, &file, "verbose"])
}

/// Forgets what an earlier program stored.
fn empty(own: &Path) {
    let nodes = own.join("nodes");
    match std::fs::remove_dir_all(&nodes) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => panic!("{} cannot be removed: {error}", nodes.display()),
    }
    std::fs::create_dir_all(nodes.join("disk")).expect("the target folder is writable");
}

fn between(text: &str, begin: &str, end: &str) -> String {
    let found = text
        .split_once(begin)
        .and_then(|(_, rest)| rest.split_once(end));
    let (found, _) = found.unwrap_or_else(|| panic!("no {begin} in {text}"));
    found.to_owned()
}
