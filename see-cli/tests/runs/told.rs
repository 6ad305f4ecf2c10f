//! What people are told of an image that is fetched: warnings, how far it is, and dates.

use std::process::Command;
use std::time::Duration;

use see_image_providers::cache::{Algorithm, Hasher};
use see_image_providers::testing::{Fault, Resource, noise};
use serde_json::{Value, json};

use crate::exit;
use crate::images::{SIZE, Served, image};
use crate::support::Ended;

/// The section of an object of S3 on the server.
fn of_s3(served: &Served, auth: Value) -> Value {
    let mut whole = json!({ "endpoint_url": format!("http://{}", served.server.address()) });
    let keys = whole.as_object_mut().unwrap();
    keys.extend(auth.as_object().unwrap().clone());
    json!({ "provider": "s3", "name": "guest.raw",
        "provider_configuration": { "bucket_name": "images", "auth": whole } })
}

fn keys() -> Value {
    json!({ "aws_access_key_id": "id", "aws_secret_access_key": "secret" })
}

pub(crate) fn warnings() {
    let mut hash = Hasher::new(Algorithm::Md5);
    hash.update(&noise(SIZE));
    let md5 = hash.finish().to_string();
    let md5 = md5.split_once(':').unwrap().1;
    let served = Served::new(image());
    served.server.put(
        "/images/guest.raw",
        Resource::new(noise(SIZE)).entity_tag(md5),
    );
    let insecure = json!({ "provider": "http", "uri": served.url(),
        "provider_configuration": { "tls": { "insecure": true } } });
    let count = |ended: &Ended, what: &str| {
        let is_it = |line: &&str| line.contains("WARN") && line.contains(what);
        ended.stderr.lines().filter(is_it).count()
    };
    for (section, what) in [
        (insecure, "`insecure` is set"),
        (of_s3(&served, keys()), "nothing but an MD5"),
    ] {
        for words in [
            "image pull run.json",
            "run run.json --sample sample.sh --output json",
        ] {
            served.place.run_file(json!({ "image": section }), exit(0));
            let ended = served.seectl(words);
            assert_eq!(ended.code, Some(0), "{ended:?}");
            // What was fetched before is no news.
            let wanted = usize::from(what.contains("insecure") || words.starts_with("image"));
            assert_eq!(count(&ended, what), wanted, "{words}: {ended:?}");
            assert_eq!(ended.stderr.lines().count(), wanted, "{words}: {ended:?}");
            assert!(!ended.stdout.contains("WARN"), "{words}: {ended:?}");
        }
    }
}

/// Words that only a bar says.
const OF_A_BAR: [&str; 3] = ["MiB/s", " left", "/1.00 MiB"];

pub(crate) fn bar() {
    let slow = Fault::Trickle(64 << 10, Duration::from_millis(60));
    let served = Served::new(image().always(slow));
    served.run_file(json!({}));
    let plain = served.seectl("image pull run.json");
    assert_eq!(plain.code, Some(0), "{plain:?}");
    let said = plain.stdout.clone() + &plain.stderr;
    for word in OF_A_BAR.iter().chain(&["\x1b", "\r"]) {
        assert!(
            !said.contains(word),
            "{word:?} without a terminal: {said:?}"
        );
    }
    let listed = served.seectl("image ls --output json").json();
    let digest = listed[0]["digest"].as_str().unwrap();
    assert_eq!(served.seectl(&format!("image rm {digest}")).code, Some(0));

    // A terminal of its own, as wide as people have them.
    let seectl = served.place.seectl(["image", "pull", "run.json"]);
    let program = seectl.get_program().to_str().unwrap();
    let line = format!("stty cols 120 rows 30; exec '{program}' image pull run.json");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    for (name, value) in seectl.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script
        .env("TERM", "xterm")
        .current_dir(served.place.path())
        .stdin(std::process::Stdio::null());
    let output = script.output().expect("script, of the package bsdutils");
    let drawn = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{drawn:?}");
    for word in OF_A_BAR.iter().chain(&["\x1b["]) {
        assert!(drawn.contains(word), "no {word:?} on a terminal: {drawn:?}");
    }
    // How far it is grows; the time left is one.
    let done = |step: &str| drawn.contains(step);
    assert!(done(" KiB/1.00 MiB, "), "{drawn:?}");
    assert!(drawn.contains("s left"), "{drawn:?}");
}

