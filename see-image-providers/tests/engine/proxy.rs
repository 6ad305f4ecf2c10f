//! The proxies that the environment names.

use std::process::Command;

use see_image_providers::testing::{FaultServer, Resource, noise};

use crate::support::{Shelf, Web};

/// Set in the process whose environment names a proxy: the address of a server that needs none.
const INSIDE: &str = "SEE_TEST_NEEDS_NO_PROXY";
const LENGTH: usize = 100_000;

#[tokio::test]
async fn images_come_over_the_proxy_of_the_environment_but_for_hosts_that_need_none() {
    const TEST: &str =
        "proxy::images_come_over_the_proxy_of_the_environment_but_for_hosts_that_need_none";
    if let Ok(own) = std::env::var(INSIDE) {
        for url in ["http://images.test/image", &own] {
            let shelf = Shelf::new();
            let image = shelf.get(&Web::new(url.to_owned())).await.unwrap();
            assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
        }
        let shelf = Shelf::new();
        let encrypted = Web::new("https://images.test/image".to_owned());
        shelf.get(&encrypted).await.unwrap_err();
        return;
    }
    let (proxy, own) = (FaultServer::start().await, FaultServer::start().await);
    let image = || Resource::new(noise(LENGTH)).entity_tag("one");
    proxy.put("http://images.test/image", image());
    own.put("/image", image());
    let mut inside = Command::new(std::env::current_exe().unwrap());
    inside
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE, own.url("/image"))
        .env("HTTP_PROXY", proxy.url(""))
        .env("HTTPS_PROXY", proxy.url(""))
        .env("NO_PROXY", "127.0.0.1");
    for name in [
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        inside.env_remove(name);
    }
    let ended = tokio::task::spawn_blocking(move || inside.output());
    let output = ended.await.unwrap().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    let asked: Vec<_> = proxy.seen().into_iter().map(|seen| seen.method).collect();
    assert!(asked.contains(&"GET".to_owned()), "{asked:?}");
    assert!(asked.contains(&"CONNECT".to_owned()), "{asked:?}");
    assert!(own.seen().iter().any(|seen| seen.method == "GET"));
    assert!(
        proxy
            .seen()
            .iter()
            .all(|seen| seen.target.contains("images.test"))
    );
}
