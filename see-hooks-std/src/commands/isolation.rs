//! The proof of a closed network: before a sample runs, the guest itself tries everything that is to be
//! closed to it.

use super::guest::{Guest, Way};
use crate::client::{Client, ClientError};
use see_agent::protocol::{Finding, MAX_NAME, ProbeTarget};
use see_core::{Closed, Context, Isolation, Target};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// How long each target has for its answer. A lost first packet is sent again after a second.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often a guest is asked again that has no way to a target.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a guest may take to set up its addresses, when it has been given one.
const SET_UP: Duration = Duration::from_secs(15);
/// The longest time that a proof takes.
pub(super) const PROOF: Duration = Duration::from_secs(240);
/// The most targets of a proof: what it is about has to be tried in time, and whole.
const MOST_TARGETS: usize = 2048;
/// How many holes a message names.
const MOST_NAMED: usize = 5;

/// What is known of the walls around the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// There are none, or nobody asked for a proof.
    NotWanted,
    /// The guest tried everything, and nothing answered.
    Closed {
        /// How many targets there were.
        tried: usize,
    },
    /// Something answered: what.
    Open(Vec<String>),
    /// It could not be tried: why.
    Unknown(String),
}

/// Whether a proof is wanted before this guest may run a sample.
pub(super) fn is_wanted(context: &Context) -> bool {
    isolation(context).is_some()
}

fn isolation(context: &Context) -> Option<&dyn Isolation> {
    let isolation = context.machine().isolation()?;
    isolation.is_verified().then_some(isolation)
}

/// Has the guest, which has its address, try the walls.
pub(super) async fn prove(guest: &Guest, way: &Way) -> Proof {
    let proving = tokio::time::timeout(PROOF, prove_without_end(guest, way));
    proving.await.unwrap_or_else(|_| {
        Proof::Unknown(format!(
            "the guest was not done with trying after {PROOF:.0?}"
        ))
    })
}

