//! The wire, by chance: what goes in comes out, and nothing else does any harm.

use see_agent::protocol::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Marsaglia's xorshift: enough chance for tests, the same every time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn flag(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self) -> String {
        let length = self.below(40);
        (0..length)
            .map(|_| char::from(b' ' + self.below(90) as u8))
            .collect()
    }

    fn run(&mut self) -> Run {
        Run {
            program: Program {
                arguments: (0..self.below(20)).map(|_| self.bytes(100)).collect(),
                environment: (0..self.below(20))
                    .map(|_| (self.bytes(20), self.bytes(100)))
                    .collect(),
                shell: self.bytes(100),
                user: self.text(),
                clear_environment: self.flag(),
                folder: self.bytes(100),
            },
            placement: match self.below(3) {
                0 => Placement::Background,
                _ => Placement::Foreground { input: self.flag() },
            },
            deadline: Duration::from_millis(self.next() % 604_800_001),
            stdout_limit: self.next(),
            stderr_limit: self.next(),
        }
    }

    fn upload(&mut self) -> Upload {
        Upload {
            name: self.bytes(MAX_NAME),
            mode: self.below(0o1000) as u32,
            size: self.next(),
        }
    }

    fn socket(&mut self) -> SocketAddr {
        let ip: IpAddr = match self.flag() {
            true => Ipv4Addr::from(self.next() as u32).into(),
            false => Ipv6Addr::from(u128::from(self.next())).into(),
        };
        SocketAddr::new(ip, self.next() as u16)
    }

    fn target(&mut self) -> ProbeTarget {
        match self.below(4) {
            0 => ProbeTarget::Tcp(self.socket()),
            1 => ProbeTarget::Udp(self.socket()),
            2 => ProbeTarget::Ping(self.socket().ip()),
            _ => ProbeTarget::Dns(self.socket(), self.text()),
        }
    }

    fn finding(&mut self) -> Finding {
        match self.below(4) {
            0 => Finding::Silent,
            1 => Finding::Answered(self.text()),
            2 => Finding::Unreachable,
            _ => Finding::Untried(self.text()),
        }
    }

    fn request(&mut self) -> Request {
        match self.below(21) {
            16 => Request::Signal(self.next() as i32),
            17 => Request::List {
                path: self.bytes(300),
            },
            18 => Request::Stat {
                path: self.bytes(300),
            },
            19 => Request::MakeFolder {
                path: self.bytes(300),
            },
            20 => Request::Remove {
                path: self.bytes(300),
            },
            0 => Request::Hello {
                version: self.next() as u16,
                token: self.bytes(MAX_TOKEN),
            },
            1 => Request::Ping,
            2 => Request::Authorize {
                token: self.bytes(MAX_TOKEN),
            },
            3 => Request::Run(self.run()),
            4 => Request::Upload(self.upload()),
            5 => Request::UploadRun(self.upload(), self.run()),
            6 => Request::Download {
                path: self.bytes(1000),
                limit: self.next(),
            },
            7 => Request::Processes,
            8 => Request::SetClock {
                unix_seconds: self.next(),
            },
            9 => Request::Job {
                job: self.next() as u32,
                stdout_from: self.next(),
                stderr_from: self.next(),
            },
            10 => Request::Kill {
                job: self.next() as u32,
            },
            11 => Request::Data(self.bytes(3000)),
            12 => Request::End,
            13 => Request::Credit(self.next() as u32),
            14 => Request::Probe(Probe {
                patience: Duration::from_millis(self.next() % 10_001),
                targets: (0..self.below(MAX_TARGETS + 1))
                    .map(|_| self.target())
                    .collect(),
            }),
            _ => Request::Cancel,
        }
    }

    fn info(&mut self) -> Box<Info> {
        Box::new(Info {
            agent: self.text(),
            protocol: self.next() as u16,
            system: self.text(),
            release: self.text(),
            architecture: self.text(),
            hostname: self.text(),
            folder: self.bytes(100),
            instance: self.next(),
            unix_milliseconds: self.next(),
        })
    }

    fn outcome(&mut self) -> Outcome {
        let number = self.next() as i32;
        Outcome {
            exit: match self.below(3) {
                0 => Exit::Code(number),
                1 => Exit::Signal(number),
                _ => Exit::Unknown,
            },
            timed_out: self.flag(),
            killed: self.flag(),
            stdout_truncated: self.flag(),
            stderr_truncated: self.flag(),
            output_held: self.flag(),
            stdout_bytes: self.next(),
            stderr_bytes: self.next(),
            elapsed: Duration::from_millis(self.next()),
        }
    }

    fn file(&mut self) -> FileInfo {
        FileInfo {
            name: self.bytes(64),
            kind: match self.below(4) {
                0 => FileKind::File,
                1 => FileKind::Folder,
                2 => FileKind::Link,
                _ => FileKind::Other,
            },
            size: self.next(),
            mode: self.next() as u32,
            modified: Duration::from_millis(self.next()),
        }
    }

    fn reply(&mut self) -> Reply {
        match self.below(17) {
            15 => Reply::File(self.file()),
            16 => Reply::Files((0..self.below(30)).map(|_| self.file()).collect()),
            0 => Reply::Welcome(self.info()),
            1 => Reply::Pong(self.info()),
            2 => Reply::Started {
                job: self.next() as u32,
                pid: self.next() as u32,
            },
            3 => Reply::Output {
                stream: Stream::Stdout,
                bytes: self.bytes(3000),
            },
            4 => Reply::Output {
                stream: Stream::Stderr,
                bytes: self.bytes(3000),
            },
            5 => Reply::Exited(self.outcome()),
            6 => Reply::Stored {
                path: self.bytes(300),
                size: self.next(),
            },
            7 => Reply::Data(self.bytes(3000)),
            8 => Reply::Processes(
                (0..self.below(30))
                    .map(|_| Process {
                        pid: self.next() as u32,
                        parent: self.next() as u32,
                        name: self.bytes(64),
                        command_line: self.bytes(1024),
                    })
                    .collect(),
            ),
            9 => Reply::End {
                total: self.next(),
                truncated: self.flag(),
            },
            10 => Reply::Job(match self.flag() {
                true => JobState::Running,
                false => JobState::Ended(self.outcome()),
            }),
            11 => Reply::Done,
            12 => Reply::failed(FailureCode::Busy, self.text()),
            13 => Reply::Probed(
                (0..self.below(MAX_TARGETS + 1))
                    .map(|_| self.finding())
                    .collect(),
            ),
            _ => Reply::Credit(self.next() as u32),
        }
    }
}