/// What GNU's `date` prints.
fn date(words: &[&str]) -> String {
    let mut command = Command::new("date");
    let output = command.arg("-u").args(words).env("LC_ALL", "C").output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

pub(crate) fn time_zones() {
    let served =
        Served::new(Resource::new(noise(SIZE)).last_modified("Wed, 21 Oct 2015 07:28:00 GMT"));
    let object = || Resource::new(noise(SIZE)).entity_tag("one-2");
    served.server.put("/images/guest.raw", object());
    let pull = |zone: &str, section: &Value| {
        served.place.run_file(json!({ "image": section }), exit(0));
        let mut seectl = served.place.seectl(["image", "pull", "run.json"]);
        seectl.env("TZ", zone);
        let output = seectl
            .env("AWS_CONFIG_FILE", served.place.path().join("aws"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let of_http = json!({ "provider": "http", "uri": served.url() });
    let (code, said) = pull("UTC", &of_http);
    assert_eq!(code, Some(0), "{said}");
    for zone in ["Asia/Kolkata", "America/New_York"] {
        let sent = served.server.sent();
        // The date of what is there is that of what was fetched: nothing is sent again.
        let (code, said) = pull(zone, &of_http);
        assert_eq!(code, Some(0), "{zone}: {said}");
        assert_eq!(served.server.sent(), sent, "{zone}: fetched once more");

        // In an hour, wherever that is.
        let later = date(&["-d", "1 hour", "+%a, %d %b %Y %H:%M:%S GMT"]);
        let busy = Fault::Status(503, vec![("Retry-After".to_owned(), later)], "".into());
        let busy = Resource::new(noise(SIZE)).always(busy);
        served.server.put("/busy.raw", busy);
        let uri = served.server.url("/busy.raw");
        let (code, said) = pull(zone, &json!({ "provider": "http", "uri": uri }));
        assert_eq!(code, Some(7), "{zone}: {said}");
        let asked = said.split_once("come back in ").map(|(_, rest)| rest);
        let asked = asked.and_then(|rest| rest.split_once('s')).expect(&said).0;
        let seconds: f64 = asked.parse().expect(&said);
        assert!((3000.0..=3601.0).contains(&seconds), "{zone}: {said}");

        // Credentials that are good for an hour, and ones that were; requests are dated in UTC.
        for (until, is_good) in [("1 hour", true), ("1 hour ago", false)] {
            let until = date(&["-d", until, "+%Y-%m-%dT%H:%M:%SZ"]);
            let given = json!({ "Version": 1, "AccessKeyId": "id", "SecretAccessKey": "secret",
                "SessionToken": "token", "Expiration": until });
            let credentials = served.place.path().join("credentials");
            std::fs::write(&credentials, given.to_string()).unwrap();
            // The place has a space in its name.
            let link = tempfile::tempdir().unwrap();
            let plain = link.path().join("credentials");
            std::os::unix::fs::symlink(&credentials, &plain).unwrap();
            let aws = format!(
                "[profile p]\ncredential_process = cat {}\n",
                plain.display()
            );
            std::fs::write(served.place.path().join("aws"), aws).unwrap();
            let before = date(&["+%Y%m%dT%H"]);
            let section = of_s3(&served, json!({ "profile_name": "p" }));
            let (code, said) = pull(zone, &section);
            assert_eq!(code == Some(0), is_good, "{zone}, {until}: {said}");
            let hours = [before, date(&["+%Y%m%dT%H"])];
            let seen = served.server.seen();
            let signed = seen.iter().rev().find_map(|seen| seen.header("x-amz-date"));
            let signed = signed.expect("it is signed");
            assert!(
                hours.iter().any(|hour| signed.starts_with(hour)),
                "{zone}: {signed}"
            );
        }
    }
}
