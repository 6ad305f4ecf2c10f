//! Whom we believe to be the server, and who we are to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Method, Url};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use see_core::ErrorKind;
use see_image_providers::client::{Client, TlsConfiguration};
use see_image_providers::testing::{FaultServer, Resource};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{Shelf, Web, path};

/// An authority of our own, with its files in a folder.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// How often a server was connected to that it stands before.
    connections: Arc<AtomicUsize>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer =
            CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self {
            folder,
            issuer,
            connections: Arc::default(),
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a certificate for this name, and its key.
    fn issue(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// Encrypts the way to a server, as one with this name; `asks` for a certificate of ours too.
    async fn before(&self, server: &FaultServer, name: &str, asks: bool) -> Url {
        self.issue(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(&self.file("ca.pem"))).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap();
        let ours = certificate(&self.file(&format!("{name}.pem")));
        let settings = builder.with_single_cert(vec![ours], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(settings));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plain = server.address();
        let connections = Arc::clone(&self.connections);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut behind = TcpStream::connect(plain).await.unwrap();
                    if let Ok(mut connection) = acceptor.accept(connection).await {
                        let _ = tokio::io::copy_bidirectional(&mut connection, &mut behind).await;
                    }
                });
            }
        });
        format!("https://localhost:{port}/image").parse().unwrap()
    }
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

async fn ask(tls: &TlsConfiguration, url: &Url) -> see_core::Result<u16> {
    let client = Client::new(tls)?;
    let request = client.request(Method::GET, url.clone()).build().unwrap();
    Ok(client.send(request).await?.status().as_u16())
}

async fn server() -> FaultServer {
    let server = FaultServer::start().await;
    server.put("/image", Resource::new("image"));
    server
}

#[tokio::test]
async fn a_server_is_believed_when_its_authority_is_and_not_otherwise() {
    let server = server().await;
    let (ours, other) = (Authority::new(), Authority::new());
    let url = ours.before(&server, "localhost", false).await;
    let by = |authority: &Authority| TlsConfiguration {
        cacert: Some(path(&authority.file("ca.pem"))),
        ..TlsConfiguration::default()
    };
    assert_eq!(ask(&by(&ours), &url).await.unwrap(), 200);
    for tls in [by(&other), TlsConfiguration::default()] {
        let error = ask(&tls, &url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.contains("`cacert` names the authority"), "{text}");
    }
    let insecure = TlsConfiguration {
        insecure: Some(true),
        ..by(&other)
    };
    assert_eq!(ask(&insecure, &url).await.unwrap(), 200);
}

#[tokio::test]
async fn certificates_and_keys_may_stand_in_the_configuration_itself() {
    let server = server().await;
    let ours = Authority::new();
    ours.issue("me");
    let url = ours.before(&server, "localhost", true).await;
    let text = |name: &str| {
        let text = std::fs::read_to_string(ours.file(name)).unwrap();
        Some(path(Path::new(&text)))
    };
    let tls = TlsConfiguration {
        cacert: text("ca.pem"),
        cert: text("me.pem"),
        key: text("me.key"),
        ..TlsConfiguration::default()
    };
    assert_eq!(ask(&tls, &url).await.unwrap(), 200);
}

