//! A daemon beside which `seectl` runs, with something to reach in its network.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use see_tests::{DaemonOptions, GROUP, Home, Live, Outcome, PrivateDaemon, finish, guest, spawn};
use serde_json::{Value, json};

use crate::neighbour::serve;

/// The longest that a run of a small guest may take on a busy host.
pub(crate) const RUN: Duration = Duration::from_secs(300);
/// The documented exit code.
pub(crate) const SANDBOX_FAILED: i32 = 4;
/// A service of the host.
pub(crate) const SERVICE: u16 = 8080;
/// An address of the world, behind the host.
pub(crate) const WORLD: &str = "198.51.100.1";

/// A daemon that is open to [`GROUP`], and a home for runs on it.
pub(crate) struct Site {
    pub(crate) daemon: PrivateDaemon,
    pub(crate) home: Home,
}

impl Site {
    pub(crate) fn new() -> Self {
        let options = DaemonOptions {
            group: Some(GROUP.to_owned()),
            ..DaemonOptions::default()
        };
        let site = Self {
            daemon: PrivateDaemon::with(&options),
            home: Home::passable(),
        };
        site.home.guest("guest.qcow2");
        site
    }

    /// Makes the host forward, gives it a world behind it, and a service on every address.
    pub(crate) fn open_up(&self) {
        let shell = format!(
            "echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding && \
             ip link add world type bridge && ip addr add {WORLD}/24 dev world && ip link set world up && \
             ip addr add 169.254.169.254/32 dev world && \
             ip -6 addr add 2001:db8::1/64 dev world nodad"
        );
        self.daemon.told("sh", &["-c", &shell]);
        serve(self.namespace(), &[&format!("[::]:{SERVICE}")], &[]);
    }

    /// The file of the daemon's network namespace.
    pub(crate) fn namespace(&self) -> PathBuf {
        let (pid, _) = self.daemon.processes().into_iter().next().expect("it runs");
        format!("/proc/{pid}/ns/net").into()
    }

    /// A run file: a guest on this network, with these steps.
    pub(crate) fn run_file(&self, name: &str, network: Value, steps: Value) -> PathBuf {
        self.run_file_with(name, json!({ "network": network }), steps)
    }

    /// The same with these keys of the context.
    pub(crate) fn run_file_with(&self, name: &str, more: Value, steps: Value) -> PathBuf {
        // Three guests at once boot slowly on a busy host.
        let hooks = json!([{ "name": "commands", "configuration": { "ready_timeout": "160s" } }]);
        self.run_file_of(name, more, hooks, steps)
    }

    /// The same with these hooks.
    pub(crate) fn run_file_of(
        &self,
        name: &str,
        more: Value,
        hooks: Value,
        steps: Value,
    ) -> PathBuf {
        let mut context = json!({
            "hypervisor": self.daemon.uri(),
            "memory": "128MiB",
            "disk": { "image": "guest.qcow2" },
        });
        let keys = context.as_object_mut().expect("an object");
        keys.extend(more.as_object().expect("an object").clone());
        let run = json!({
            "version": 1,
            "context": context,
            "hooks": { "hooks": hooks },
            "protocol": steps,
        });
        self.home.write(name, run.to_string())
    }

    /// `seectl` where guests' addresses are reachable.
    pub(crate) fn seectl(&self) -> Command {
        self.daemon.beside(self.home.seectl())
    }

    /// A run beside the daemon, ready to start.
    pub(crate) fn command(&self, run_file: &PathBuf, command: &str) -> Command {
        self.command_of(self.home.seectl(), run_file, command)
    }

    /// The same of this `seectl`, which may be another user's.
    pub(crate) fn command_of(
        &self,
        mut seectl: Command,
        run_file: &PathBuf,
        command: &str,
    ) -> Command {
        seectl
            .args(["run", "--output", "json"])
            .arg(run_file)
            .args(["--command", command]);
        self.daemon.beside(seectl)
    }

    /// Runs to the end.
    pub(crate) fn run(&self, run_file: &PathBuf, command: &str) -> Outcome {
        finish(spawn(&mut self.command(run_file, command)), RUN)
    }

    /// Starts a run.
    pub(crate) fn start(&self, run_file: &PathBuf, command: &str) -> Live {
        Live::start(&mut self.command(run_file, command))
    }

    /// Everything of ours in the daemon's namespaces.
    pub(crate) fn traces(&self) -> Vec<String> {
        self.daemon.traces()
    }
}

/// The steps of a run that only allocates, and stays until it is stopped.
pub(crate) fn staying() -> Value {
    json!([{ "step": "wait", "timeout": "120s" }])
}

/// The steps of a run that only allocates.
pub(crate) fn passing() -> Value {
    json!([{ "step": "wait", "timeout": "0s" }])
}

/// The steps of a run whose sample begins once the guest has an address, and may outlast others' on a busy host.
pub(crate) fn sampling() -> Value {
    json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ip_address", "timeout": "170s" },
        { "step": "trigger", "event": "run_sample",
          "attributes": { "sample": "${sample}", "command": "${command}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "280s" },
    ])
}

/// Whether a line of a run's output is this event.
pub(crate) fn is_event(name: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line.get("event").and_then(Value::as_str) == Some(name)
}

/// Waits until a run is allocated: it has begun its first step.
pub(crate) fn allocated(live: &mut Live) {
    let begun = live.wait_for("allocation", RUN, |line| {
        let attribute = |name: &str| line.pointer(&format!("/attributes/{name}"));
        is_event("step_started")(line) && attribute("index").is_some()
    });
    assert!(begun.is_some(), "it ended before: {live:#?}");
}

