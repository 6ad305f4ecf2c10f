//! A Keystone and a Glance in a few lines, which say whatever a test wants them to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use see_core::config::Configuration;
use see_core::{Result, Stop};
use serde_json::{Value, json};

use crate::cache::{Object, Origin as _};
use crate::glance::clouds::Surroundings;
use crate::glance::{Glance, GlanceConfiguration, prepared};

/// A request that came in.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) line: String,
    pub(super) token: Option<String>,
    pub(super) body: Value,
}

/// What is answered: status, further head lines, body.
pub(super) type Reply = (u16, String, Value);

/// A server on loopback whose answers are a closure's; it ends with the test's process.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    pub(super) fn new(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
        };
        let (seen, answer) = (Arc::clone(&server.seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream, &seen, &*answer));
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn seen(&self) -> Vec<Received> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests began so.
    pub(super) fn count(&self, begin: &str) -> usize {
        let seen = self.seen();
        seen.iter()
            .filter(|one| one.line.starts_with(begin))
            .count()
    }
}

/// One request a connection: the client opens the next.
fn serve(
    stream: &TcpStream,
    seen: &Mutex<Vec<Received>>,
    answer: &dyn Fn(&Received) -> Reply,
) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (mut length, mut token) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else {
            break;
        };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "x-auth-token" => token = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let received = Received {
        line: line.trim().trim_end_matches(" HTTP/1.1").to_owned(),
        token,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    seen.lock().unwrap().push(received.clone());
    let (status, head, body) = answer(&received);
    let body = body.to_string();
    let length = body.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} x\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .ok()
}

/// A Keystone that takes `open sesame` and shows a Glance at that address; each login gets a token of its own.
pub(super) fn keystone(glance: String) -> Server {
    let tokens = std::sync::atomic::AtomicUsize::new(0);
    Server::new(move |request| {
        if request.line != "POST /v3/auth/tokens" {
            return (
                404,
                String::new(),
                json!({"error": {"message": "no such page"}}),
            );
        }
        let text = request.body.to_string();
        if !text.contains("open sesame") {
            let message = "The request you have made requires authentication.";
            return (401, String::new(), json!({"error": {"message": message}}));
        }
        let number = tokens.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        let head = format!("X-Subject-Token: token-{number}\r\n");
        (201, head, token(&glance))
    })
}

/// What Keystone says of a token.
pub(super) fn token(glance: &str) -> Value {
    json!({"token": {
        "project": {"name": "images"},
        "catalog": [{"type": "image", "endpoints": [
            {"interface": "public", "region_id": "Here", "url": glance},
        ]}],
    }})
}

/// An image as Glance describes it.
pub(super) fn image(number: u8, name: &str, status: &str, created: &str) -> Value {
    json!({
        "id": id(number), "name": name, "status": status, "size": 7,
        "checksum": "d41d8cd98f00b204e9800998ecf8427e",
        "os_hash_algo": "sha512", "os_hash_value": "ab".repeat(64),
        "created_at": created, "updated_at": created,
    })
}

pub(super) fn id(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02x}")
}

/// A Glance that has these images, sorted as it is asked to.
pub(super) fn glance(images: Vec<Value>) -> Server {
    Server::new(move |request| {
        if request.token.is_none() {
            return (401, String::new(), json!("who are you?"));
        }
        let one = images.iter().find(|image| {
            let path = format!("GET /v2/images/{}", image["id"].as_str().unwrap());
            request.line == path
        });
        if let Some(image) = one {
            return (200, String::new(), image.clone());
        }
        if !request.line.starts_with("GET /v2/images?") {
            return (404, String::new(), json!("no such image"));
        }
        let active = request.line.contains("status=active");
        let mut shown = images.clone();
        shown.retain(|image| !active || image["status"] == "active");
        if request.line.contains("sort=created_at%3Adesc") {
            shown.sort_by_key(|image| std::cmp::Reverse(image["created_at"].to_string()));
        }
        (200, String::new(), json!({"images": shown}))
    })
}

/// The provider as a configuration describes it, around which there is nothing.
pub(super) fn provider(configuration: Value, name: &str) -> Result<Glance> {
    around(configuration, name, nothing())
}

/// Surroundings without a login.
pub(super) fn nothing() -> Surroundings {
    Surroundings {
        variables: std::collections::BTreeMap::new(),
        folders: Vec::new(),
        home: None,
    }
}

/// The provider as a configuration and what is around describe it.
pub(super) fn around(
    configuration: Value,
    name: &str,
    surroundings: Surroundings,
) -> Result<Glance> {
    let section = json!({"name": name, "provider_configuration": configuration}).to_string();
    #[derive(serde::Deserialize)]
    struct Section {
        name: see_core::config::Located<String>,
        provider_configuration: GlanceConfiguration,
    }
    let section: Section = Configuration::from_str("run.json", &section)?.deserialize()?;
    prepared(section.provider_configuration, Some(section.name), || {
        surroundings
    })
}

/// A provider that logs in by the password that Keystone takes.
pub(super) fn usual(keystone: &Server, name: &str) -> Glance {
    provider(json!({"os_auth": by_password(keystone)}), name).unwrap()
}

/// The usual `os_auth`.
pub(super) fn by_password(keystone: &Server) -> Value {
    json!({
        "auth_url": keystone.url("/v3"), "username": "ali", "password": "open sesame",
        "project_name": "images",
    })
}

/// What the provider finds.
pub(super) async fn found(provider: &Glance) -> Result<Object> {
    let stop = Stop::new();
    provider.origin.resolve(&stop.token()).await
}