async fn prove_without_end(guest: &Guest, way: &Way) -> Proof {
    let Some(isolation) = isolation(guest.context()) else {
        return Proof::NotWanted;
    };
    let client = match way {
        Way::Agent(client) => client,
        Way::Python(_) => {
            return Proof::Unknown("python-see's agent cannot try a network".to_owned());
        }
        Way::Nobody => {
            return Proof::Unknown("there is no agent in the guest that could try".to_owned());
        }
    };
    let closed = match isolation.closed().await {
        Ok(closed) => closed,
        Err(error) => return Proof::Unknown(error.chain()),
    };
    if closed.is_empty() {
        return Proof::Unknown("nothing is known that has to be closed".to_owned());
    }
    if closed.len() > MOST_TARGETS {
        let found = closed.len();
        return Proof::Unknown(format!(
            "there are {found} ways into this host to try, and at most {MOST_TARGETS} can be"
        ));
    }
    let until = tokio::time::Instant::now() + SET_UP;
    let mut holes: Vec<String> = Vec::new();
    loop {
        let findings = match try_all(client, &closed).await {
            Ok(findings) => findings,
            Err(_) if !holes.is_empty() => return Proof::Open(holes),
            Err(error) => return Proof::Unknown(error.to_string()),
        };
        let proof = judge(&findings);
        if let Proof::Open(found) = &proof {
            let news: Vec<_> = found.iter().filter(|hole| !holes.contains(hole)).collect();
            holes.extend(news.into_iter().cloned());
        }
        // A network that is not up yet cannot be tried, and of an open one each hole is to be named.
        let may_come = matches!(proof, Proof::Unknown(_)) || untried(&findings).is_some();
        if !may_come || tokio::time::Instant::now() >= until {
            return match holes.is_empty() {
                true => proof,
                false => Proof::Open(holes),
            };
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What came of each target that the guest can be told of.
async fn try_all<'a>(
    client: &Client,
    closed: &'a [Closed],
) -> Result<Vec<(&'a Closed, Finding)>, ClientError> {
    let targets: Vec<Option<ProbeTarget>> = closed.iter().map(of_target).collect();
    let known: Vec<ProbeTarget> = targets.iter().flatten().cloned().collect();
    let mut findings = client.probe(&known, PATIENCE).await?.into_iter();
    let untold = || Finding::Untried("no agent knows how".to_owned());
    let paired = closed.iter().zip(targets);
    Ok(paired
        .map(|(closed, target)| {
            let found = target.and_then(|_| findings.next());
            (closed, found.unwrap_or_else(untold))
        })
        .collect())
}

/// The target in the agent's words; nothing for one that has none.
fn of_target(closed: &Closed) -> Option<ProbeTarget> {
    match &closed.target {
        Target::Tcp(address) => Some(ProbeTarget::Tcp(*address)),
        Target::Udp(address) => Some(ProbeTarget::Udp(*address)),
        Target::Ping(address) => Some(ProbeTarget::Ping(*address)),
        Target::Dns(server, name) if name.len() <= MAX_NAME => {
            Some(ProbeTarget::Dns(*server, name.clone()))
        }
        _ => None,
    }
}

fn address(target: &Target) -> Option<IpAddr> {
    match target {
        Target::Tcp(address) | Target::Udp(address) | Target::Dns(address, _) => Some(address.ip()),
        Target::Ping(address) => Some(*address),
        _ => None,
    }
}

/// The target for people.
fn words(target: &Target) -> String {
    match target {
        Target::Tcp(address) => format!("TCP {address}"),
        Target::Udp(address) => format!("UDP {address}"),
        Target::Ping(address) => format!("ping {address}"),
        Target::Dns(server, name) => format!("the name {name} at {server}"),
        other => format!("{other:?}"),
    }
}

fn judge(findings: &[(&Closed, Finding)]) -> Proof {
    let holes: Vec<String> = findings
        .iter()
        .filter_map(|(closed, finding)| match finding {
            // The guest's words: whoever shows them has to escape them, as this does.
            Finding::Answered(how) => Some(format!(
                "{} ({}: {})",
                closed.what,
                words(&closed.target),
                how.escape_debug()
            )),
            _ => None,
        })
        .collect();
    if !holes.is_empty() {
        return Proof::Open(holes);
    }
    if let Some((closed, why)) = untried(findings) {
        return Proof::Unknown(format!(
            "{} ({}) could not be tried: {}",
            closed.what,
            words(&closed.target),
            why.escape_debug()
        ));
    }
    let sent = |finding: &Finding| *finding == Finding::Silent;
    if findings.iter().any(|(_, finding)| sent(finding)) {
        return Proof::Closed {
            tried: findings.len(),
        };
    }
    Proof::Unknown("the guest's network did not come up, so that nothing could be tried".to_owned())
}

/// The first target that could not be tried, and why.
fn untried<'a>(findings: &'a [(&'a Closed, Finding)]) -> Option<(&'a Closed, &'a str)> {
    // What a network that is not up yet keeps from being sent looks as closed as can be. In IPv6 a guest may
    // lack it, or any way beyond its link: an agent that still waits for its link's address says so.
    findings.iter().find_map(|(closed, finding)| match finding {
        Finding::Untried(why) => Some((*closed, why.as_str())),
        Finding::Unreachable => address(&closed.target)
            .is_none_or(|ip| ip.is_ipv4())
            .then_some((*closed, "the guest's network has no way there")),
        _ => None,
    })
}

/// The walls that could not be tried for people: why, and what to do.
pub(super) fn unknown(why: &str) -> String {
    format!(
        "whether the guest's network is closed could not be tried: {why}. Nothing was run in it; \
         `\"verify\": false` in `network` skips the proof"
    )
}

/// The holes for people, of many the first ones, and what to do.
pub(super) fn open(holes: &[String]) -> String {
    let mut message = String::from("the guest reaches what has to be closed to it: ");
    let named = holes.len().min(MOST_NAMED);
    message.push_str(&holes[..named].join("; "));
    if named < holes.len() {
        // Writing to a text cannot fail.
        let _ = write!(message, "; and {} more", holes.len() - named);
    }
    message.push_str(
        ". Nothing was run in it. Close that on the host, or, where it is meant to be open, use the \
         network mode `nat` or a network of your own; `\"verify\": false` in `network` skips the proof",
    );
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(what: &str) -> Closed {
        Closed {
            what: what.to_owned(),
            target: Target::Tcp(([192, 0, 2, 1], 22).into()),
        }
    }

    fn judged(findings: &[(&str, Finding)]) -> Proof {
        let closed: Vec<Closed> = findings.iter().map(|(what, _)| closed(what)).collect();
        let findings = findings.iter().map(|(_, finding)| finding.clone());
        judge(&closed.iter().zip(findings).collect::<Vec<_>>())
    }

    #[test]
    fn one_answer_among_many_silences_is_a_hole_with_a_name() {
        let answered = Finding::Answered("a connection is taken\x1b[2J".to_owned());
        let proof = judged(&[
            ("nothing", Finding::Silent),
            ("the host's SSH", answered),
            ("no way", Finding::Unreachable),
            ("odd", Finding::Untried("no `ping`".to_owned())),
        ]);
        let Proof::Open(holes) = proof else {
            panic!("{proof:?}");
        };
        assert_eq!(
            holes,
            ["the host's SSH (TCP 192.0.2.1:22: a connection is taken\\u{1b}[2J)"]
        );
        assert!(open(&holes).contains(&holes[0]), "{}", open(&holes));
    }

    #[test]
    fn many_holes_are_counted_rather_than_listed() {
        let hole = || ("a hole", Finding::Answered(String::new()));
        let Proof::Open(holes) = judged(&[(); 40].map(|()| hole())) else {
            panic!("it is open");
        };
        assert_eq!(holes.len(), 40);
        let message = open(&holes);
        assert!(message.contains("; and 35 more"), "{message}");
    }

    #[test]
    fn only_packets_that_were_sent_and_stayed_unanswered_prove_anything() {
        let silent = ("a", Finding::Silent);
        let unreachable = ("b", Finding::Unreachable);
        assert_eq!(
            judged(std::slice::from_ref(&silent)),
            Proof::Closed { tried: 1 }
        );
        assert!(matches!(judged(&[]), Proof::Unknown(_)));
        let Proof::Unknown(why) = judged(&[silent.clone(), unreachable]) else {
            panic!("one had no way");
        };
        assert!(why.contains("b (TCP 192.0.2.1:22)"), "{why}");
        // A guest without IPv6 beyond its link, or without any.
        let six = Closed {
            what: "the host".to_owned(),
            target: Target::Ping("2001:db8::1".parse().unwrap()),
        };
        assert!(matches!(
            judge(&[(&six, Finding::Unreachable)]),
            Proof::Unknown(_)
        ));
        let four = closed("a");
        assert_eq!(
            judge(&[(&four, Finding::Silent), (&six, Finding::Unreachable)]),
            Proof::Closed { tried: 2 }
        );
        let untried = ("c", Finding::Untried("no `ping`".to_owned()));
        let Proof::Unknown(why) = judged(&[silent, untried]) else {
            panic!("one was not tried");
        };
        assert!(why.contains("no `ping`"), "{why}");
    }
}
