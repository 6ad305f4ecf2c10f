//! OpenStack's Keystone and Glance, as a cloud has them: projects, users with roles, a catalog.

mod seed;
mod settings;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use self::settings::Settings;
use super::authority::Authority;
use super::curl::{Answer, Curl};
use super::server::{Server, alone_in};
use super::{Signal, folder, front, ports};

/// How long tokens live, in seconds, unless a test wants it otherwise.
const TOKEN_SECONDS: u32 = 3600;

/// Somebody whom Keystone knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// The name, in the domain `Default`.
    pub name: &'static str,
    /// The password.
    pub password: &'static str,
    /// The project, in the domain `Default`.
    pub project: &'static str,
}

/// Keystone and Glance.
///
/// The catalog has the image service in the region [`Glance::REGION`] twice: its `public` address is http, its
/// `internal` one https.
#[derive(Debug)]
pub struct Glance {
    identity: Server,
    images: Server,
    /// TLS in front of both.
    front: Server,
    settings: Settings,
    authority: Authority,
    /// Held by who changes something: SQLite takes one writer, and Glance answers 500 to another one at times.
    writing: Mutex<()>,
    // The next test program waits for the folder.
    _lock: File,
}

impl Glance {
    /// An ordinary user, member of the project in which images are made.
    pub const USER: Person = Person {
        name: "tester",
        password: "tester-secret-of-keystone",
        project: "images",
    };
    /// Who may do everything.
    pub const ADMINISTRATOR: Person = Person {
        name: "admin",
        password: "admin-secret-of-keystone",
        project: "admin",
    };
    /// The only region.
    pub const REGION: &'static str = "RegionOne";

    pub(super) fn start() -> Self {
        let own = folder().join("glance");
        std::fs::create_dir_all(&own).expect("the target folder is writable");
        let lock = alone_in(&own);
        let authority = Authority::in_folder(&own.join("authority"));
        let port = |name: &str| ports::remembered(&own.join(format!("{name}.port")));
        let settings = Settings {
            identity: port("identity"),
            images: port("images"),
            secure_identity: port("secure-identity"),
            secure_images: port("secure-images"),
            folder: own.clone(),
        };
        settings.write(TOKEN_SECONDS);
        let fresh = settings.prepare();
        let python = |name, port, words: &[&str]| {
            let words = [&["/usr/bin/python3", "-m"], words].concat();
            Server::new(name, &own.join(name), port, &words)
        };
        let identity = python("identity", settings.identity, &["gunicorn"])
            .with("OS_KEYSTONE_CONFIG_DIR", path(&own.join("identity")));
        // Its own server: under gunicorn's threads its greenlets wait for one another's locks for ever.
        let configuration = path(&own.join("images/glance-api.conf"));
        let words = ["glance.cmd.api", "--config-file", &configuration];
        let images = python("images", settings.images, &words);
        let behind = [
            (settings.secure_identity, settings.identity),
            (settings.secure_images, settings.images),
        ];
        let front = front::before(&own, &authority, &behind);
        let glance = Self {
            identity,
            images,
            front,
            settings,
            authority,
            writing: Mutex::new(()),
            _lock: lock,
        };
        for server in [&glance.identity, &glance.images, &glance.front] {
            server.begin();
        }
        glance.await_identity();
        if fresh {
            seed::all(&glance);
            glance.settings.keep();
        }
        glance.await_images();
        glance.front.await_port();
        glance
    }

    /// Stops Glance, not Keystone: connections break, new ones are refused.
    pub fn stop(&self, signal: Signal) {
        self.images.stop(signal);
    }

    /// Starts Glance again after [`Glance::stop`], on the same port.
    pub fn again(&self) {
        self.images.begin();
        self.await_images();
    }

    /// Breaks the connections over https, and refuses new ones; those over http go on.
    pub fn close_https(&self) {
        self.front.stop(Signal::KILL);
    }

    /// Takes connections over https again after [`Glance::close_https`], on the same ports.
    pub fn open_https(&self) {
        self.front.begin();
        self.front.await_port();
    }

    /// Starts Keystone again with tokens that live so long from then on, in seconds; 0 means as usual. Who calls
    /// it has its turn alone, and sets it back.
    pub fn tokens_live(&self, seconds: u32) {
        let seconds = if seconds == 0 { TOKEN_SECONDS } else { seconds };
        self.identity.stop(Signal::KILL);
        self.settings.write(seconds);
        self.identity.begin();
        self.await_identity();
    }

