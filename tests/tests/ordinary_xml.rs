//! Domains as other programs write them run, several at once, though each names a machine of its own; their screens
//! listen on the host's loopback alone.

use std::collections::BTreeSet;
use std::time::Duration;

use see_tests::{DaemonOptions, Home, Live, PrivateDaemon};
use serde_json::{Value, json};

/// The longest run of a small guest on a busy host.
const RUN: Duration = Duration::from_secs(300);

/// What the guest says of itself.
const COMMAND: &str = "cat /sys/class/dmi/id/product_uuid /sys/class/dmi/id/sys_vendor; \
    ip link show eth0 | grep -o 'link/ether [0-9a-f:]*'";

/// A domain that another program wrote.
struct Written {
    by: &'static str,
    xml: &'static str,
    /// What of it the hosts of the tests or the small guest do not have, and what is there instead; and a port of the
    /// screen that is taken by each run.
    instead: &'static [(&'static str, &'static str)],
    /// The maker that the firmware shows.
    maker: &'static str,
    /// What is said to be taken out.
    taken_out: &'static [&'static str],
}

const WRITTEN: [Written; 4] = [
    Written {
        by: "nova",
        xml: include_str!("../../see-context/src/admission/tests/nova.xml"),
        instead: &[
            (
                "autoport=\"yes\" listen=\"0.0.0.0\"",
                "port=\"5901\" autoport=\"no\" listen=\"0.0.0.0\"",
            ),
            (
                "<target bus=\"virtio\" dev=\"vda\"/>",
                "<target bus=\"virtio\" dev=\"vda\"/><shareable/><transient/>",
            ),
        ],
        maker: "OpenStack Foundation",
        taken_out: &["<log>", "<seclabel type='dynamic'>"],
    },
    Written {
        by: "ovirt",
        xml: include_str!("../../see-context/src/admission/tests/ovirt.xml"),
        instead: &[
            ("pc-q35-rhel8.6.0", "q35"),
            (">SandyBridge<", ">qemu64<"),
            ("<driver name=\"vhost\" ", "<driver "),
            // Every reading of GRUB's would wait for a busy host's disk.
            ("cache=\"none\" ", ""),
            (" io=\"native\"", ""),
            ("autoport=\"yes\"", "autoport=\"no\""),
        ],
        maker: "oVirt",
        taken_out: &[
            "<emulator>",
            "<channel type='spicevmc'>",
            "<listen type='network'>",
        ],
    },
    Written {
        by: "vagrant-libvirt",
        xml: include_str!("../../see-context/src/admission/tests/vagrant-libvirt.xml"),
        instead: &[("port='-1' autoport='yes'", "port='5901' autoport='no'")],
        maker: "QEMU",
        taken_out: &[],
    },
    Written {
        by: "virt-install",
        xml: include_str!("../../see-context/src/admission/tests/virt-install.xml"),
        instead: &[
            (">2097152<", ">262144<"),
            ("\"itco\"", "\"i6300esb\""),
            (
                "<tpm model=\"tpm-crb\">\n      <backend type=\"emulator\" version=\"2.0\"/>\n    </tpm>",
                "",
            ),
            (
                "type=\"spice\" autoport=\"yes\"",
                "type=\"spice\" port=\"5901\" autoport=\"no\" listen=\"0.0.0.0\"",
            ),
        ],
        maker: "QEMU",
        taken_out: &["<channel type='spicevmc'>", "<redirdev type='spicevmc'>"],
    },
];

/// Starts a run on a private daemon, with a file of its own.
fn start(daemon: &PrivateDaemon, home: &Home, name: &str, context: &Value) -> Live {
    let file = home.path(name);
    std::fs::rename(home.sampling(context), &file).expect("the folder can be written to");
    let mut seectl = home.seectl();
    seectl
        .args(["run", "--output", "json"])
        .arg(file)
        .args(["--command", COMMAND]);
    Live::start(&mut daemon.beside(seectl))
}

/// Waits until the machine of a run runs.
fn running(live: &mut Live) {
    let runs = live.wait_for("machine that runs", RUN, |line| {
        line["event"] == "step_finished" && line["attributes"]["step"] == "poweron"
    });
    assert!(runs.is_some(), "it ended before: {live:#?}");
}

