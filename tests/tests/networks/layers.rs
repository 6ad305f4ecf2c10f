//! Each layer of the walls by itself, where no other stops what it lets through.
//!
//! The rules are those of a real run on the shared network. A neighbour stands in for its guest: it has the guest's
//! port and addresses, and sends what no small guest could.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use see_tests::until;
use serde_json::json;
use tokio::net::TcpSocket;

use crate::neighbour::{Neighbour, inside};
use crate::support::{SERVICE, Site, WORLD, allocated, staying, token};

/// The table around the bridge of the shared network.
const FLOOR: &str = "see-shared";
/// The port of the agent that the walls let the host ask.
pub(crate) const AGENT: u16 = 8020;
/// How long an answer is waited for, three times.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long an address may stay taken of a socket that was closed.
const FREED: Duration = Duration::from_secs(10);
/// How long a connection is waited for: the kernel asks again after a second.
const CONNECTED: Duration = Duration::from_millis(1800);
/// The hardware address of the host's bridge.
pub(crate) const HOST_MAC: &str = "52:54:00:00:00:01";
/// That of another guest.
pub(crate) const OTHER_MAC: &str = "52:54:00:00:00:03";
/// One that the guest has no right to.
pub(crate) const SECOND_MAC: &str = "52:54:00:00:00:99";
/// A machine in the world behind the host.
const FAR: &str = "198.51.100.9";

/// Every question: all are answered where there are no walls.
const QUESTIONS: [&str; 18] = [
    "guest to host",
    "guest to host, IPv6",
    "guest to other",
    "guest to other, IPv6",
    "guest to world",
    "host to guest",
    "host to guest, IPv6",
    "other to guest",
    "other to guest, IPv6",
    "world to guest",
    "guest connects to host",
    "guest connects to host from its agent's port",
    "host connects to agent",
    "request for another's address to host",
    "request for an address to other",
    "request for an address to the host's other address",
    "another's address in ARP to host",
    "second hardware address",
];
/// What passes the wall around the guest's port, which does not know who began to talk.
const THROUGH_THE_WALL: [&str; 2] = [
    "guest connects to host from its agent's port",
    "host connects to agent",
];
/// What passes the floor around the bridge, which knows no guest by itself.
const THROUGH_THE_FLOOR: [&str; 4] = [
    "host connects to agent",
    "request for another's address to host",
    "another's address in ARP to host",
    "second hardware address",
];
/// What stays on the bridge: the floor sees it only where the kernel shows bridged packets to the host's rules.
const ON_THE_BRIDGE: [&str; 5] = [
    "guest to other",
    "guest to other, IPv6",
    "other to guest",
    "other to guest, IPv6",
    "request for an address to other",
];

#[test]
fn each_layer_of_the_walls_stops_by_itself_what_it_is_there_for() {
    let site = Site::new();
    let rules = Rules::of_a_run(&site);
    let scene = Scene::new(&site, &rules);
    let answered = |rules: &str| {
        let file = site.home.write("rules.nft", rules);
        let load = format!("nft flush ruleset; nft -f '{}'", file.display());
        site.daemon.told("sh", &["-e", "-c", &load]);
        scene.answered()
    };
    assert_eq!(answered(""), QUESTIONS, "without any walls");
    assert_eq!(answered(&rules.wall), THROUGH_THE_WALL, "behind the wall");
    let mut passed = answered(&rules.floor);
    passed.retain(|question| !ON_THE_BRIDGE.contains(question));
    assert_eq!(passed, THROUGH_THE_FLOOR, "behind the floor");
}

/// What a run on the shared network had around its guest.
pub(crate) struct Rules {
    pub(crate) wall: String,
    floor: String,
    pub(crate) device: String,
    pub(crate) mac: String,
    pub(crate) own: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) other: Ipv4Addr,
}

impl Rules {
    pub(crate) fn of_a_run(site: &Site) -> Self {
        let context = json!({
            "network": { "mode": "shared", "verify": false },
            "agent": { "transport": "tcp", "port": AGENT, "token": token() },
        });
        let run_file = site.run_file_with("run.json", context, staying());
        let mut run = site.start(&run_file, "true");
        allocated(&mut run);
        let list = |family, name| site.daemon.told("nft", &["list", "table", family, name]);
        let tables = site.daemon.told("nft", &["list", "tables", "bridge"]);
        let mut names = tables.split_whitespace();
        let name = names.find(|word| word.starts_with("see-"));
        let wall = list("bridge", name.expect("the guest has a wall"));
        let floor = list("inet", FLOOR);
        run.kill();
        let mut gc = site.home.seectl();
        gc.arg("gc");
        let collected = site.daemon.beside(gc).output().expect("it can be started");
        assert!(collected.status.success(), "{collected:?}");

        let after = |words: &str| {
            let rest = wall.split(words).nth(1);
            let word = rest.and_then(|rest| rest.split_whitespace().next());
            let word = word.unwrap_or_else(|| panic!("no {words:?}: {wall}"));
            word.trim_matches('"').to_owned()
        };
        // The answers of the agent: ip saddr OWN ip daddr GATEWAY tcp sport AGENT
        let answers = wall.lines().find(|line| line.contains("tcp sport"));
        let answers = answers.unwrap_or_else(|| panic!("no agent: {wall}"));
        let mut addresses = answers
            .split_whitespace()
            .filter_map(|word| word.parse().ok());
        let [own, gateway]: [Ipv4Addr; 2] = [(); 2].map(|()| addresses.next().expect("two"));
        let [first, second, third, last] = own.octets();
        let other = Ipv4Addr::new(first, second, third, last ^ 64);
        let (device, mac) = (after("oifname "), after("ether saddr != "));
        Self {
            device,
            mac,
            own,
            gateway,
            other,
            wall,
            floor,
        }
    }
}

