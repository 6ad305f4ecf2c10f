//! The example of `docs/agent-protocol.md`, byte for byte.

use see_agent::protocol::*;
use std::time::Duration;

const DOCUMENT: &str = include_str!("../../../docs/agent-protocol.md");
const SESSION: u64 = 0x0123_4567_89AB_CDEF;

/// The bytes of each block of the document that is a frame.
fn frames() -> Vec<Vec<u8>> {
    let blocks = DOCUMENT.split("```frame\n").skip(1);
    let byte = |text| u8::from_str_radix(text, 16).expect("a hexadecimal number");
    blocks
        .map(|block| block.split("```").next().unwrap_or_default())
        .map(|block| block.split_whitespace().map(byte).collect())
        .collect()
}

fn program() -> Run {
    let bytes = |text: &str| text.as_bytes().to_vec();
    Run {
        program: Program {
            shell: bytes("echo hello; exit 3"),
            environment: vec![(bytes("LANG"), bytes("C"))],
            ..Program::default()
        },
        placement: Placement::default(),
        deadline: Duration::from_secs(10),
        stdout_limit: 1 << 20,
        stderr_limit: 1 << 20,
    }
}

#[test]
fn the_example_of_the_document_is_what_host_and_agent_send() {
    let info = Info {
        agent: "0.1.0".to_owned(),
        protocol: VERSION,
        system: "linux".to_owned(),
        release: "6.1.0".to_owned(),
        architecture: "x86_64".to_owned(),
        hostname: "guest".to_owned(),
        folder: b"/root/samples".to_vec(),
        instance: 42,
        unix_milliseconds: 1_700_000_000_000,
    };
    let outcome = Outcome {
        exit: Exit::Code(3),
        stdout_bytes: 6,
        elapsed: Duration::from_millis(12),
        ..Outcome::default()
    };
    let output = Reply::Output {
        stream: Stream::Stdout,
        bytes: b"hello\n".to_vec(),
    };
    let hello = Request::Hello {
        version: VERSION,
        token: Vec::new(),
    };
    let sent = [
        hello.into_frame(SESSION, 1),
        Reply::Welcome(Box::new(info)).into_frame(SESSION, 1),
        Request::Run(program()).into_frame(SESSION, 2),
        Reply::Started { job: 0, pid: 77 }.into_frame(SESSION, 2),
        output.into_frame(SESSION, 2),
        Request::Credit(38).into_frame(SESSION, 2),
        Reply::Exited(outcome).into_frame(SESSION, 2),
    ];
    let sent = sent.map(|frame| frame.and_then(|frame| frame.encode()).expect("fits"));
    assert_eq!(frames(), sent);
    assert_eq!(sent[4].len(), 38, "what the credit is for");
}

#[test]
fn the_numbers_of_the_document_are_those_of_the_protocol() {
    let grouped = |number: usize| match number {
        small @ ..1000 => small.to_string(),
        large => format!("{},{:03}", large / 1000, large % 1000),
    };
    let words = [
        format!("protocol's version {VERSION}"),
        format!("a header of {HEADER} bytes"),
        format!("at most {} bytes", grouped(MAX_BODY)),
        format!("{} zero bytes", grouped(PADDING)),
        format!("{} bytes under way", grouped(WINDOW)),
        format!(
            "At most {MAX_REQUESTS} may be open at once, and besides them {MAX_SHORT_REQUESTS}"
        ),
        format!("a token of {MIN_TOKEN} to {MAX_TOKEN} bytes"),
        CHANNEL.to_owned(),
    ];
    let document = DOCUMENT.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(document.contains(&word), "{word} is not in the document");
    }
}
