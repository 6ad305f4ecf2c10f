//! Real servers with images of random bytes, for benchmarks: `image_server NGINX_SIZE… glance GLANCE_SIZE…`, in MiB.
//!
//! Prints one line of JSON that says where they are, and serves until its standard input ends.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use see_tests::services::{self, Glance, Nginx};
use serde_json::json;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let sizes = |words: &[String]| -> Vec<u64> {
        let number = |word: &String| word.parse().expect("sizes are numbers of MiB");
        words.iter().map(number).collect()
    };
    let mut parts = words.split(|word| word == "glance");
    let (plain, stored) = (
        sizes(parts.next().unwrap_or_default()),
        sizes(parts.next().unwrap_or_default()),
    );
    let nginx = Nginx::start();
    let mut files = Vec::new();
    for size in plain {
        let name = format!("{size}.img");
        write(&nginx.files().join(&name), size);
        files.push(json!({ "mib": size, "url": nginx.url(&name) }));
    }
    let mut told = json!({ "nginx": files });
    if !stored.is_empty() {
        let glance = services::glance().shared();
        let mut images = Vec::new();
        for size in stored {
            let file = nginx.files().join("uploaded");
            write(&file, size);
            let id = glance.upload_file(&format!("benchmark-{size}"), &file);
            std::fs::remove_file(&file).expect("the target folder is writable");
            images.push(json!({ "mib": size, "id": id, "name": format!("benchmark-{size}") }));
        }
        let user = Glance::USER;
        told["glance"] = json!({
            "images": images,
            "auth": {
                "auth_url": glance.identity_url(), "username": user.name,
                "password": user.password, "project_name": user.project,
                "user_domain_name": "Default", "project_domain_name": "Default",
            },
        });
    }
    let mut output = std::io::stdout();
    writeln!(output, "{told}").expect("who started it reads");
    output.flush().expect("who started it reads");
    // Whatever is said, it goes on until nobody can say more.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// Random bytes: nothing on the way can make them less.
fn write(path: &Path, mib: u64) {
    let random = File::open("/dev/urandom").expect("every host has it");
    let mut file = File::create(path).expect("the target folder is writable");
    std::io::copy(&mut random.take(mib << 20), &mut file).expect("there is room");
}
