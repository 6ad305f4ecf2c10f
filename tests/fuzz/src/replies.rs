//! The host's side: whatever a guest answers, to every sort of request at once.

use crate::wire::{Dough, bake};
use see_agent::protocol::{
    Decoder, Frame, Info, PADDING, Placement, ProbeTarget, Program, Reply, Run, Stream, Upload,
    VERSION,
};
use see_hooks_std::client::{Client, ClientError, Progress};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, Runtime};

/// The guest hangs up when it has sent everything, so that nothing ever waits this long.
const LONG: Duration = Duration::from_secs(60);
/// The most that the host takes of anything.
const LIMIT: usize = 1000;
/// How many frames the host sends: nine requests, and the content of one of them with its end.
const FRAMES: usize = 11;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
}

/// A guest that welcomes the host and then answers with these bytes. The host takes no more than it asked
/// for, and ends every request.
pub(crate) fn agent_replies(bytes: &[u8]) -> bool {
    let (ours, theirs) = tokio::io::duplex(1 << 18);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (answered, ()) = tokio::join!(host(ours), guest(theirs, bytes));
            answered
        })
    })
}

async fn guest(mut line: DuplexStream, bytes: &[u8]) {
    let mut padding = vec![0; PADDING];
    if line.read_exact(&mut padding).await.is_err() {
        return;
    }
    let mut decoder = Decoder::default();
    let hello = next(&mut line, &mut decoder).await.expect("a hello");
    let info = Info {
        protocol: VERSION,
        ..Info::default()
    };
    let welcome = Reply::Welcome(Box::new(info)).into_frame(hello.session, hello.request);
    let welcome = welcome.and_then(|frame| frame.encode()).expect("it fits");
    if line.write_all(&welcome).await.is_err() {
        return;
    }
    for _ in 0..FRAMES {
        if next(&mut line, &mut decoder).await.is_none() {
            return;
        }
    }
    let wire = bake(&mut Dough::new(bytes), hello.session);
    // The host hangs up on a guest that breaks the protocol; else it takes everything.
    drop(line.write_all(&wire).await);
}

/// The next frame of the host.
async fn next(line: &mut DuplexStream, decoder: &mut Decoder) -> Option<Frame> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(frame) = decoder.next_frame() {
            return Some(frame);
        }
        let length = line
            .read(&mut buffer)
            .await
            .ok()
            .filter(|length| *length > 0)?;
        decoder.push(&buffer[..length]);
    }
}

fn program() -> Run {
    Run {
        program: Program::default(),
        placement: Placement::Foreground { input: false },
        deadline: LONG,
        stdout_limit: LIMIT as u64,
        stderr_limit: LIMIT as u64,
    }
}

/// Makes one request of each sort; says whether any was answered.
async fn host(line: DuplexStream) -> bool {
    let client = Client::connect(line, b"", LONG).await;
    let client = client.expect("the guest welcomes whoever comes");
    let upload = Upload {
        name: b"file".to_vec(),
        mode: 0o600,
        size: 3,
    };
    let target = ProbeTarget::Ping(Ipv4Addr::LOCALHOST.into());
    let mut taken = Vec::new();
    let (ping, processes, downloaded, job, probe, stored, ran, listed, found) = tokio::join!(
        client.ping(LONG),
        client.processes(LONG),
        client.download("/file", LIMIT as u64, &mut taken, LONG),
        client.job(1, (0, 0), LIMIT, LONG),
        client.probe(std::slice::from_ref(&target), LONG),
        client.upload(upload, &b"abc"[..], LONG),
        run(&client),
        client.list("/folder", LONG),
        client.stat("/file", LONG),
    );
    assert!(taken.len() <= LIMIT, "more of a file than was asked for");
    if let Ok(report) = &job {
        assert!(report.stdout.len().max(report.stderr.len()) <= LIMIT);
    }
    if let Ok(findings) = &probe {
        assert_eq!(findings.len(), 1);
    }
    ping.is_ok()
        || processes.is_ok()
        || listed.is_ok()
        || found.is_ok()
        || downloaded.is_ok()
        || job.is_ok()
        || probe.is_ok()
        || stored.is_ok()
        || ran.is_ok()
}

/// Runs a program to its end.
async fn run(client: &Client) -> Result<(), ClientError> {
    let mut execution = client.run(program(), LONG).await?;
    let mut taken = [0; 2];
    loop {
        match execution.next().await? {
            Progress::Output { stream, bytes } => {
                let taken = &mut taken[usize::from(stream == Stream::Stderr)];
                *taken += bytes.len();
                assert!(*taken <= LIMIT, "more output than was asked for");
            }
            Progress::Exited(_) => return Ok(()),
        }
    }
}