#[test]
fn a_key_in_the_configuration_is_never_shown() {
    let ours = Authority::new();
    ours.issue("me");
    for key in [
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n",
        "-----BEGIN PRIVATE KEY----- c2VjcmV0 -----END PRIVATE KEY-----",
        "Bag Attributes\n    friendlyName: c2VjcmV0\nKey Attributes: <No Attributes>\n",
        "\u{feff}-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
    ] {
        let written = Some(path(Path::new(key)));
        let with_key = TlsConfiguration {
            cert: Some(path(&ours.file("me.pem"))),
            key: written.clone(),
            ..TlsConfiguration::default()
        };
        let with_authority = TlsConfiguration {
            cacert: written,
            ..TlsConfiguration::default()
        };
        for tls in [with_key, with_authority] {
            let error = Client::new(&tls).unwrap_err();
            assert!(error.to_string().contains("the text"), "{error}");
            let decimal = "99, 50, 86, 106, 99, 109, 86, 48";
            for shown in [error.chain(), format!("{error:?} {tls:?}")] {
                assert!(!shown.contains("c2VjcmV0"), "{shown}");
                assert!(!shown.contains(decimal), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_with_which_tls_cannot_be_agreed_on_is_asked_once() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}/image", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        // It speaks no TLS.
        while let Ok((mut connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut connection, answer).await;
        }
    });
    let asked = ask(&TlsConfiguration::default(), &url.parse().unwrap()).await;
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    // Neither is one whose certificate is not believed.
    let server = server().await;
    let other = Authority::new();
    let url = other.before(&server, "localhost", false).await;
    ask(&TlsConfiguration::default(), &url).await.unwrap_err();
    assert_eq!(other.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let server = server().await;
    let ours = Authority::new();
    let url = ours.before(&server, "example.org", false).await;
    let tls = TlsConfiguration {
        cacert: Some(path(&ours.file("ca.pem"))),
        ..TlsConfiguration::default()
    };
    let error = ask(&tls, &url).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_gets_our_certificate_and_another_host_does_not() {
    let server = server().await;
    let ours = Authority::new();
    ours.issue("me");
    let url = ours.before(&server, "localhost", true).await;
    let with = TlsConfiguration {
        cacert: Some(path(&ours.file("ca.pem"))),
        cert: Some(path(&ours.file("me.pem"))),
        key: Some(path(&ours.file("me.key"))),
        ..TlsConfiguration::default()
    };
    let without = TlsConfiguration {
        cert: None,
        key: None,
        ..with.clone()
    };
    assert_eq!(ask(&with, &url).await.unwrap(), 200);
    assert_eq!(
        ask(&without, &url).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // Somebody who sends us there does not make us say who we are.
    let elsewhere = FaultServer::start().await;
    let to = see_image_providers::testing::Fault::Redirect(url.to_string());
    elsewhere.put("/image", Resource::new("").always(to));
    let from: Url = elsewhere.url("/image").parse().unwrap();
    assert_eq!(
        ask(&with, &from).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // Neither does somebody to whom our own server sends us, and who sends us back.
    let between = FaultServer::start().await;
    let away = ours.before(&between, "localhost", false).await;
    let back = see_image_providers::testing::Fault::Redirect(url.to_string());
    between.put("/image", Resource::new("").always(back));
    let there = see_image_providers::testing::Fault::Redirect(away.to_string());
    server.put("/image", Resource::new("image").always(there));
    assert_eq!(
        ask(&with, &url).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    server.put("/image", Resource::new("image"));
    assert_eq!(ask(&with, &url).await.unwrap(), 200, "it was asked before");
}

#[tokio::test]
async fn files_that_are_no_certificates_are_told_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.pem");
    std::fs::write(&file, "no certificate").unwrap();
    let some = || Some(path(&file));
    for (tls, part) in [
        (
            TlsConfiguration {
                cacert: some(),
                ..TlsConfiguration::default()
            },
            "no certificate",
        ),
        (
            TlsConfiguration {
                cert: some(),
                ..TlsConfiguration::default()
            },
            "no certificate",
        ),
        (
            TlsConfiguration {
                key: some(),
                ..TlsConfiguration::default()
            },
            "without the certificate",
        ),
        (
            TlsConfiguration {
                cacert: Some(path(&folder.path().join("missing.pem"))),
                ..TlsConfiguration::default()
            },
            "found nothing",
        ),
    ] {
        let error = Client::new(&tls).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let server = server().await;
    let ours = Authority::new();
    let to = see_image_providers::testing::Fault::Redirect(server.url("/plain"));
    server.put("/plain", Resource::new("plain"));
    server.put("/image", Resource::new("").always(to));
    let url = ours.before(&server, "localhost", false).await;
    let tls = TlsConfiguration {
        cacert: Some(path(&ours.file("ca.pem"))),
        ..TlsConfiguration::default()
    };
    let error = ask(&tls, &url).await.unwrap_err();
    assert!(error.to_string().contains("is not encrypted"), "{error}");
    assert!(server.seen().iter().all(|seen| seen.target == "/image"));
}

#[tokio::test]
async fn what_came_without_proof_is_noted_and_not_given_to_who_asks_for_it() {
    let server = server().await;
    let body = see_image_providers::testing::noise(100_000);
    server.put("/image", Resource::new(body).entity_tag("one"));
    let ours = Authority::new();
    let url = ours.before(&server, "localhost", false).await;
    let secure = TlsConfiguration {
        cacert: Some(path(&ours.file("ca.pem"))),
        ..TlsConfiguration::default()
    };
    let insecure = TlsConfiguration {
        insecure: Some(true),
        ..TlsConfiguration::default()
    };
    let shelf = Shelf::new();
    let mut origin = Web::new(url.to_string());
    for (tls, sent) in [
        (&insecure, 100_000),
        (&insecure, 100_000),
        (&secure, 200_000),
    ] {
        origin.client = Client::new(tls).unwrap();
        shelf.get(&origin).await.unwrap();
        assert_eq!(server.sent(), sent);
    }
    let stored = shelf.store().list().unwrap().remove(0);
    assert_eq!(
        stored.origins,
        [format!("{url} (insecure)"), url.to_string()]
    );
}
