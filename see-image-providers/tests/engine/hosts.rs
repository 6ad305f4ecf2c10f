//! Credentials go to their own host, whatever a server says.

use reqwest::{Method, Url};
use see_core::ErrorKind;
use see_image_providers::client::{Client, TlsConfiguration};
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};

use crate::support::{Shelf, Web};

const CREDENTIALS: [&str; 4] = [
    "authorization",
    "x-auth-token",
    "cookie",
    "x-amz-security-token",
];

fn with_credentials(url: String) -> Web {
    let mut origin = Web::new(url);
    origin.headers = CREDENTIALS
        .map(|name| (name, "secret-token".to_owned()))
        .to_vec();
    origin
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credentials() {
    let (here, there) = (FaultServer::start().await, FaultServer::start().await);
    let body = noise(2_000_000);
    let resource = Resource::new(body.clone()).entity_tag("one");
    there.put("/image", resource.clone().fault(Fault::CutAfter(1_000_000)));
    let to = there.url("/image?signature=1");
    here.put("/image", resource.always(Fault::Redirect(to)));
    let shelf = Shelf::new();
    let image = shelf
        .get(&with_credentials(here.url("/image")))
        .await
        .unwrap();
    assert!(std::fs::read(&image.path).unwrap() == body);
    let seen = there.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].header("range"), Some("bytes=1000000-"));
    for request in &seen {
        assert!(
            !format!("{request:?}").contains("secret-token"),
            "{request:?}"
        );
        assert_eq!(request.header("referer"), None);
    }
    for request in here.seen() {
        assert_eq!(request.header("x-auth-token"), Some("secret-token"));
    }
}

#[tokio::test]
async fn a_redirect_to_the_same_host_keeps_them_and_the_way_back_does_not() {
    let (here, there) = (FaultServer::start().await, FaultServer::start().await);
    here.put("/moved", Resource::new(noise(1000)));
    let aside = Fault::Redirect("/moved".to_owned());
    here.put("/image", Resource::new(noise(1000)).fault(aside));
    let client = Client::new(&TlsConfiguration::default()).unwrap();
    let ask = |path: &str| {
        let url: Url = here.url(path).parse().unwrap();
        let request = client
            .request(Method::GET, url)
            .header("x-auth-token", "secret-token");
        client.send(request.build().unwrap())
    };
    assert_eq!(ask("/image").await.unwrap().status(), 200);
    assert_eq!(
        here.seen().last().unwrap().header("x-auth-token"),
        Some("secret-token")
    );
    // Somebody else sends us back: that request is his, and not ours.
    let back = Fault::Redirect(here.url("/moved"));
    there.put("/back", Resource::new("").fault(back));
    here.put(
        "/away",
        Resource::new("").fault(Fault::Redirect(there.url("/back"))),
    );
    assert_eq!(ask("/away").await.unwrap().status(), 200);
    assert_eq!(here.seen().last().unwrap().header("x-auth-token"), None);
}

#[tokio::test]
async fn redirects_without_end_or_to_no_server_are_refused() {
    let server = FaultServer::start().await;
    let client = Client::new(&TlsConfiguration::default()).unwrap();
    for (to, kind, part) in [
        (
            server.url("/image"),
            ErrorKind::Unavailable,
            "more than 10 times",
        ),
        (
            "file:///etc/passwd".to_owned(),
            ErrorKind::Unavailable,
            "none of http",
        ),
    ] {
        server.put("/image", Resource::new("").always(Fault::Redirect(to)));
        let url: Url = server.url("/image").parse().unwrap();
        let request = client.request(Method::GET, url).build().unwrap();
        let error = client.send(request).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_password_in_a_body_is_not_repeated_to_another_host() {
    let (here, there) = (FaultServer::start().await, FaultServer::start().await);
    there.put("/login", Resource::new("{}"));
    for status in [302, 307] {
        let to = vec![("Location".to_owned(), there.url("/login"))];
        here.put("/login", Resource::new("").for_posts(status, to));
        let client = Client::new(&TlsConfiguration::default()).unwrap();
        let url: Url = here.url("/login").parse().unwrap();
        let request = client.request(Method::POST, url).body("secret-token");
        let error = client.send(request.build().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("is not repeated"), "{error}");
        assert!(!error.chain().contains("secret-token"));
    }
    assert!(there.seen().is_empty());
}

#[tokio::test]
async fn no_error_shows_the_query_or_the_password_of_an_address() {
    let server = FaultServer::start().await;
    let refused = Fault::Status(403, Vec::new(), "no".into());
    server.put("/image", Resource::new(noise(1000)).always(refused));
    let address = server.address();
    let mut origin = Web::new(format!(
        "http://user:secret-token@{address}/image?key=secret-token"
    ));
    origin.hides_address = true;
    let error = Shelf::new().get(&origin).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    drop(server);
    let other = Shelf::new().get(&origin).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Unavailable);
    for error in [error, other] {
        let text = format!("{error} {error:?} {}", error.chain());
        assert!(!text.contains("secret-token"), "{text}");
        assert!(text.contains(&address.to_string()), "{text}");
    }
}