/// Where the screens listen that libvirt tells of, and the sockets of all screens in the daemon's network.
fn screens(daemon: &PrivateDaemon) -> (Vec<String>, Vec<String>) {
    let uri = daemon.uri();
    let virsh = |words: &[&str]| daemon.told("virsh", &[&["-q", "-c", &uri], words].concat());
    let mut told = Vec::new();
    for name in virsh(&["list", "--name"]).split_whitespace() {
        let domain = virsh(&["dumpxml", name]);
        let listens = domain
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("<listen "));
        told.extend(listens.map(str::to_owned));
    }
    let sockets = daemon.told("ss", &["-Hltn"]);
    let own = sockets
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .filter(|socket| {
            let port = socket.rsplit(':').next().and_then(|port| port.parse().ok());
            port.is_some_and(|port: u16| (5900..6100).contains(&port))
        });
    (told, own.map(str::to_owned).collect())
}

#[test]
fn domains_of_other_programs_run_at_once_on_closed_networks_one_of_them_twice() {
    let daemon = PrivateDaemon::with(&DaemonOptions::default());
    let home = Home::passable();
    home.guest("guest.qcow2");
    let all = WRITTEN.iter().chain(&WRITTEN[..1]).enumerate();
    let all = all.map(|(number, written)| {
        let by = written.by;
        let mut xml = written.xml.to_owned();
        for (its, ours) in written.instead {
            assert!(xml.contains(its), "{by}: {its}");
            xml = xml.replace(its, ours);
        }
        let context = json!({
            "hypervisor": daemon.uri(),
            "domain": { "configuration": home.write(&format!("{number}.xml"), xml) },
            "disk": { "image": "guest.qcow2" },
            "network": { "mode": "isolated" },
        });
        let name = format!("{number}.json");
        (written, start(&daemon, &home, &name, &context))
    });
    let mut all: Vec<(&Written, Live)> = all.collect();
    all.iter_mut().for_each(|(_, live)| running(live));
    let (listens, sockets) = screens(&daemon);
    assert_eq!(listens.len(), all.len(), "{listens:#?}");
    for listen in listens {
        assert!(listen.contains("address='127.0.0.1'"), "{listen}");
    }
    assert!(sockets.len() >= all.len(), "{sockets:#?}");
    for socket in sockets {
        assert!(socket.starts_with("127.0.0.1:"), "{socket}");
    }
    let mut addresses = BTreeSet::new();
    for (written, live) in all {
        let by = written.by;
        let outcome = live.finish(RUN);
        assert_eq!(outcome.code, Some(0), "{by}: {outcome:#?}");
        let result = &outcome.result()["result"];
        assert_eq!(result["isolation"]["verdict"], "proven", "{by}: {result:#}");
        for part in written.taken_out {
            let said = format!("{part} is taken out of the domain");
            assert!(outcome.stderr.contains(&said), "{by}: {said}: {outcome:#?}");
        }
        let stdout = result["sample_result"]["stdout"]
            .as_str()
            .expect("it printed");
        let stdout = std::fs::read_to_string(stdout).expect("it is kept");
        let [uuid, maker, address] = stdout.lines().collect::<Vec<_>>()[..] else {
            panic!("{by}: {stdout}");
        };
        assert_eq!(
            result["identifier"], uuid,
            "{by}: the firmware shows the UUID: {stdout}"
        );
        assert_eq!(maker, written.maker, "{by}: {stdout}");
        assert!(
            addresses.insert(address.to_owned()),
            "{by}: each has a hardware address of its own: {stdout}"
        );
    }
}

#[test]
fn a_screen_listens_on_the_address_and_port_of_the_run_file_and_on_no_other() {
    let daemon = PrivateDaemon::with(&DaemonOptions::default());
    let home = Home::passable();
    home.guest("guest.qcow2");
    let shell = "ip link add desk type bridge && ip addr add 198.51.100.7/24 dev desk && ip link set desk up";
    daemon.told("sh", &["-c", shell]);
    let context = json!({
        "hypervisor": daemon.uri(),
        "disk": { "image": "guest.qcow2" },
        "network": { "mode": "isolated" },
        "graphics": { "listen": "198.51.100.7", "port": 5977 },
    });
    let mut live = start(&daemon, &home, "screen.json", &context);
    running(&mut live);
    let (listens, sockets) = screens(&daemon);
    assert_eq!(listens, ["<listen type='address' address='198.51.100.7'/>"]);
    assert_eq!(sockets, ["198.51.100.7:5977"]);
    let outcome = live.finish(RUN);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
}
