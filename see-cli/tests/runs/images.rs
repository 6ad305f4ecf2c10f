//! `seectl image`, and runs whose image comes from a server.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use see_image_providers::testing::{Fault, FaultServer, Resource, noise};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::exit;
use crate::support::{Ended, Place, Running};

pub(crate) const SIZE: usize = 1 << 20;

/// A place, and a web server with an image.
pub(crate) struct Served {
    pub(crate) place: Place,
    runtime: Runtime,
    pub(crate) server: FaultServer,
}

impl Served {
    pub(crate) fn new(image: Resource) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(FaultServer::start());
        server.put("/guest.raw", image);
        Self {
            place: Place::new(),
            runtime,
            server,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url("/guest.raw")
    }

    /// A run file whose machine needs the image.
    pub(crate) fn run_file(&self, configuration: Value) {
        let image = json!({
            "provider": "http", "uri": self.url(), "provider_configuration": configuration,
        });
        self.place.run_file(json!({ "image": image }), exit(0));
    }

    pub(crate) fn seectl(&self, words: &str) -> Ended {
        self.place.output(words.split(' '))
    }

    fn listed(&self) -> Vec<Value> {
        self.seectl("image ls --output json").json()
    }
}

pub(crate) fn image() -> Resource {
    Resource::new(noise(SIZE)).entity_tag("one")
}

fn named<'a>(lines: &'a [Value], key: &str) -> Vec<&'a Value> {
    lines.iter().filter_map(|line| line.get(key)).collect()
}

pub(crate) fn pulled_used_and_removed() {
    let served = Served::new(image());
    let url = served.url();
    let ended = served.seectl(&format!(
        "image pull --provider http --uri {url} --output json"
    ));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.json();
    let result = lines.last().unwrap();
    let path = result["result"]["images"][0]["path"].as_str().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), noise(SIZE));
    let told = named(&lines, "pulled");
    assert_eq!(told[0]["image"], json!(url), "{told:?}");
    let last = lines
        .iter()
        .rfind(|line| line["event"] == "image_progress")
        .expect("it tells how far it is");
    assert_eq!(last["attributes"]["done"], SIZE, "{last}");

    let listed = served.listed();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["size"], SIZE);
    assert_eq!(listed[0]["leases"], 0);
    assert_eq!(listed[0]["origins"], json!([url]));
    let words = served.seectl("image ls").stdout;
    assert!(words.contains("1.0 MiB") && words.contains(&url), "{words}");

    // A run finds it there, also when the server is gone.
    served.run_file(json!({}));
    let sent = served.server.sent();
    let ended = served.seectl("run run.json --sample sample.sh");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(served.server.sent(), sent, "fetched once more");
    let Served {
        place,
        runtime,
        server,
    } = served;
    drop(server);
    let seectl = |words: &str| place.output(words.split(' '));
    let ended = seectl("run run.json --sample sample.sh --keep 1h");
    assert_eq!(ended.code, Some(0), "offline: {ended:?}");

    // The kept machine uses it: nobody takes it away.
    let listed = seectl("image ls --output json").json();
    assert_eq!(listed[0]["leases"], 1, "{listed:?}");
    let digest = listed[0]["digest"].as_str().unwrap();
    let refused = seectl(&format!("image rm {digest}"));
    assert_eq!(refused.code, Some(7), "{refused:?}");
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    let kept = seectl("image gc --max-size 1KiB");
    assert_eq!(kept.code, Some(7), "{kept:?}");
    assert!(Path::new(path).exists());
    let environments = seectl("ls --output json").json();
    let identifier = environments[0]["identifier"].as_str().unwrap();
    let ended = seectl(&format!("gc {identifier} --include-kept"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let short = &digest[..digest.find(':').unwrap() + 9];
    let removed = seectl(&format!("image rm {short}"));
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert!(!Path::new(path).exists());
    assert_eq!(seectl("image ls").stdout, "-    no images\n");
    drop(runtime);
}

pub(crate) fn verified() {
    let served = Served::new(image());
    served.run_file(json!({}));
    let ended = served.seectl("image pull run.json");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = served.seectl("image verify");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("as it was fetched"), "{ended:?}");
    let listed = served.listed();
    let path = listed[0]["path"].as_str().unwrap();
    let writable = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, writable).unwrap();
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 777).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 777).unwrap();
    let ended = served.seectl("image verify --output json");
    assert_eq!(ended.code, Some(7), "{ended:?}");
    let lines = ended.json();
    let verified = named(&lines, "verified");
    assert_eq!(verified[0]["is_good"], false, "{verified:?}");
    assert_eq!(lines.last().unwrap()["result"]["changed"], 1);
    let digest = listed[0]["digest"].as_str().unwrap();
    assert_eq!(served.seectl(&format!("image rm {digest}")).code, Some(0));
    // What was wrong is gone, so the next one fetches it whole.
    let ended = served.seectl("image pull run.json");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(served.seectl("image verify").code, Some(0));
}