/// A bridge with a guest's stand-in and another one, and a world behind it.
struct Scene<'a> {
    site: &'a Site,
    rules: &'a Rules,
    guest: Neighbour,
    other: Neighbour,
    far: Neighbour,
}

impl<'a> Scene<'a> {
    fn new(site: &'a Site, rules: &'a Rules) -> Self {
        let Rules {
            device,
            mac,
            own,
            gateway,
            other,
            ..
        } = rules;
        site.open_up();
        let bridge = format!(
            "ip link add virbr-see address {HOST_MAC} type bridge
             echo 0 >/proc/sys/net/ipv6/conf/virbr-see/disable_ipv6
             ip addr add {gateway}/24 dev virbr-see; ip -6 addr add fd99::1/64 dev virbr-see nodad
             ip link set virbr-see up
             ip neigh replace {own} lladdr {mac} nud permanent dev virbr-see
             ip neigh replace fd99::2 lladdr {mac} nud permanent dev virbr-see"
        );
        site.daemon.told("sh", &["-e", "-c", &bridge]);
        let plug = |device: &str| format!("ip link set {device} master virbr-see up");
        let guest = Neighbour::new(site, device, &plug(device), "");
        let there = format!(
            "ip link set eth0 address {OTHER_MAC} up
             ip addr add {other}/24 dev eth0; ip -6 addr add fd99::3/64 dev eth0 nodad
             ip neigh replace {own} lladdr {mac} nud permanent dev eth0
             ip neigh replace fd99::2 lladdr {mac} nud permanent dev eth0"
        );
        let other = Neighbour::new(site, "other0", &plug("other0"), &there);
        let there = format!(
            "ip addr add {FAR}/24 dev eth0; ip link set eth0 up
             ip route add default via 198.51.100.1"
        );
        let far = Neighbour::new(site, "far0", "ip link set far0 master world up", &there);
        Self {
            site,
            rules,
            guest,
            other,
            far,
        }
    }

    /// Gives the guest this hardware address and its own other ones. Nobody has to ask for any of them.
    fn dress(&self, mac: &str) {
        let Rules {
            own,
            gateway,
            other,
            ..
        } = self.rules;
        self.guest.told(&format!(
            "ip link set eth0 down; ip addr flush dev eth0
             ip link set eth0 address {mac} up
             ip addr add {own}/24 dev eth0; ip -6 addr add fd99::2/64 dev eth0 nodad
             ip route replace default via {gateway}
             ip neigh replace {gateway} lladdr {HOST_MAC} nud permanent dev eth0
             ip neigh replace fd99::1 lladdr {HOST_MAC} nud permanent dev eth0
             ip neigh replace {other} lladdr {OTHER_MAC} nud permanent dev eth0
             ip neigh replace fd99::3 lladdr {OTHER_MAC} nud permanent dev eth0"
        ));
        self.host(&format!(
            "ip neigh replace {own} lladdr {mac} nud permanent dev virbr-see"
        ));
    }

    fn host(&self, script: &str) -> String {
        self.site.daemon.told("sh", &["-e", "-c", script])
    }

    /// The questions that are answered, in their order.
    fn answered(&self) -> Vec<&'static str> {
        let Rules {
            mac,
            own,
            gateway,
            other,
            ..
        } = self.rules;
        self.dress(mac);
        let (host, guest) = (self.site.namespace(), self.guest.namespace());
        let (aside, far) = (self.other.namespace(), self.far.namespace());
        let datagrams = [
            (&guest, &host, format!("{gateway}:7001")),
            (&guest, &host, "[fd99::1]:7002".to_owned()),
            (&guest, &aside, format!("{other}:7003")),
            (&guest, &aside, "[fd99::3]:7004".to_owned()),
            (&guest, &far, format!("{FAR}:7005")),
            (&host, &guest, format!("{own}:7006")),
            (&host, &guest, "[fd99::2]:7007".to_owned()),
            (&aside, &guest, format!("{own}:7008")),
            (&aside, &guest, "[fd99::2]:7009".to_owned()),
            (&far, &guest, format!("{own}:7010")),
        ];
        // All at once: most are not answered, and waited for.
        let mut answers: Vec<bool> = std::thread::scope(|scope| {
            let asked: Vec<_> = datagrams
                .iter()
                .map(|(from, to, at)| {
                    scope.spawn(move || arrives(from, "[::]:0", to, at, at, b"x"))
                })
                .collect();
            let ends = asked.into_iter().map(|question| question.join());
            ends.map(|end| end.expect("it is asked")).collect()
        });
        let service = format!("{gateway}:{SERVICE}");
        answers.push(connects(&guest, 0, &service));
        answers.push(connects(&guest, AGENT, &service));
        answers.push(self.agent_answers());