/// What the result says, by a JSON pointer.
pub(crate) fn told(outcome: &Outcome, pointer: &str) -> Value {
    let result = outcome.result();
    result
        .pointer(&format!("/result{pointer}"))
        .unwrap_or_else(|| panic!("no {pointer} in {result:#}"))
        .clone()
}

/// What the sample printed.
pub(crate) fn stdout(outcome: &Outcome) -> String {
    let path = told(outcome, "/sample_result/stdout");
    let path = path
        .as_str()
        .unwrap_or_else(|| panic!("no output: {outcome:#?}"));
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The token of the small guest's agent.
pub(crate) fn token() -> String {
    let token = std::fs::read_to_string(guest("token")).expect("the token is text");
    token.trim().to_owned()
}

/// Asks everything a guest can be asked for at once, and says of each whether anything answered: a line
/// `NAME open` or `NAME closed`. A refusal is an answer, too. It is given: the gateway, another guest, and the
/// addresses of both in IPv6, in which the gateway's ends with 1, and how often to ask until there is an answer.
pub(crate) const PROBE: &str = r#"
gateway=$1 other=$2 gateway6=$3 other6=$4 own6=${3%1}2 tries=$5 service=8080 world=198.51.100.1 world6=2001:db8::1
# Its addresses in IPv6 are good at once: nobody else is asked for them.
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
say() { if [ "$2" = 0 ]; then echo "$1 open"; else echo "$1 closed"; fi; }
# Asks until there is an answer, and says whether there was one.
ask() {
  name=$1 left=$tries
  shift
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    if [ "$left" -le 0 ]; then say "$name" 1; return; fi
  done
  say "$name" 0
}
ping4() { ask "$1" ping -c 2 -W 1 "$2"; }
six() { ask "$1" ping6 -c 2 -W 1 -I eth0 "$2"; }
connects() {
  answer=$(nc -w 2 "$1" "$2" </dev/null 2>&1)
  case "$?:$answer" in 0:* | *refused*) ;; *) false ;; esac
}
tcp() { ask "$1" connects "$2" "$3"; }
# The port is closed: who is reached says so.
# Not the guest itself, which tells of an unreachable host from an address that may begin alike.
traced() { traceroute -n -q 2 -w 1 -m 1 "$1" | tail -n +2 | grep -qw "$1"; }
udp() { ask "$1" traced "$2"; }
neighbour() { ask "$1" arping -q -c 2 -w 1 -I eth0 "$2"; }
everything() {
  ping4 "$1-gateway-ping" "$gateway" &
  tcp "$1-gateway-tcp" "$gateway" $service &
  udp "$1-gateway-udp" "$gateway" &
  tcp "$1-gateway-dns" "$gateway" 53 &
  ping4 "$1-world-ping" $world &
  tcp "$1-world-tcp" $world $service &
  tcp "$1-metadata-tcp" 169.254.169.254 $service &
  ping4 "$1-other-ping" "$other" &
  tcp "$1-other-tcp" "$other" 7000 &
  neighbour "$1-other-arp" "$other" &
  six "$1-gateway-ping6" "$gateway6" &
  tcp "$1-gateway-tcp6" "$gateway6" $service &
  six "$1-world-ping6" $world6 &
  tcp "$1-world-tcp6" $world6 $service &
  six "$1-other-ping6" "$other6" &
  tcp "$1-other-tcp6" "$other6" 7000 &
  wait
}
own=$(ip -4 -o addr show eth0 | sed 's/.*inet \([0-9./]*\).*/\1/')
ip -6 addr add "$own6/64" dev eth0
ip route replace default via "$gateway"
ip -6 route replace default via "$gateway6" dev eth0
everything own
# As the other guest: tell everybody, then ask.
ip addr add "$other/32" dev eth0
arping -q -U -c 2 -w 2 -I eth0 -s "$other" "$other" >/dev/null 2>&1
ask spoofed-arp arping -q -c 2 -w 1 -I eth0 -s "$other" "$gateway"
ip addr del "$own" dev eth0
ping4 spoofed-gateway-ping "$gateway"
ip addr del "$other/32" dev eth0
# With a second hardware address.
ip link set eth0 down
ip link set eth0 address 52:54:00:aa:bb:cc
ip link set eth0 up
ip -6 addr add "$own6/64" dev eth0
ip addr add "$own" dev eth0
ip route replace default via "$gateway"
ip -6 route replace default via "$gateway6" dev eth0
neighbour second-gateway-arp "$gateway" &
ask second-dhcp udhcpc -n -q -f -t 2 -T 3 -i eth0 -s /bin/true &
everything second
"#;

/// The questions of [`PROBE`] before it does as if it were another guest.
pub(crate) const OWN_QUESTIONS: usize = 16;
/// All of its questions.
pub(crate) const QUESTIONS: usize = 36;

/// The command that runs [`PROBE`]. Where nothing should answer, one try is enough; where all should, a busy host may
/// be too slow for the first tries.
pub(crate) fn probe(arguments: [&str; 4], tries: u32) -> String {
    let [gateway, other, gateway6, other6] = arguments;
    format!("set -- {gateway} {other} {gateway6} {other6} {tries}\n{PROBE}")
}

/// The names of the questions that got this answer, sorted.
pub(crate) fn answered(output: &str, answer: &str) -> Vec<String> {
    let mut found: Vec<String> = output
        .lines()
        .filter_map(|line| line.strip_suffix(answer)?.strip_suffix(' '))
        .map(str::to_owned)
        .collect();
    found.sort();
    found
}
