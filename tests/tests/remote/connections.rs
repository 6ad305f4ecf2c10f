//! Connections that are refused, over each transport.

use std::process::Command;
use std::time::{Duration, Instant};

use see_tests::{Credentials, DaemonOptions, Home, PrivateDaemon, Transport, finish, spawn};

use crate::{CONFIGURATION, OK, PATIENCE, context};

const DENIED: Option<i32> = Some(5);

/// Runs with this URI, at a terminal where a password could be asked for, and gives exit code and what was said. No
/// answer to a prompt ever comes.
fn refused_at_a_terminal(home: &Home, uri: &str) -> (Option<i32>, String) {
    let run_file = home.run_file(context(home, uri));
    let mut seectl = home.seectl();
    seectl.arg("run").arg(run_file);
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().expect("it is UTF-8"));
    let words = std::iter::once(seectl.get_program()).chain(seectl.get_args());
    let line: Vec<String> = words.map(quoted).collect();
    let mut script = Command::new("script");
    let line = format!("stty cols 2000; exec {}", line.join(" "));
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    for (name, value) in seectl.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let outcome = finish(spawn(&mut script), PATIENCE);
    assert_eq!(home.recorded(), Vec::<String>::new());
    (outcome.code, outcome.stdout)
}

#[test]
fn a_connection_that_is_refused_is_one_error_that_says_what_in_the_uri_to_change() {
    let options = DaemonOptions {
        transports: Transport::ALL.to_vec(),
        apart: true,
        ..DaemonOptions::default()
    };
    let mut daemon = PrivateDaemon::with(&options);
    let home = Home::new();
    let said = |uri: &str, code: Option<i32>, parts: &[&str]| {
        let begin = Instant::now();
        let (found, said) = refused_at_a_terminal(&home, uri);
        assert_eq!(found, code, "{uri}: {said}");
        let count = said.matches("there is no such hypervisor").count();
        assert_eq!(count, 1, "{uri}: {said}");
        for part in parts.iter().chain(&["run.json:", uri]) {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{uri}: {:?}",
            begin.elapsed()
        );
    };
    let uri = |transport, credentials| daemon.uri_with(transport, credentials);
    let unknown_client = Credentials::UnknownClient;
    let unknown_host = Credentials::UnknownHost;
    said(
        &uri(Transport::Ssh, unknown_client),
        DENIED,
        &["Permission denied", "`keyfile=`"],
    );
    let host_key = ["Host key verification failed", "file of known hosts"];
    said(&uri(Transport::Ssh, unknown_host), CONFIGURATION, &host_key);
    said(
        &uri(Transport::Tls, unknown_client),
        CONFIGURATION,
        &["`clientcert.pem`", "`pkipath=`"],
    );
    let issuer = ["verify peer's certificate", "`cacert.pem`", "`pkipath=`"];
    said(&uri(Transport::Tls, unknown_host), DENIED, &issuer);
    let no_files = uri(Transport::Tls, Credentials::Right).replace("/client", "/nothing");
    said(&no_files, CONFIGURATION, &["`clientkey.pem`", "`pkipath=`"]);

    let [ssh, tcp, tls] = Transport::ALL.map(|transport| daemon.remote_uri(transport));
    daemon.kill();
    said(
        &ssh,
        CONFIGURATION,
        &["SSH works", "libvirt's daemon there does not"],
    );
    for uri in [tcp, tls] {
        said(
            &uri,
            CONFIGURATION,
            &["Connection refused", "host and port in the URI", "libvirt"],
        );
    }
    let ports = daemon.port(Transport::Ssh);
    drop(daemon);
    let nobody = format!("qemu+ssh://root@127.0.0.1:{ports}/system");
    said(
        &nobody,
        CONFIGURATION,
        &["Connection refused", "host and port in the URI", "sshd"],
    );
}

#[test]
fn a_host_that_takes_a_connection_and_says_nothing_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let port = silent.local_addr().expect("it is bound").port();
    std::thread::scope(|scope| {
        for scheme in ["qemu+ssh", "qemu+tcp"] {
            let uri = format!("{scheme}://127.0.0.1:{port}/system");
            scope.spawn(move || {
                let (home, begin) = (Home::new(), Instant::now());
                let (code, said) = refused_at_a_terminal(&home, &uri);
                assert_ne!(code, OK, "{said}");
                for part in ["no end within", "`127.0.0.1` does not answer"] {
                    assert!(said.contains(part), "{part}: {said}");
                }
                let took = begin.elapsed();
                assert!(took < Duration::from_secs(60), "{uri}: {took:?}");
            });
        }
    });
}

#[test]
fn a_password_in_the_uri_is_refused_and_told_nobody() {
    let home = Home::new();
    let (code, said) = refused_at_a_terminal(&home, "qemu+ssh://root:tiger@127.0.0.1:1/system");
    assert_eq!(code, CONFIGURATION, "{said}");
    assert!(said.contains("holds a password"), "{said}");
    assert!(!said.contains("tiger"), "{said}");
}
