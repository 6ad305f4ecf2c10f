//! The configuration files and rings of a Swift on one disk.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::program;
use super::{KINDS, Swift};

/// What stands between a client's request and the proxy, in this order; the name is that of the program, too.
const PIPELINE: [&str; 14] = [
    "catch_errors",
    "gatekeeper",
    "healthcheck",
    "proxy_logging",
    "cache",
    "listing_formats",
    "bulk",
    "s3api",
    "tempauth",
    "copy",
    "slo",
    "dlo",
    "versioned_writes",
    "symlink",
];

/// Writes all of them into the folder. Rings are made anew only where a port has changed.
pub(super) fn write(own: &Path, proxy: u16, nodes: &[u16; 3]) {
    let put = |name: &str, text: String| {
        std::fs::write(own.join(name), text).expect("the target folder is writable");
    };
    put(
        "swift.conf",
        "[swift-hash]\nswift_hash_path_suffix = tests\n\
         [storage-policy:0]\nname = one\ndefault = yes\n"
            .to_owned(),
    );
    let common = |port: u16| {
        format!(
            "[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nswift_dir = {own}\nuser = {user}\n\
             workers = 0\ndevices = {own}/nodes\nmount_check = false\n",
            own = own.display(),
            user = account(),
        )
    };
    for (kind, port) in KINDS.into_iter().zip(*nodes) {
        let text = common(port)
            + &format!(
                "[pipeline:main]\npipeline = {kind}-server\n\
                 [app:{kind}-server]\nuse = egg:swift#{kind}\n"
            );
        put(&format!("{kind}.conf"), text);
        ring(own, kind, port);
    }
    let mut text = common(proxy);
    let _ = writeln!(
        text,
        "[pipeline:main]\npipeline = {} proxy-server",
        PIPELINE.join(" ")
    );
    for filter in PIPELINE {
        let program = match filter {
            "cache" => "memcache",
            name => name,
        };
        let _ = writeln!(text, "[filter:{filter}]\nuse = egg:swift#{program}");
        let more = match filter {
            // `tempauth` insists on a cache. One that never answers is none, and is soon given up.
            "cache" => "memcache_servers = 127.0.0.1:1\nconnect_timeout = 0.1\n".to_owned(),
            "s3api" => format!(
                "location = {}\nstorage_domain = {}\n",
                Swift::REGION,
                Swift::DOMAIN
            ),
            "tempauth" => {
                let user = Swift::KEY.replace(':', "_");
                format!("user_{user} = {} .admin\n", Swift::SECRET)
            }
            "versioned_writes" => "allow_object_versioning = true\n".to_owned(),
            _ => String::new(),
        };
        text += &more;
    }
    text += "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n\
             allow_account_management = true\n";
    put("proxy.conf", text);
}

/// A ring of one device, with the port in it.
fn ring(own: &Path, kind: &str, port: u16) {
    let made = own.join(format!("{kind}.ring.port"));
    let wanted = port.to_string();
    let there = own.join(format!("{kind}.ring.gz")).exists();
    if there && std::fs::read_to_string(&made).is_ok_and(|text| text == wanted) {
        return;
    }
    let builder = format!("{kind}.builder");
    for name in [&builder, &format!("{kind}.ring.gz")] {
        // What is not there is not in the way.
        let _ = std::fs::remove_file(own.join(name));
    }
    let device = format!("r1z1-127.0.0.1:{port}/disk");
    for words in [
        &["create", "4", "1", "1"][..],
        &["add", &device, "1"],
        &["rebalance"],
    ] {
        let output = program("swift-ring-builder", own)
            .arg(&builder)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("swift is installed: `cargo xtask setup` does it");
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    std::fs::write(made, wanted).expect("the target folder is writable");
}

/// The account that runs this: Swift wants to know whose it is to be.
fn account() -> String {
    let output = Command::new("id").arg("-un").output();
    let output = output.expect("every host has `id`");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