    /// Where Keystone is: what `auth_url` says.
    pub fn identity_url(&self) -> String {
        format!("http://127.0.0.1:{}/v3", self.settings.identity)
    }

    /// The same over https.
    pub fn secure_identity_url(&self) -> String {
        format!("https://127.0.0.1:{}/v3", self.settings.secure_identity)
    }

    /// Where Glance is.
    pub fn image_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.settings.images)
    }

    /// The same over https.
    pub fn secure_image_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.settings.secure_images)
    }

    /// The ports of Keystone and of Glance.
    pub fn ports(&self) -> (u16, u16) {
        (self.settings.identity, self.settings.images)
    }

    /// Who signed the certificate of both.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A new token.
    pub fn token(&self, person: Person) -> String {
        let domain = json!({ "name": "Default" });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": {
                "name": person.name, "domain": domain, "password": person.password } } },
            "scope": { "project": { "name": person.project, "domain": domain } },
        } });
        let url = format!("{}/auth/tokens", self.identity_url());
        let answer = Curl::new("POST", &url).json(&body).send().ok();
        let token = answer.header("X-Subject-Token");
        token.expect("Keystone gives a token").to_owned()
    }

    /// Makes a token worthless.
    pub fn revoke(&self, token: &str) {
        let url = format!("{}/auth/tokens", self.identity_url());
        drop(
            Curl::new("DELETE", &url)
                .header("X-Auth-Token", &self.token(Self::ADMINISTRATOR))
                .header("X-Subject-Token", token)
                .send()
                .ok(),
        );
    }

    /// Makes all tokens of somebody worthless, and waits until new ones are good. Who calls it has its turn alone.
    pub fn revoke_all(&self, person: Person) {
        let token = self.token(person);
        let url = format!("{}/users/{}", self.identity_url(), self.user_of(&token));
        // Whoever is shut out and let in again has no token from before.
        for enabled in [false, true] {
            drop(
                Curl::new("PATCH", &url)
                    .header("X-Auth-Token", &self.token(Self::ADMINISTRATOR))
                    .json(&json!({ "user": { "enabled": enabled } }))
                    .send()
                    .ok(),
            );
        }
        assert!(!self.takes(&token), "a token outlives its revocation");
        // Keystone counts whole seconds: one of the same second is revoked, too.
        self.identity
            .await_that("new tokens are good", || self.takes(&self.token(person)));
    }

    /// The identifier of the user to whom a token was given.
    fn user_of(&self, token: &str) -> String {
        let whose = Curl::new("GET", &format!("{}/auth/tokens", self.identity_url()))
            .header("X-Auth-Token", token)
            .header("X-Subject-Token", token)
            .send()
            .ok()
            .json();
        text(&whose["token"]["user"]["id"])
    }

    /// An application credential of the ordinary user: its identifier and its secret.
    pub fn application_credential(&self, name: &str) -> (String, String) {
        let token = self.token(Self::USER);
        let user = self.user_of(&token);
        let url = format!(
            "{}/users/{user}/application_credentials",
            self.identity_url()
        );
        let made = Curl::new("POST", &url)
            .header("X-Auth-Token", &token)
            .json(&json!({ "application_credential": { "name": name } }))
            .send()
            .ok()
            .json();
        let credential = &made["application_credential"];
        (text(&credential["id"]), text(&credential["secret"]))
    }

    /// Makes an image without content, which stays `queued` until it has some; gives its identifier. `more` are
    /// further properties.
    pub fn create(&self, name: &str, more: &Value) -> String {
        let mut body = json!({ "name": name, "disk_format": "qcow2", "container_format": "bare" });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let url = format!("{}/v2/images", self.image_url());
        let request = Curl::new("POST", &url)
            .header("X-Auth-Token", &self.token(Self::USER))
            .json(&body);
        text(&self.change(request).ok().json()["id"])
    }

    /// Makes an image with this content; gives its identifier.
    pub fn upload(&self, name: &str, content: &[u8]) -> String {
        let id = self.create(name, &json!({}));
        self.fill(&id, |request| request.bytes(content));
        id
    }

    /// Makes an image of a file of this host; gives its identifier.
    pub fn upload_file(&self, name: &str, file: &Path) -> String {
        let id = self.create(name, &json!({}));
        self.fill(&id, |request| request.file(file));
        id
    }

    fn fill(&self, id: &str, with: impl FnOnce(Curl) -> Curl) {
        let url = format!("{}/v2/images/{id}/file", self.image_url());
        let request = Curl::new("PUT", &url)
            .header("X-Auth-Token", &self.token(Self::USER))
            .header("Content-Type", "application/octet-stream");
        drop(self.change(with(request)).ok());
    }

    /// Sends a request that changes something.
    fn change(&self, request: Curl) -> Answer {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        request.send()
    }

    /// What Glance says of an image.
    pub fn show(&self, id: &str) -> Value {
        let path = format!("/v2/images/{id}");
        self.call("GET", &path, None).ok().json()
    }

    /// Takes an image out of use, without deleting it.
    pub fn deactivate(&self, id: &str) {
        drop(
            self.call("POST", &format!("/v2/images/{id}/actions/deactivate"), None)
                .ok(),
        );
    }

    /// Takes it into use again.
    pub fn reactivate(&self, id: &str) {
        drop(
            self.call("POST", &format!("/v2/images/{id}/actions/reactivate"), None)
                .ok(),
        );
    }

    /// Changes a property of an image, which is no newer for it; gives what Glance then says of it.
    pub fn touch(&self, id: &str) -> Value {
        let change = json!([{ "op": "add", "path": "/touched", "value": "yes" }]);
        let request = Curl::new("PATCH", &format!("{}/v2/images/{id}", self.image_url()))
            .header("X-Auth-Token", &self.token(Self::USER))
            .header(
                "Content-Type",
                "application/openstack-images-v2.1-json-patch",
            )
            .bytes(change.to_string().as_bytes());
        self.change(request).ok().json()
    }

    /// Whether a token is good for Glance.
    pub fn takes(&self, token: &str) -> bool {
        let url = format!("{}/v2/images", self.image_url());
        let answer = Curl::new("GET", &url).header("X-Auth-Token", token).send();
        answer.status == 200
    }

    /// Deletes an image.
    pub fn delete(&self, id: &str) {
        drop(self.call("DELETE", &format!("/v2/images/{id}"), None).ok());
    }

    /// Any request to Glance, with the administrator's rights.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let url = format!("{}{path}", self.image_url());
        let mut request =
            Curl::new(method, &url).header("X-Auth-Token", &self.token(Self::ADMINISTRATOR));
        if let Some(body) = body {
            request = request.json(body);
        }
        match method {
            "GET" | "HEAD" => request.send(),
            _ => self.change(request),
        }
    }

    /// Turns the bits of one byte of an image's content around, on Glance's disk: it serves the wrong byte with
    /// the right hash.
    pub fn flip(&self, id: &str, byte: u64) {
        let file = self.content(id);
        let mut value = [0];
        file.read_exact_at(&mut value, byte)
            .expect("the image is longer");
        file.write_all_at(&[!value[0]], byte)
            .expect("Glance's folder is writable");
    }

    /// Cuts an image's content off, on Glance's disk: it promises the whole length and sends less.
    pub fn shorten(&self, id: &str, length: u64) {
        let file = self.content(id);
        file.set_len(length).expect("Glance's folder is writable");
    }

    fn content(&self, id: &str) -> File {
        let file = self.settings.folder.join("images/content").join(id);
        let opened = File::options().read(true).write(true).open(&file);
        opened.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// What Glance and Keystone have logged lately.
    pub fn log(&self) -> String {
        self.identity.log() + &self.images.log()
    }

    /// How many bytes of an image's content Glance sent, by its log: over all requests that came to their end.
    pub fn sent(&self, id: &str) -> u64 {
        let log = std::fs::read(self.images.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let request = format!("/v2/images/{id}/file HTTP/1.1\" 20");
        let answers = log.lines().filter_map(|line| line.split_once(&request));
        // The last digit of the status, the bytes, and the time that it took.
        let bytes = answers.filter_map(|(_, rest)| rest.split(' ').nth(1)?.parse::<u64>().ok());
        bytes.sum()
    }

    fn await_identity(&self) {
        self.identity.await_port();
        let url = self.identity_url();
        self.identity.await_that("it answers", || {
            let answer = Curl::new("GET", &url).try_send();
            answer.is_ok_and(|answer| answer.status == 200)
        });
    }

    fn await_images(&self) {
        self.images.await_port();
        let url = format!("{}/", self.image_url());
        self.images.await_that("it answers", || {
            let answer = Curl::new("GET", &url).try_send();
            // It lists its versions as choices.
            answer.is_ok_and(|answer| answer.status == 300)
        });
    }
}

fn path(path: &Path) -> String {
    path.to_str()
        .expect("the target folder is UTF-8")
        .to_owned()
}

fn text(value: &Value) -> String {
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}
