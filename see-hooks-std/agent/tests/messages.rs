//! Messages by hand: their bounds, and what other versions of the protocol may send.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::*;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use support::shell;

#[test]
fn requests_that_are_too_long_for_a_frame_are_refused_by_the_sender() {
    let mut run = shell("");
    run.program.arguments = vec![vec![b'x'; MAX_BODY]];
    let refused = Request::Run(run).into_frame(1, 1);
    assert!(
        matches!(refused, Err(ProtocolError::TooLong { .. })),
        "{refused:?}"
    );
    let frame = Frame {
        session: 1,
        request: 1,
        kind: 1,
        body: vec![0; MAX_BODY + 1],
    };
    assert_eq!(
        frame.encode(),
        Err(ProtocolError::TooLong {
            found: MAX_BODY + 1
        })
    );
}

/// A message that was written by somebody else.
fn message(body: &[u8]) -> Frame {
    Frame {
        session: 1,
        request: 1,
        kind: 0,
        body: body.to_vec(),
    }
}

#[test]
fn counts_beyond_the_bounds_are_refused() {
    let run = Run {
        program: Program {
            arguments: vec![Vec::new(); MAX_ARGUMENTS + 1],
            ..Program::default()
        },
        ..shell("")
    };
    let target = ProbeTarget::Ping(Ipv4Addr::LOCALHOST.into());
    let probe = Probe {
        patience: Duration::ZERO,
        targets: vec![target; MAX_TARGETS + 1],
    };
    for request in [Request::Run(run), Request::Probe(probe)] {
        let frame = request.into_frame(1, 1).expect("fits");
        let refused = Request::from_frame(frame);
        assert!(
            matches!(refused, Err(ProtocolError::OutOfRange { .. })),
            "{refused:?}"
        );
    }
    // A list is bounded by the number of its entries, so each has to be.
    let file = FileInfo {
        name: vec![b'x'; 1025],
        ..FileInfo::default()
    };
    let process = Process {
        command_line: vec![b'x'; 1025],
        ..Process::default()
    };
    for reply in [
        Reply::Probed(vec![Finding::Silent; MAX_TARGETS + 1]),
        Reply::Files(vec![file]),
        Reply::Processes(vec![process]),
    ] {
        let refused = Reply::from_frame(reply.into_frame(1, 1).expect("fits"));
        assert!(
            matches!(refused, Err(ProtocolError::OutOfRange { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn lengths_that_are_only_claimed_are_refused_before_anything_is_made() {
    // `{"run": {"program": {"arguments": [` as many as 64 bits count, and a byte string as long.
    let arguments =
        b"\xA1\x63run\xA1\x67program\xA1\x69arguments\x9B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
    let token = b"\xA1\x69authorize\xA1\x65token\x5B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
    for body in [&arguments[..], &token[..]] {
        let refused = Request::from_frame(message(body));
        assert!(
            matches!(refused, Err(ProtocolError::Malformed(_))),
            "{refused:?}"
        );
    }
    // A value within a value within a value, as deep as a frame has room for.
    let deep = [&b"\xA1\x64kill\xA1\x63why"[..], &[0x81; MAX_BODY - 11]].concat();
    let refused = Request::from_frame(message(&deep));
    assert!(
        matches!(refused, Err(ProtocolError::Malformed(_))),
        "{refused:?}"
    );
}

#[test]
fn fields_of_a_later_version_are_passed_over_and_fields_that_may_be_left_out_have_their_defaults() {
    // `{"kill": {"job": 7, "why": ["late"]}}`
    let kill = b"\xA1\x64kill\xA2\x63job\x07\x63why\x81\x64late";
    let read = Request::from_frame(message(kill));
    assert_eq!(read, Ok(Request::Kill { job: 7 }));
    // `{"exited": {"exit": {"code": 3}, "cores": 2}}`
    let exited = b"\xA1\x66exited\xA2\x64exit\xA1\x64code\x03\x65cores\x02";
    let outcome = Outcome {
        exit: Exit::Code(3),
        ..Outcome::default()
    };
    assert_eq!(
        Reply::from_frame(message(exited)),
        Ok(Reply::Exited(outcome))
    );
    // `{"failed": {"code": "tired", "message": ""}}`
    let failed = b"\xA1\x66failed\xA2\x64code\x65tired\x67message\x60";
    let read = Reply::from_frame(message(failed));
    assert_eq!(read, Ok(Reply::failed(FailureCode::Other, "")));
    // `"dance"`, which no version before it knows.
    let refused = Request::from_frame(message(b"\x65dance"));
    let Err(ProtocolError::Malformed(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("unknown variant `dance`"), "{why}");
}

#[test]
fn the_largest_probe_and_its_answer_fit_a_frame() {
    let server = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), u16::MAX);
    let target = ProbeTarget::Dns(server, "x".repeat(MAX_NAME));
    let probe = Probe {
        patience: MAX_PROBE_PATIENCE,
        targets: vec![target; MAX_TARGETS],
    };
    assert!(Request::Probe(probe).into_frame(1, 1).is_ok());
    let finding = Finding::Answered("x".repeat(4 * MAX_FINDING));
    let answer = Reply::Probed(vec![finding; MAX_TARGETS]);
    assert!(answer.into_frame(1, 1).is_ok());
}
