//! What cannot be a sandbox's disk is refused in the same words when it is fetched and when a run is to take it.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use see_tests::services::Nginx;
use see_tests::{Home, until};
use serde_json::json;

/// The longest that a refusal may take on a busy host.
const LIMIT: Duration = Duration::from_secs(120);

fn create(path: &Path, arguments: &[&str]) {
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q"]).args(arguments);
    create.arg(path).arg("1M");
    // To choose the rounds of an encryption it measures its processor time, which kernels count coarsely.
    until("an image that qemu-img could measure for", LIMIT, || {
        let output = create.output().expect("qemu-img is installed");
        let told = String::from_utf8_lossy(&output.stderr);
        let is_made = output.status.success();
        assert!(is_made || told.contains("accurate CPU usage"), "{output:?}");
        is_made
    });
}

#[test]
fn an_encrypted_corrupt_cut_off_or_foreign_image_is_refused_by_pull_and_run_in_the_same_words() {
    let nginx = Nginx::start();
    let home = Home::new();
    let locked = [
        "-f",
        "qcow2",
        "--object",
        "secret,id=s,data=secret",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    ];
    let whole = ["-f", "qcow2", "-o", "preallocation=full"];
    for (name, arguments, words) in [
        (
            "encrypted",
            &locked[..],
            "the disk image is encrypted (LUKS)",
        ),
        ("corrupt", &whole[..], "QEMU marked it as corrupt"),
        ("cut-off", &whole[..], "the disk image is cut off"),
        ("foreign", &["-f", "vmdk"][..], "VMDK"),
    ] {
        let path = home.path(name);
        create(&path, arguments);
        let file = std::fs::File::options().write(true).open(&path);
        let file = file.expect("it is ours");
        match name {
            // The flag among the features that a reader has to know.
            "corrupt" => file.write_all_at(&[2], 79).expect("it is ours"),
            "cut-off" => file.set_len(600 << 10).expect("it is ours"),
            _ => {}
        }
        nginx.put(name, &std::fs::read(&path).expect("it is ours"));
        home.run_file(json!({ "disk": { "image": path } }));
        let url = nginx.url(name);
        let pull = ["image", "pull", "--provider", "http", "--uri", &url];
        for (command, code) in [(&pull[..], 7), (&["run", "run.json"], 2)] {
            let outcome = home.run(command, LIMIT);
            assert_eq!(outcome.code, Some(code), "{name}: {outcome:#?}");
            let told = [outcome.stdout.as_str(), &outcome.stderr].concat();
            assert!(told.contains(words), "{name}: {outcome:#?}");
        }
    }
}
