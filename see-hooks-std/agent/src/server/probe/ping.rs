//! Echo requests, by the system's own `ping`: a socket for them takes a system call that the standard
//! library does not offer.

use super::routes::{is_own, links};
use crate::platform;
use crate::protocol::Finding;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a running `ping` is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take beyond the time for an answer.
const GRACE: Duration = Duration::from_secs(3);
/// The most of its output that is read.
const MAX_OUTPUT: u64 = 16 << 10;

/// Sends echo requests; the port of `way` means nothing.
pub(super) fn ping(way: SocketAddr, patience: Duration) -> Finding {
    let mut text = way.ip().to_string();
    if let SocketAddr::V6(way) = way
        && way.scope_id() != 0
    {
        let Some(link) = links().into_iter().find(|it| it.number == way.scope_id()) else {
            return Finding::Unreachable;
        };
        text = format!("{text}%{}", link.name);
    }
    let seconds = patience.as_secs_f64().ceil().max(1.0) as u64;
    for mut command in platform::pings(&text, seconds, way.ip().is_multicast()) {
        match output(&mut command, patience + GRACE) {
            Ok(output) => return judge(&output),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Finding::Untried(format!("`ping`: {error}")),
        }
    }
    Finding::Untried("the guest has no program `ping`".to_owned())
}

/// What a program printed until its end, or until it was ended.
fn output(command: &mut Command, time: Duration) -> io::Result<Vec<u8>> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let until = Instant::now() + time;
    // A pipe holds all that a few echoes print, so that waiting first holds nobody up.
    while child.try_wait()?.is_none() {
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            break;
        }
        thread::sleep(LOOK);
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_OUTPUT).read_to_end(&mut output)?;
    }
    Ok(output)
}

/// What the output tells: each answer has a line like `64 bytes from 10.1.1.1: …`.
fn judge(output: &[u8]) -> Finding {
    let output = String::from_utf8_lossy(output);
    let sender = |line: &str| {
        let (_, rest) = line.split_once(" from ")?;
        let word = rest.split_ascii_whitespace().next()?;
        let word = word.strip_suffix(':').unwrap_or(word);
        word.split('%').next()?.parse::<IpAddr>().ok()
    };
    let is_answer = |line: &&str| line.contains("bytes from ") || line.contains("TTL=");
    let mut senders = output.lines().filter(is_answer).filter_map(sender);
    // The guest hears what it sends to a group of which it is part.
    match senders.find(|address| !is_own(*address)) {
        Some(address) => Finding::Answered(format!("{address} answers echo requests")),
        None => Finding::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_the_rest_in_every_dialect() {
        let answers = [
            "PING 10.1.1.1 (10.1.1.1): 56 data bytes\n64 bytes from 10.1.1.1: seq=0 ttl=64 time=0.1 ms\n",
            "64 bytes from 10.1.1.1: icmp_seq=1 ttl=64 time=0.05 ms\n",
            "64 bytes from fe80::1%eth0: icmp_seq=1 ttl=64 time=0.1 ms\n",
            "64 bytes from fe80::1: seq=0 ttl=64 time=0.1 ms\n",
            "Reply from 10.1.1.1: bytes=32 time<1ms TTL=128\r\n",
        ];
        for output in answers {
            let found = judge(output.as_bytes());
            assert!(matches!(found, Finding::Answered(_)), "{output}: {found:?}");
        }
        let silence = [
            "",
            "From 10.1.1.2 icmp_seq=1 Destination Host Unreachable\n",
            "1 packets transmitted, 0 packets received, 100% packet loss\n",
            "Reply from 10.1.1.2: Destination host unreachable.\r\n",
            "64 bytes from nowhere: seq=0\n",
        ];
        for output in silence {
            assert_eq!(judge(output.as_bytes()), Finding::Silent, "{output}");
        }
    }
}
