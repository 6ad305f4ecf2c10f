//! A host for the tests: it speaks the protocol over a blocking stream, one request at a time.

use see_agent::protocol::{
    Decoder, FailureCode, Info, Outcome, PADDING, Placement, Program, Reply, Request, Run, Stream,
    VERSION, WINDOW,
};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::time::Duration;

/// How long a test waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The host's end of a session.
pub(crate) struct Host<S> {
    pub(crate) stream: S,
    pub(crate) session: u64,
    decoder: Decoder,
    waiting: VecDeque<(u32, Reply)>,
    last: u32,
}

/// What a program in the foreground did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// The pieces in the order in which they came.
    pub(crate) pieces: Vec<(Stream, Vec<u8>)>,
}

/// A shell script as a program with a deadline of twenty seconds.
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

impl<S: Read + Write> Host<S> {
    /// A host that has not said hello.
    pub(crate) fn silent(stream: S, session: u64) -> Self {
        Self {
            stream,
            session,
            decoder: Decoder::default(),
            waiting: VecDeque::new(),
            last: 0,
        }
    }

    /// Opens a session; gives what the agent says of itself.
    pub(crate) fn hello(&mut self, token: &[u8]) -> Result<Info, (FailureCode, String)> {
        self.stream.write_all(&[0; PADDING]).expect("writing");
        let token = token.to_vec();
        let number = self.send(Request::Hello {
            version: VERSION,
            token,
        });
        match self.answer(number) {
            Reply::Welcome(info) => Ok(*info),
            Reply::Failed { code, message } => Err((code, message)),
            other => panic!("no answer to a hello: {other:?}"),
        }
    }

    /// Sends a request under a new number.
    pub(crate) fn send(&mut self, request: Request) -> u32 {
        self.last += 1;
        self.send_as(self.last, request);
        self.last
    }

    pub(crate) fn send_as(&mut self, number: u32, request: Request) {
        let frame = request.into_frame(self.session, number).expect("fits");
        self.stream
            .write_all(&frame.encode().expect("fits"))
            .expect("writing");
    }

    fn read(&mut self) -> (u32, Reply) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            while let Some(frame) = self.decoder.next_frame() {
                if frame.session == self.session {
                    let number = frame.request;
                    return (number, Reply::from_frame(frame).expect("a reply"));
                }
            }
            let length = match self.stream.read(&mut buffer) {
                // The end of a child interrupts, in a process that is both host and agent.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                result => result.expect("an answer in time"),
            };
            assert!(length > 0, "the agent hung up");
            self.decoder.push(&buffer[..length]);
        }
    }

    /// The next reply to this request; those to others are kept.
    pub(crate) fn answer(&mut self, number: u32) -> Reply {
        if let Some(at) = self.waiting.iter().position(|(to, _)| *to == number) {
            return self.waiting.remove(at).expect("just found").1;
        }
        loop {
            match self.read() {
                (to, reply) if to == number => return reply,
                other => self.waiting.push_back(other),
            }
        }
    }

    pub(crate) fn call(&mut self, request: Request) -> Reply {
        let number = self.send(request);
        self.answer(number)
    }

    /// Runs a program and collects what it does.
    pub(crate) fn run(&mut self, run: Run) -> Ran {
        let number = self.send(Request::Run(run));
        match self.answer(number) {
            Reply::Started { .. } => self.collect(number),
            other => panic!("the program did not start: {other:?}"),
        }
    }

    /// Collects what a started program does.
    pub(crate) fn collect(&mut self, number: u32) -> Ran {
        self.collect_with(number, |_| {})
    }

    /// The same, and tells how many pieces of output have come, at each.
    pub(crate) fn collect_with(&mut self, number: u32, mut heard: impl FnMut(usize)) -> Ran {
        let mut pieces = Vec::new();
        let outcome = loop {
            match self.answer(number) {
                Reply::Output { stream, bytes } => {
                    let cost = Request::stream_cost(bytes.len()) as u32;
                    self.send_as(number, Request::Credit(cost));
                    pieces.push((stream, bytes));
                    heard(pieces.len());
                }
                Reply::Credit(_) => {}
                Reply::Exited(outcome) => break outcome,
                other => panic!("not a program's answer: {other:?}"),
            }
        };
        let of = |wanted| {
            let wanted = pieces.iter().filter(|(stream, _)| *stream == wanted);
            wanted.flat_map(|(_, bytes)| bytes.clone()).collect()
        };
        Ran {
            outcome,
            stdout: of(Stream::Stdout),
            stderr: of(Stream::Stderr),
            pieces,
        }
    }

    /// Sends the content of an upload or an input, within the window; then its end.
    pub(crate) fn feed(
        &mut self,
        number: u32,
        pieces: impl Iterator<Item = Vec<u8>>,
    ) -> Result<(), Reply> {
        let mut under_way = 0;
        for piece in pieces {
            let cost = Request::stream_cost(piece.len());
            while under_way + cost > WINDOW {
                match self.answer(number) {
                    Reply::Credit(amount) => under_way -= amount as usize,
                    other => return Err(other),
                }
            }
            under_way += cost;
            self.send_as(number, Request::Data(piece));
        }
        self.send_as(number, Request::End);
        Ok(())
    }

    /// The answer to a request that is fed, past the credits.
    pub(crate) fn last_answer(&mut self, number: u32) -> Reply {
        loop {
            match self.answer(number) {
                Reply::Credit(_) => {}
                other => return other,
            }
        }
    }

    /// Stores a file.
    pub(crate) fn upload(&mut self, name: &[u8], mode: u32, content: &[u8]) -> Reply {
        let upload = see_agent::protocol::Upload {
            name: name.to_vec(),
            mode,
            size: content.len() as u64,
        };
        let number = self.send(Request::Upload(upload));
        match self.feed(number, content.chunks(50_000).map(<[u8]>::to_vec)) {
            Ok(()) => self.last_answer(number),
            Err(reply) => reply,
        }
    }

    /// Fetches a file.
    pub(crate) fn download(&mut self, path: &[u8], limit: u64) -> Result<(Vec<u8>, bool), Reply> {
        let number = self.send(Request::Download {
            path: path.to_vec(),
            limit,
        });
        let mut content = Vec::new();
        loop {
            match self.answer(number) {
                Reply::Data(bytes) => {
                    let cost = Request::stream_cost(bytes.len()) as u32;
                    self.send_as(number, Request::Credit(cost));
                    content.extend_from_slice(&bytes);
                }
                Reply::End { total, truncated } => {
                    assert_eq!(total, content.len() as u64);
                    return Ok((content, truncated));
                }
                other => return Err(other),
            }
        }
    }
}

/// The sort of failure that a reply tells.
pub(crate) fn failure(reply: &Reply) -> Option<FailureCode> {
    match reply {
        Reply::Failed { code, .. } => Some(*code),
        _ => None,
    }
}
