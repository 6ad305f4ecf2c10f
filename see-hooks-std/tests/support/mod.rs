//! Real agents in this process, and raw guests that answer byte by byte.

use see_agent::protocol::{Outcome, Placement, Program, Run, Stream};
use see_agent::server::{Agent, Settings, Trust, serve_connection};
use see_hooks_std::client::{Execution, Progress};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use tokio::net::UnixStream;

/// How long a test waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An agent's folder; it goes with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the folder");
        entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removing the agent's folder");
    }
}

/// A real agent at the other end of a socket.
pub(crate) fn agent(test: &str) -> (UnixStream, Folder) {
    let path = std::env::temp_dir().join(format!("see-client-{test}-{}", std::process::id()));
    let folder = Folder(path);
    (serve(folder.path()), folder)
}

/// A real agent with this folder.
pub(crate) fn serve(folder: &Path) -> UnixStream {
    let agent = Agent::new(Settings::new(folder)).expect("an agent");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let writer = theirs.try_clone().expect("a clone");
    thread::spawn(move || serve_connection(&agent, theirs, writer, Trust::Reached));
    ours.set_nonblocking(true).expect("non-blocking");
    UnixStream::from_std(ours).expect("a stream")
}

/// One line to an agent that two hosts use, as a port that is handed over: what the agent sends
/// comes to both, what either sends goes to it.
pub(crate) fn shared_line(line: UnixStream) -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (first, mut first_end) = tokio::io::duplex(1 << 20);
    let (second, mut second_end) = tokio::io::duplex(1 << 20);
    let mut line = line;
    tokio::spawn(async move {
        let mut buffers = [vec![0; 1 << 16], vec![0; 1 << 16], vec![0; 1 << 16]];
        loop {
            let [a, b, c] = &mut buffers;
            // Whoever hangs up first ends the line.
            let passed = tokio::select! {
                n = first_end.read(a) => line.write_all(&a[..n.unwrap_or(0)]).await,
                n = second_end.read(b) => line.write_all(&b[..n.unwrap_or(0)]).await,
                n = line.read(c) => {
                    let bytes = &c[..n.unwrap_or(0)];
                    match first_end.write_all(bytes).await {
                        Ok(()) => second_end.write_all(bytes).await,
                        failed => failed,
                    }
                }
            };
            if passed.is_err() {
                return;
            }
        }
    });
    (first, second)
}

/// A shell script as a program.
pub(crate) fn shell(script: &str) -> Run {
    Run {
        program: Program {
            arguments: vec![
                b"/bin/sh".to_vec(),
                b"-c".to_vec(),
                script.as_bytes().to_vec(),
            ],
            ..Program::default()
        },
        placement: Placement::Foreground { input: false },
        deadline: Duration::from_secs(20),
        stdout_limit: 1 << 20,
        stderr_limit: 1 << 20,
    }
}

/// Everything that a program does until its end.
pub(crate) async fn collect(mut execution: Execution) -> (Vec<u8>, Vec<u8>, Outcome) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match execution.next().await.expect("progress") {
            Progress::Output {
                stream: Stream::Stdout,
                bytes,
            } => stdout.extend(bytes),
            Progress::Output {
                stream: Stream::Stderr,
                bytes,
            } => stderr.extend(bytes),
            Progress::Exited(outcome) => return (stdout, stderr, outcome),
        }
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !so() {
        assert!(tokio::time::Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The guest's end of a line, by hand.
pub(crate) mod raw_guest {
    use see_agent::protocol::{Decoder, Frame, Info, Reply, Request, VERSION};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    /// As many frames that `wanted` wants.
    async fn frames(
        guest: &mut DuplexStream,
        count: usize,
        wanted: impl Fn(&Frame) -> bool,
    ) -> Vec<Frame> {
        // One byte more each time would be slow; what follows the frames is not needed by any test.
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 1 << 16];
        let mut frames = Vec::new();
        while frames.len() < count {
            let length = guest.read(&mut buffer).await.expect("a frame");
            assert!(length > 0, "the host hung up");
            decoder.push(&buffer[..length]);
            while let Some(frame) = decoder.next_frame() {
                if wanted(&frame) {
                    frames.push(frame);
                }
            }
        }
        frames
    }

    pub(crate) fn info() -> Box<Info> {
        Box::new(Info {
            protocol: VERSION,
            ..Info::default()
        })
    }

    /// Waits for a hello; gives its session and number.
    pub(crate) async fn hello(guest: &mut DuplexStream) -> (u64, u32) {
        let frame = frames(guest, 1, |_| true).await.remove(0);
        (frame.session, frame.request)
    }

    /// Answers a hello; gives the session.
    pub(crate) async fn welcome(guest: &mut DuplexStream) -> u64 {
        let (session, number) = hello(guest).await;
        send(guest, session, number, Reply::Welcome(info())).await;
        session
    }

    /// The next request that is no hello.
    pub(crate) async fn request(guest: &mut DuplexStream, session: u64) -> (u32, Request) {
        requests(guest, session, 1).await.remove(0)
    }

    /// The next requests that are no hello.
    pub(crate) async fn requests(
        guest: &mut DuplexStream,
        session: u64,
        count: usize,
    ) -> Vec<(u32, Request)> {
        let request = |frame: Frame| {
            (
                frame.request,
                Request::from_frame(frame).expect("a request"),
            )
        };
        let is_hello = |frame: &Frame| {
            matches!(
                Request::from_frame(frame.clone()),
                Ok(Request::Hello { .. })
            )
        };
        let wanted = |frame: &Frame| frame.session == session && !is_hello(frame);
        let frames = frames(guest, count, wanted).await;
        frames.into_iter().map(request).collect()
    }

    pub(crate) async fn send(guest: &mut DuplexStream, session: u64, number: u32, reply: Reply) {
        let frame = reply.into_frame(session, number).expect("fits");
        guest
            .write_all(&frame.encode().expect("fits"))
            .await
            .expect("the host");
    }
}
