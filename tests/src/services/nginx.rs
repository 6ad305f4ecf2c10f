//! nginx: files over http and https, and the ways in which web servers are awkward.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use super::authority::Authority;
use super::server::Server;
use super::{Signal, folder, ports};

/// How long nginx may take to write a request into its log after the client had the answer.
const LOGGED: Duration = Duration::from_secs(10);

/// A web server of a test's own.
///
/// Every file that [`Nginx::put`] stores is there under these paths, too:
/// `/slow/` (8 MB/s, after the first 8 MB of each answer), `/bare/` (the same with neither ETag nor Last-Modified),
/// `/dated/` (the same with Last-Modified alone),
/// `/closable/` (`/slow/`, but 503 with `Retry-After: 2` while there is a file `closed`), `/whole/` (no ranges), `/headless/` (405 to HEAD), `/private/` (user `reader`, password `reader-secret`), `/plain/` (neither
/// ETag nor Last-Modified), `/busy/` (503 with `Retry-After: 1`), `/moved/` (302 to the file on this host),
/// `/away/` (302 to the file under the name `localhost`, which is another host to a client), `/round/` (302 to
/// itself).
#[derive(Debug)]
pub struct Nginx {
    server: Server,
    secure: u16,
    mutual: u16,
    authority: Authority,
    // The server ends before its folder goes.
    folder: TempDir,
}

/// A request as nginx logged it when it was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The path and the query.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// The bytes of the body that were sent.
    pub sent: u64,
    /// The header `Range`, where it was given.
    pub range: Option<String>,
    /// The header `Authorization`, where it was given.
    pub authorization: Option<String>,
    /// The header `Host`.
    pub host: String,
    /// When the answer was over, since the beginning of 1970; in milliseconds.
    pub at: Duration,
}

impl Nginx {
    /// The user of `/private/`, and the password.
    pub const READER: (&'static str, &'static str) = ("reader", "reader-secret");

    /// Starts one on ports of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start() -> Self {
        let own = tempfile::Builder::new()
            .prefix("nginx-")
            .tempdir_in(folder())
            .expect("the target folder is writable");
        for name in ["files", "temporary"] {
            std::fs::create_dir(own.path().join(name)).expect("the folder is writable");
        }
        let authority = Authority::in_folder(&own.path().join("authority"));
        let [port, secure, mutual] = distinct();
        let text = configuration([port, secure, mutual]);
        std::fs::write(own.path().join("nginx.conf"), text).expect("the folder is writable");
        let (user, password) = Self::READER;
        std::fs::write(
            own.path().join("readers"),
            format!("{user}:{{PLAIN}}{password}\n"),
        )
        .expect("the folder is writable");
        let prefix = own.path().to_str().expect("the target folder is UTF-8");
        let server = Server::new(
            "nginx",
            own.path(),
            port,
            &[program(), "-p", prefix, "-e", "stderr", "-c", "nginx.conf"],
        );
        let nginx = Self {
            server,
            secure,
            mutual,
            authority,
            folder: own,
        };
        nginx.again();
        nginx
    }

    /// Stops it: connections break, new ones are refused.
    pub fn stop(&self, signal: Signal) {
        self.server.stop(signal);
    }

    /// Starts it again after [`Nginx::stop`], on the same ports.
    pub fn again(&self) {
        self.server.begin();
        self.server.await_port();
    }

    /// The port of http.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Where a path is, over http.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.server.port())
    }

    /// Where a path is, over https.
    pub fn secure_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/{path}", self.secure)
    }

    /// Where a path is, over https that asks for a client's certificate.
    pub fn mutual_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/{path}", self.mutual)
    }

    /// Who signed its certificate, and a client's.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The folder of the files that it serves.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Stores a file, or puts another one in the place of one that is there, at one stroke. Where the old one is
    /// being sent, it goes on being sent.
    pub fn put(&self, name: &str, content: &[u8]) {
        self.put_dated(name, content, SystemTime::now());
    }

    /// The same for a file that was changed last at this time.
    pub fn put_dated(&self, name: &str, content: &[u8], changed: SystemTime) {
        let aside = self.folder.path().join("temporary").join("put");
        std::fs::write(&aside, content).expect("the folder is writable");
        let file = std::fs::File::options().write(true).open(&aside);
        let dated = file.and_then(|file| file.set_modified(changed));
        dated.expect("the folder is writable");
        std::fs::rename(aside, self.files().join(name)).expect("the folder is writable");
    }

    /// The requests that are over, in the order of their ends.
    pub fn log(&self) -> Vec<Request> {
        let text =
            std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(parsed).collect()
    }

    /// The same, once there are so many of them.
    ///
    /// # Panics
    /// When there are not within ten seconds.
    pub fn logged(&self, count: usize) -> Vec<Request> {
        crate::until("requests in nginx's log", LOGGED, || {
            self.log().len() >= count
        });
        self.log()
    }
}

