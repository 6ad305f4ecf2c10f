//! Connections to libvirt's test driver, and to nothing.

use std::time::Duration;

use see_libvirt::{Cause, Connection, MachineKind};

use crate::support::{LIMIT, test_connection};

#[tokio::test]
async fn a_connection_knows_its_uri_and_what_its_host_can_do() {
    let connection = test_connection().await;
    assert_eq!(connection.uri(), "test:///default");
    assert!(
        connection
            .capabilities()
            .await
            .unwrap()
            .contains("<capabilities>")
    );
    let error = connection
        .domain_capabilities(&MachineKind::default())
        .await
        .unwrap_err();
    assert!(error.is_unsupported(), "{error}");
}

#[tokio::test]
async fn a_uri_that_no_driver_takes_is_refused() {
    for uri in [
        "nonsense:///x",
        "test:///no/such/file",
        "qemu+tcp://127.0.0.1:1/system",
    ] {
        let error = Connection::open(uri, LIMIT).await.unwrap_err();
        assert!(error.code().is_some(), "{error:?}");
        assert!(error.to_string().contains(uri), "{error}");
    }
}

#[tokio::test]
async fn nul_bytes_are_refused_where_libvirt_would_stop_reading() {
    let error = Connection::open("test:///default\0", LIMIT)
        .await
        .unwrap_err();
    assert!(
        matches!(error.cause(), Cause::NulByte { at: 15 }),
        "{error}"
    );
    let connection = test_connection().await;
    for error in [
        connection
            .domain_capabilities(&MachineKind {
                machine: Some("q\0".to_owned()),
                ..MachineKind::default()
            })
            .await
            .unwrap_err(),
        connection.domain_by_name("t\0").await.unwrap_err(),
        connection.network("t\0").await.unwrap_err(),
        connection.storage_pool("t\0").await.unwrap_err(),
        connection.storage_pool_at("/\0").await.unwrap_err(),
        connection.create_network("<network>\0").await.unwrap_err(),
    ] {
        assert!(!error.is_timed_out(), "{error:?}");
        assert!(error.to_string().to_lowercase().contains("nul"), "{error}");
    }
}

#[tokio::test]
async fn a_silent_daemon_is_given_up_at_the_time_limit() {
    // Accepts connections and never answers.
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    let error = Connection::open(&uri, Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(error.is_timed_out(), "{error}");
}

#[tokio::test]
async fn a_daemon_that_hangs_up_is_an_error_of_the_connection() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || drop(listener.accept()));
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    let error = Connection::open(&uri, LIMIT).await.unwrap_err();
    assert!(error.is_connection_lost(), "{error:?}");
    server.join().unwrap();
}