        let request = |mac: &str| {
            let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
            let mut request = vec![0; 28];
            request.extend(bytes.map(|byte| byte.expect("it is hexadecimal")));
            request
        };
        let from = format!("{own}:68");
        let broadcast = |to: &PathBuf, mac: &str| {
            let (at, heard) = ("255.255.255.255:67", "0.0.0.0:67");
            arrives(&guest, &from, to, at, heard, &request(mac))
        };
        assert!(broadcast(&host, mac), "the guest can ask for its address");
        answers.push(broadcast(&host, SECOND_MAC));
        answers.push(broadcast(&aside, mac));
        let far = format!("{WORLD}:67");
        answers.push(arrives(&guest, &from, &host, &far, &far, &request(mac)));
        answers.push(self.learns_another_address());
        self.dress(SECOND_MAC);
        answers.push(self.agent_answers());
        let questions = QUESTIONS.into_iter().zip(answers);
        questions
            .filter_map(|(question, is_answered)| is_answered.then_some(question))
            .collect()
    }

    /// Whether the host can connect to the guest's agent.
    fn agent_answers(&self) -> bool {
        let address = SocketAddr::from((self.rules.own, AGENT));
        let _agent = inside(&self.guest.namespace(), move || {
            freed(|| TcpListener::bind(address))
        });
        connects(&self.site.namespace(), 0, &address.to_string())
    }

    /// Whether the host learns from the guest's ARP that it has an address which is not its own.
    fn learns_another_address(&self) -> bool {
        let Rules { gateway, other, .. } = self.rules;
        let spoofed = Ipv4Addr::from_bits(other.to_bits() ^ 1);
        self.guest.told(&format!(
            "ip addr add {spoofed}/32 dev eth0; ip neigh del {gateway} dev eth0"
        ));
        let (from, to) = (format!("{spoofed}:0"), format!("{gateway}:7011"));
        let (guest, host) = (self.guest.namespace(), self.site.namespace());
        // Before it can be sent, the gateway's hardware address is asked for.
        arrives(&guest, &from, &host, &to, &to, b"x");
        let known = self.host(&format!("ip neigh show {spoofed} dev virbr-see"));
        self.host(&format!("ip neigh flush {spoofed} dev virbr-see"));
        known.contains(&self.rules.mac)
    }
}

/// What is bound to an address that nobody has, or will have soon: the socket there before is held for a moment by a
/// program that another test's thread is just about to start.
fn freed<T>(bind: impl Fn() -> io::Result<T>) -> T {
    let mut bound = None;
    until("a free address", FREED, || match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => false,
        answer => {
            bound = Some(answer.expect("the address is there"));
            true
        }
    });
    bound.expect("it was waited for")
}

/// Whether a datagram comes from one network into another.
fn arrives(from: &Path, source: &str, to: &Path, at: &str, heard_at: &str, what: &[u8]) -> bool {
    let parse = |text: &str| -> SocketAddr { text.parse().expect("an address with a port") };
    let (mut source, at, heard_at) = (parse(source), parse(at), parse(heard_at));
    if at.is_ipv4() && source.is_ipv6() {
        source.set_ip(Ipv4Addr::UNSPECIFIED.into());
    }
    let receiver = inside(to, move || freed(|| UdpSocket::bind(heard_at)));
    let sender = inside(from, move || freed(|| UdpSocket::bind(source)));
    receiver
        .set_read_timeout(Some(PATIENCE))
        .expect("it is set");
    sender.set_broadcast(true).expect("it is set");
    (0..3).any(|_| {
        // The sender's own walls may refuse it at once.
        let _ = sender.send_to(what, at);
        let mut datagram = [0; 64];
        let heard = receiver.recv(&mut datagram);
        heard.is_ok_and(|length| &datagram[..length] == what)
    })
}

/// Whether a connection is made from a port in a network; any one where it is 0.
fn connects(from: &Path, port: u16, to: &str) -> bool {
    let to: SocketAddr = to.parse().expect("an address with a port");
    inside(from, move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("it is set");
            let from = (Ipv4Addr::UNSPECIFIED, port).into();
            freed(|| socket.bind(from));
            let connected = tokio::time::timeout(CONNECTED, socket.connect(to)).await;
            connected.is_ok_and(|connected| connected.is_ok())
        })
    })
}
