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
const GRACE: Duration = Duration::from_secs(6);
/// The most of its output that is read.
const MAX_OUTPUT: u64 = 16 << 10;

/// Sends echo requests; the port of `way` means nothing.
pub(super) fn ping(way: SocketAddr, patience: Duration) -> Finding {
    let mut text = way.ip().to_string();
    let link = match way {
        SocketAddr::V6(way) => way.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    if link != 0 {
        let link = match links() {
            Ok(links) => links.into_iter().find(|it| it.number == link),
            Err(error) => {
                return Finding::Untried(format!("the guest's links cannot be read: {error}"));
            }
        };
        let Some(link) = link else {
            return Finding::Unreachable;
        };
        text = format!("{text}%{}", link.name);
    }
    let seconds = patience.as_secs_f64().ceil().max(1.0) as u64;
    for mut command in platform::pings(&text, seconds, way.ip().is_multicast()) {
        match output(&mut command, patience + GRACE) {
            Ok((told, complaint)) => return judge(&told, &complaint),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Finding::Untried(format!("`ping`: {error}")),
        }
    }
    Finding::Untried("the guest has no program `ping`".to_owned())
}

/// What a program printed, and what it complained of, until its end, or until it was ended.
fn output(command: &mut Command, time: Duration) -> io::Result<(String, String)> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = platform::spawn(command)?;
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
    Ok((read(child.stdout.take())?, read(child.stderr.take())?))
}

fn read(pipe: Option<impl Read>) -> io::Result<String> {
    let mut output = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT).read_to_end(&mut output)?;
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// What the output tells: each answer has a line like `64 bytes from 10.1.1.1: …`. That nobody answers is told by
/// the statistics at the end alone: a `ping` that cannot send has none, or complains.
fn judge(told: &str, complaint: &str) -> Finding {
    let sender = |line: &str| {
        let (_, rest) = line.split_once(" from ")?;
        let word = rest.split_ascii_whitespace().next()?;
        let word = word.strip_suffix(':').unwrap_or(word);
        word.split('%').next()?.parse::<IpAddr>().ok()
    };
    let is_answer = |line: &&str| line.contains("bytes from ") || line.contains("TTL=");
    let mut senders = told.lines().filter(is_answer).filter_map(sender);
    // The guest hears what it sends to a group of which it is part.
    if let Some(address) = senders.find(|address| !is_own(*address)) {
        return Finding::Answered(format!("{address} answers echo requests"));
    }
    // `ping: sendto: Operation not permitted`; on Windows `PING: transmit failed. General failure.`
    let unsent = |line: &&str| line.contains(": send") || line.contains(": transmit failed");
    let mut lines = complaint.lines().chain(told.lines());
    let why = match lines.find(unsent) {
        Some(line) => line.trim(),
        None if told.lines().any(is_statistics) => return Finding::Silent,
        None => match complaint.lines().next() {
            Some(line) => line.trim(),
            None => "`ping` ended without a word on its requests",
        },
    };
    Finding::Untried(why.to_owned())
}

/// Whether a line tells how much was lost, in whatever language: `100% packet loss`, `(100% loss),`.
fn is_statistics(line: &str) -> bool {
    line.match_indices('%').any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + 1..]);
        // An address has the name of its link behind this sign.
        before.ends_with(|c: char| c.is_ascii_digit())
            && !after.starts_with(|c: char| c.is_alphanumeric())
    })
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
            let found = judge(output, "");
            assert!(matches!(found, Finding::Answered(_)), "{output}: {found:?}");
        }
        let lost = "PING fe80::1%eth0 (fe80::1%eth0): 56 data bytes\n\n--- fe80::1%eth0 ping statistics ---\n\
                    1 packets transmitted, 0 packets received, 100% packet loss\n";
        let silence = [
            lost.to_owned(),
            format!("From 10.1.1.2 icmp_seq=1 Destination Host Unreachable\n\n{lost}"),
            "Reply from 10.1.1.2: Destination host unreachable.\r\n    \
             Pakete: Gesendet = 1, Empfangen = 1, Verloren = 0 (0% Verlust),\r\n"
                .to_owned(),
            format!("64 bytes from nowhere: seq=0\n{lost}"),
        ];
        for output in silence {
            assert_eq!(judge(&output, ""), Finding::Silent, "{output}");
        }
        // Not every complaint is about what was to be sent.
        let warning = "ping: Warning: source address might be selected on another device";
        assert_eq!(judge(lost, warning), Finding::Silent);
    }

    #[test]
    fn what_could_not_be_sent_is_not_taken_for_unanswered() {
        let header = "PING 10.1.1.1 (10.1.1.1): 56 data bytes\n";
        let lost = "1 packets transmitted, 0 received, 100% packet loss, time 0ms\n";
        for (told, complaint, why) in [
            ("", "", "without a word"),
            (header, "", "without a word"),
            (
                "PING ff02::1%1 (ff02::1%1): 56 data bytes\n",
                "",
                "without a word",
            ),
            (
                header,
                "ping: sendto: Operation not permitted\n",
                "sendto: Operation",
            ),
            (
                "",
                "ping: permission denied (are you root?)\nmore",
                "are you root",
            ),
            // iputils counts it all the same.
            (
                lost,
                "ping: sendmsg: Operation not permitted\n",
                "sendmsg: Operation",
            ),
            (
                "PING: transmit failed. General failure.\r\n    Sent = 1, Received = 0 (100% loss),\r\n",
                "",
                "General failure",
            ),
        ] {
            match judge(told, complaint) {
                Finding::Untried(found) => assert!(found.contains(why), "{found}"),
                found => panic!("{told}{complaint}: {found:?}"),
            }
        }
    }
}