#[test]
fn every_request_and_reply_survives_the_wire() {
    let mut chance = Chance(0x5EE_0001);
    for _ in 0..20_000 {
        let (session, number) = (chance.next(), chance.next() as u32);
        let request = chance.request();
        let frame = request.clone().into_frame(session, number).expect("fits");
        assert_eq!((frame.session, frame.request), (session, number));
        assert_eq!(Request::from_frame(frame), Ok(request));
        let reply = chance.reply();
        let frame = reply.clone().into_frame(session, number).expect("fits");
        assert_eq!(Reply::from_frame(frame), Ok(reply));
    }
}

#[test]
fn frames_are_found_whatever_the_pieces_and_the_noise_between() {
    let mut chance = Chance(0x5EE_0002);
    for _ in 0..300 {
        let mut wire = Vec::new();
        let mut sent = Vec::new();
        let mut noise = 0;
        for _ in 0..chance.below(20) {
            if chance.flag() {
                // Noise that looks like the start of a frame as well.
                let mut bytes = chance.bytes(200);
                if chance.flag() {
                    bytes.extend_from_slice(&[0xA5, b'S', b'E', b'E']);
                }
                noise += bytes.len() as u64;
                wire.extend_from_slice(&bytes);
            }
            let frame = chance.request().into_frame(7, 1).expect("fits");
            wire.extend_from_slice(&frame.encode().expect("fits"));
            sent.push(frame);
        }
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + chance.below(700)).min(rest.len()));
            decoder.push(piece);
            found.extend(std::iter::from_fn(|| decoder.next_frame()));
            rest = after;
        }
        assert_eq!(found, sent);
        assert_eq!((decoder.skipped(), decoder.damaged()), (noise, 0));
    }
}

#[test]
fn a_frame_cut_off_anywhere_costs_only_itself_once_padding_follows() {
    let frame = Request::Data(vec![0x5A; 5000])
        .into_frame(1, 1)
        .expect("fits");
    let hello = Request::Hello {
        version: VERSION,
        token: Vec::new(),
    }
    .into_frame(2, 1)
    .expect("fits");
    let bytes = frame.encode().expect("fits");
    for cut in (0..bytes.len()).step_by(7) {
        let mut decoder = Decoder::default();
        decoder.push(&bytes[..cut]);
        decoder.push(&[0; PADDING]);
        decoder.push(&hello.encode().expect("fits"));
        let found: Vec<Frame> = std::iter::from_fn(|| decoder.next_frame()).collect();
        assert_eq!(found, std::slice::from_ref(&hello), "cut at {cut}");
    }
}

#[test]
fn frames_in_place_of_a_body_that_was_cut_off_are_found() {
    let cut = Request::Data(vec![0x5A; 5000])
        .into_frame(1, 1)
        .expect("fits");
    let bytes = cut.encode().expect("fits");
    let sent: Vec<Frame> = (1..200)
        .map(|number| Request::Ping.into_frame(2, number).expect("fits"))
        .collect();
    let mut decoder = Decoder::default();
    decoder.push(&bytes[..100]);
    let mut found = Vec::new();
    for frame in &sent {
        decoder.push(&frame.encode().expect("fits"));
        found.extend(std::iter::from_fn(|| decoder.next_frame()));
    }
    // Their bytes are more than the body lacks, so that none waits any more.
    assert_eq!(found, sent);
    assert_eq!((decoder.skipped(), decoder.damaged()), (100, 1));
}

#[test]
fn any_flipped_bit_is_noticed() {
    let mut chance = Chance(0x5EE_0003);
    let frame = Request::Data(chance.bytes(300))
        .into_frame(3, 4)
        .expect("fits");
    let whole = frame.encode().expect("fits");
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes.extend_from_slice(&[0; PADDING]);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert_eq!(decoder.next_frame(), None, "bit {bit}");
    }
}

#[test]
fn damaged_bodies_are_refused_or_understood_and_what_is_understood_survives_the_wire() {
    let mut chance = Chance(0x5EE_0004);
    for _ in 0..50_000 {
        let frame = match chance.flag() {
            true => chance.request().into_frame(1, 1),
            false => chance.reply().into_frame(1, 1),
        };
        let mut frame = frame.expect("fits");
        for _ in 0..=chance.below(3) {
            if !frame.body.is_empty() {
                let at = chance.below(frame.body.len());
                frame.body[at] = chance.next() as u8;
            }
        }
        if let Ok(request) = Request::from_frame(frame.clone()) {
            let again = request.clone().into_frame(1, 1).expect("fits");
            assert_eq!(Request::from_frame(again), Ok(request));
        }
        if let Ok(reply) = Reply::from_frame(frame) {
            let again = reply.clone().into_frame(1, 1).expect("fits");
            assert_eq!(Reply::from_frame(again), Ok(reply));
        }
    }
}
