//! The program `see-agent` itself: its memory, its token, its arguments.

#![cfg(unix)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::{FailureCode, Reply, Request, Upload};
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::{Host, PATIENCE, failure, shell};

const TOKEN: &[u8] = b"a token for the tests";

/// A running agent with its folder; both go with the test.
struct Running {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Running {
    /// Starts an agent that listens on a free port; standard input and output are `stdio`.
    fn start(test: &str, token: bool, stdio: Option<UnixStream>) -> Self {
        let folder = std::env::temp_dir().join(format!("see-agent-{test}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_see-agent"));
        command
            .args(["--tcp", "127.0.0.1:0", "--folder"])
            .arg(folder.join("uploads"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if token {
            fs::write(folder.join("token"), [TOKEN, b"\n"].concat()).expect("a token");
            command.arg("--token-file").arg(folder.join("token"));
        }
        if let Some(stream) = stdio {
            let other: OwnedFd = stream.try_clone().expect("a clone").into();
            command
                .arg("--stdio")
                .stdin(OwnedFd::from(stream))
                .stdout(other);
        }
        let mut child = command.spawn().expect("the agent");
        let mut line = String::new();
        let stderr = child.stderr.take().expect("piped");
        BufReader::new(stderr)
            .read_line(&mut line)
            .expect("its address");
        let address = line
            .trim()
            .rsplit(' ')
            .next()
            .expect("its address")
            .to_owned();
        Self {
            child,
            address,
            folder,
        }
    }

    fn connect(&self) -> Host<TcpStream> {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Host::silent(stream, 1)
    }

    /// The most memory that it ever used, in bytes.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("its status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .expect("a peak");
        let kib = line.split_ascii_whitespace().nth(1).expect("a number");
        kib.parse::<u64>().expect("a number") << 10
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().expect("killing the agent");
        self.child.wait().expect("its end");
        fs::remove_dir_all(&self.folder).expect("removing the test's folder");
    }
}

#[test]
fn a_file_of_one_gibibyte_passes_both_ways_in_constant_memory() {
    const SIZE: u64 = 1 << 30;
    const PIECE: usize = 64 << 10;
    let agent = Running::start("large", true, None);
    let mut host = agent.connect();
    host.hello(TOKEN).expect("a welcome");
    let before = agent.peak();

    // Each piece differs from its neighbours, so that a lost or doubled one shows.
    let piece = |number: u64| {
        let mut bytes = vec![number as u8; PIECE];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    let upload = Upload {
        name: b"large".to_vec(),
        mode: 0o600,
        size: SIZE,
    };
    let number = host.send(Request::Upload(upload));
    host.feed(number, (0..SIZE / PIECE as u64).map(piece))
        .expect("fed");
    let Reply::Stored { path, size } = host.last_answer(number) else {
        panic!("not stored");
    };
    assert_eq!(size, SIZE);

    let number = host.send(Request::Download {
        path,
        limit: u64::MAX,
    });
    let mut received = Vec::new();
    let mut next = 0;
    let mut owed = 0;
    loop {
        match host.answer(number) {
            Reply::Data(bytes) => {
                owed += Request::stream_cost(bytes.len()) as u32;
                if owed > 100_000 {
                    host.send_as(number, Request::Credit(owed));
                    owed = 0;
                }
                received.extend_from_slice(&bytes);
                while received.len() >= PIECE {
                    assert!(received[..PIECE] == piece(next), "piece {next}");
                    received.drain(..PIECE);
                    next += 1;
                }
            }
            Reply::End { total, truncated } => {
                assert_eq!((total, truncated), (SIZE, false));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((next, received.len()), (SIZE / PIECE as u64, 0));
    let grown = agent.peak() - before;
    assert!(grown < 8 << 20, "the agent's memory grew by {grown} bytes");
}

#[test]
fn a_gibibyte_of_output_is_bounded_in_the_agent_too() {
    let agent = Running::start("output", true, None);
    let mut host = agent.connect();
    host.hello(TOKEN).expect("a welcome");
    let before = agent.peak();
    let ran = host.run(shell("head -c 1073741824 /dev/zero"));
    assert_eq!(ran.outcome.stdout_bytes, 1 << 30);
    assert!(ran.outcome.stdout_truncated);
    assert_eq!(ran.stdout.len(), 1 << 20);
    let grown = agent.peak() - before;
    assert!(grown < 8 << 20, "the agent's memory grew by {grown} bytes");
}

#[test]
fn a_wrong_token_is_refused_and_the_connection_closed() {
    let agent = Running::start("token", true, None);
    for wrong in [&b""[..], b"a token for the tests!", b"a token for the test"] {
        let mut host = agent.connect();
        let (code, message) = host.hello(wrong).expect_err("refused");
        assert_eq!(code, FailureCode::WrongToken);
        assert!(!message.contains("a token for"), "{message}");
        let mut rest = Vec::new();
        // The agent closes with bytes of ours unread at times, which resets the connection.
        match host.stream.read_to_end(&mut rest) {
            Ok(0) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
            Ok(more) => panic!("{more} bytes after the refusal"),
        }
    }
    agent.connect().hello(TOKEN).expect("a welcome");
}

#[test]
fn whoever_speaks_before_showing_the_token_is_told_nothing() {
    let agent = Running::start("before", true, None);
    let mut host = agent.connect();
    host.send(Request::Run(shell("touch harm")));
    let mut answer = Vec::new();
    host.stream.read_to_end(&mut answer).expect("the end");
    assert!(answer.is_empty());
    assert!(!agent.folder.join("uploads/harm").exists());
}

#[test]
fn without_a_token_tcp_is_closed_until_the_host_hands_one_over() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let agent = Running::start("hand", false, Some(theirs));
    let (code, _) = agent.connect().hello(TOKEN).expect_err("refused");
    assert_eq!(code, FailureCode::NoToken);

    let mut port = Host::silent(ours, 9);
    port.hello(b"").expect("a welcome");
    let short = port.call(Request::Authorize {
        token: b"short".to_vec(),
    });
    assert_eq!(failure(&short), Some(FailureCode::BadRequest));
    assert_eq!(
        port.call(Request::Authorize {
            token: TOKEN.to_vec()
        }),
        Reply::Done
    );

    let mut host = agent.connect();
    host.hello(TOKEN).expect("a welcome");
    let other = Request::Authorize {
        token: b"one of my own choosing".to_vec(),
    };
    assert_eq!(failure(&host.call(other)), Some(FailureCode::Denied));
    assert_eq!(host.run(shell("echo over tcp")).stdout, b"over tcp\n");
}

#[test]
fn connections_beyond_the_bound_are_closed() {
    let agent = Running::start("many", true, None);
    let mut open: Vec<Host<TcpStream>> = (0..8).map(|_| agent.connect()).collect();
    for host in &mut open {
        host.hello(TOKEN).expect("a welcome");
    }
    let mut extra = TcpStream::connect(&agent.address).expect("a connection");
    extra.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let closed = extra.read(&mut [0; 1]);
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert!(matches!(open[7].call(Request::Ping), Reply::Pong(_)));
}

#[test]
fn programs_do_not_inherit_the_agents_protection_from_memory_pressure() {
    let agent = Running::start("oom", true, None);
    let mut host = agent.connect();
    host.hello(TOKEN).expect("a welcome");
    // The protection goes right after the start.
    let ran = host.run(shell(
        "until [ \"$(cat /proc/self/oom_score_adj)\" = 0 ]; do sleep 0.01; done; \
         cat /proc/self/oom_score_adj",
    ));
    assert_eq!(ran.stdout, b"0\n");
}

#[test]
fn wrong_arguments_are_told_with_what_would_be_right() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_see-agent"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the agent");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    };
    assert_eq!(run(&["--version"]).0, Some(0));
    assert!(run(&["--help"]).1.contains("--token-file"));
    let (code, text) = run(&[]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("--serial /dev/virtio-ports/org.see.agent.0"),
        "{text}"
    );
    let (code, text) = run(&["--port", "1"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("\"--port\" is not an option"), "{text}");
    assert_eq!(run(&["--tcp"]).0, Some(2));
}