pub(crate) fn slow() {
    let slow = Fault::Trickle(64 << 10, Duration::from_millis(30));
    let served = Served::new(image().always(slow));
    served.run_file(json!({}));
    let ended = served.seectl("run run.json --sample sample.sh --output json");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.json();
    let reports: Vec<&Value> = lines
        .iter()
        .filter(|line| line["event"] == "image_progress")
        .map(|line| &line["attributes"])
        .collect();
    assert!(reports.len() > 1, "{reports:?}");
    let done = |report: &&Value| report["done"].as_u64().unwrap();
    assert!(reports.is_sorted_by_key(done), "{reports:?}");
    assert_eq!(reports[0]["provider"], "http");
    assert_eq!(reports[0]["total"], SIZE);
    // In a pipe, people get lines.
    let digest = served.listed()[0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(served.seectl(&format!("image rm {digest}")).code, Some(0));
    let ended = served.seectl("image pull run.json");
    assert!(
        ended.stdout.contains("fetching the image (http): "),
        "{ended:?}"
    );
}

pub(crate) fn stopped() {
    let served = Served::new(image().always(Fault::Stall(300_000)));
    served.run_file(json!({}));
    let running = Running::start(served.place.seectl(["image", "pull", "run.json"]));
    running.wait_for("fetching the image");
    running.signal(rustix::process::Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(served.seectl("ls --output json").stdout, "");
    served.server.put("/guest.raw", image());
    let ended = served.seectl("image pull run.json");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(served.seectl("image verify").code, Some(0));
}

pub(crate) fn not_to_be_had() {
    let served = Served::new(image());
    let missing = served.server.url("/missing.raw");
    let ended = served.seectl(&format!("image pull --provider http --uri {missing}"));
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert!(ended.stderr.contains("= help: "), "{ended:?}");
    for (wrong, part) in [
        (
            "image pull --provider htpt --uri http://a/b",
            "did you mean `http`?",
        ),
        (
            "image pull --provider http --uri http://a/b --set chekcsum=x",
            "`checksum`",
        ),
        ("image pull none.json", "none.json"),
        ("image pull --provider http", "told no address"),
    ] {
        let ended = served.seectl(wrong);
        assert_eq!(ended.code, Some(2), "{wrong}: {ended:?}");
        assert!(ended.stderr.contains(part), "{wrong}: {ended:?}");
    }
    let ended = served.seectl("image verify");
    assert_eq!(
        ended.code,
        Some(0),
        "nothing is wrong with no images: {ended:?}"
    );
    let ended = served.seectl("image rm sha256:0000");
    assert_eq!(ended.code, Some(7), "{ended:?}");
}

/// What nobody may see: each provider's own.
const SECRETS: [&str; 5] = [
    "hunter2-of-http",
    "bearer-of-http",
    "hunter2-in-the-address",
    "secret-key-of-s3",
    "session-token-of-s3",
];

pub(crate) fn secrets() {
    let served = Served::new(image().always(Fault::Status(401, Vec::new(), "no".into())));
    let server = served.server.address();
    let store = json!({ "patience": "1s" });
    let s3 = |auth: Value| {
        json!({ "provider": "s3", "name": "guest.raw", "provider_configuration": {
            "bucket_name": "images", "auth": auth, "cache": store } })
    };
    let http = |uri: String, configuration: Value| json!({ "provider": "http", "uri": uri, "provider_configuration": configuration });
    let plain = served.url();
    let in_address = format!("http://user:{}@{server}/guest.raw", SECRETS[2]);
    let s3_auth = json!({
        "endpoint_url": format!("http://{server}"), "aws_access_key_id": "id",
        "aws_secret_access_key": SECRETS[3], "aws_session_token": SECRETS[4] });
    let sections = [
        http(
            plain.clone(),
            json!({ "auth": { "username": "u", "password": SECRETS[0] } }),
        ),
        http(plain.clone(), json!({ "auth": { "token": SECRETS[1] } })),
        http(in_address.clone(), json!({})),
        s3(s3_auth.clone()),
        // Each with a mistake, which is told with the line that it stands on.
        http(
            plain.clone(),
            json!({ "auth": { "pasword": 1, "password": SECRETS[0] } }),
        ),
        http(plain, json!({ "auth": { "token": [SECRETS[1]] } })),
        http(in_address, json!({ "chekcsum": 1 })),
        s3(json!({ "aws_secret_access_key": SECRETS[3], "aws_session_token": SECRETS[4], "x": 1 })),
    ];
    for section in sections {
        let run_file = served.place.run_file(json!({ "image": section }), exit(0));
        // In one line, as people write short ones.
        let run: Value = serde_json::from_slice(&std::fs::read(&run_file).unwrap()).unwrap();
        std::fs::write(&run_file, run.to_string()).unwrap();
        for words in [
            "run run.json --sample sample.sh -vvv",
            "image pull run.json -vvv --output json",
        ] {
            let mut command = served.place.seectl(words.split(' '));
            command.env("SEE_LOG", "trace");
            assert_untold(&mut command);
        }
    }
    // From the environment to the provider, past every process list.
    let mut command = served.place.seectl([
        "image",
        "pull",
        "--provider",
        "http",
        "--uri",
        &served.url(),
        "--set",
        "auth.username=u",
        "--set",
        "auth.password=${env:PASSWORD_OF_A_TEST}",
        "-vvv",
    ]);
    command
        .env("PASSWORD_OF_A_TEST", SECRETS[0])
        .env("SEE_LOG", "trace");
    assert_untold(&mut command);
    let asked = served.server.seen();
    let was_sent = |start: &str| {
        asked.iter().any(|seen| {
            let header = seen.header("authorization");
            header.is_some_and(|header| header.starts_with(start))
        })
    };
    for start in ["Basic ", "Bearer bearer-of-http", "AWS4-HMAC-SHA256 "] {
        assert!(was_sent(start), "no {start}: the providers were not tried");
    }
    // Neither results nor ledger nor store hold any.
    for path in served.place.everything() {
        let is_ours = !path.ends_with("run.json");
        if let Ok(bytes) = std::fs::read(&path)
            && is_ours
        {
            assert_free(
                &path.display().to_string(),
                &String::from_utf8_lossy(&bytes),
            );
        }
    }
}

/// Runs it to its end, which is a failure; neither it nor any process says a secret.
fn assert_untold(command: &mut Command) {
    let mut child = command.spawn().unwrap();
    let line = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
    let mut said = String::from_utf8_lossy(&line).into_owned();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reading = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap());
    said.push_str(&std::io::read_to_string(stdout).unwrap());
    said.push_str(&reading.join().unwrap());
    let status = child.wait().unwrap();
    assert!(!status.success(), "{command:?}: {said}");
    assert!(!said.is_empty(), "{command:?} says nothing");
    assert_free(&format!("{command:?}"), &said);
}

fn assert_free(what: &str, said: &str) {
    for secret in SECRETS {
        let at = said.find(secret);
        let around = at.map(|at| {
            let start = said.floor_char_boundary(at.saturating_sub(200));
            &said[start..at]
        });
        assert!(around.is_none(), "{what}: {secret} after {around:?}");
    }
}