/// The program, also for one whose `PATH` lacks the administrator's folders.
pub(super) fn program() -> &'static str {
    ["/usr/sbin/nginx", "/usr/bin/nginx"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("nginx")
}

fn distinct() -> [u16; 3] {
    loop {
        let found = [ports::free(), ports::free(), ports::free()];
        if found[0] != found[1] && found[1] != found[2] && found[0] != found[2] {
            return found;
        }
    }
}

fn parsed(line: &str) -> Request {
    let line: Value = serde_json::from_str(line).expect("the log is lines of JSON");
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let given = |key: &str| Some(text(key)).filter(|value| !value.is_empty());
    let number = |key: &str| text(key).parse::<u64>().expect("nginx writes numbers");
    Request {
        path: text("path"),
        status: u16::try_from(number("status")).expect("a status has three digits"),
        sent: number("sent"),
        range: given("range"),
        authorization: given("authorization"),
        host: text("host"),
        at: Duration::from_secs_f64(text("at").parse().expect("nginx writes seconds")),
    }
}

/// One process, not a master and its workers: nothing is left to serve when it is killed. Paths start at the
/// folder that it is told.
fn configuration([port, secure, mutual]: [u16; 3]) -> String {
    // As root it would become `nobody`, who may not pass the target folder.
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let log = r#"{"path":"$request_uri","status":"$status","sent":"$body_bytes_sent",
            "range":"$http_range","authorization":"$http_authorization","host":"$http_host",
            "at":"$msec"}"#
        .replace(['\n', ' '], "");
    let locations = format!(
        "root files; etag on;
    location /slow/ {{ alias files/; limit_rate 8m; }}
    location /bare/ {{ alias files/; limit_rate 8m; etag off; add_header Last-Modified \"\"; }}
    location /dated/ {{ alias files/; limit_rate 8m; etag off; }}
    location /closable/ {{
      alias files/; limit_rate 8m; add_header Retry-After 2 always;
      if (-f files/closed) {{ return 503; }}
    }}
    location /whole/ {{ alias files/; max_ranges 0; }}
    location /private/ {{ alias files/; auth_basic images; auth_basic_user_file readers; }}
    location /headless/ {{ alias files/; if ($request_method = HEAD) {{ return 405; }} }}
    location /plain/ {{ alias files/; etag off; add_header Last-Modified \"\"; }}
    location /busy/ {{ add_header Retry-After 1 always; return 503; }}
    location ~ ^/moved/(.*)$ {{ return 302 /$1; }}
    location ~ ^/away/(.*)$ {{ return 302 http://localhost:{port}/$1; }}
    location /round/ {{ return 302 $request_uri; }}"
    );
    format!(
        "{user}
daemon off; master_process off; pid temporary/pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
  log_format line escape=json '{log}';
  access_log access.log line;
  default_type application/octet-stream; sendfile on; tcp_nopush on;
  types {{ text/html html; text/plain txt; }}
  client_body_temp_path temporary/body; proxy_temp_path temporary/proxy;
  fastcgi_temp_path temporary/fastcgi; uwsgi_temp_path temporary/uwsgi; scgi_temp_path temporary/scgi;
  ssl_certificate authority/server.crt; ssl_certificate_key authority/server.key;
  server {{
    listen 127.0.0.1:{port}; listen 127.0.0.1:{secure} ssl;
    {locations}
  }}
  server {{
    listen 127.0.0.1:{mutual} ssl; ssl_client_certificate authority/authority.pem; ssl_verify_client on;
    {locations}
  }}
}}
"
    )
}
