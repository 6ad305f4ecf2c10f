//! Every campaign: its programs, their tests, its counts.

/// One campaign: the test programs, and how much of them.
pub(super) struct Campaign {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// Its test programs, in words of `cargo test`.
    pub(super) programs: &'static [&'static str],
    /// Which of the programs' tests; all where it is empty.
    pub(super) only: &'static [&'static str],
    /// How many rounds, when nobody says.
    pub(super) count: u64,
    /// How many rounds a chunk has.
    pub(super) chunk: u64,
    /// Whether it runs on other hosts, too: what it does depends on libvirt, and needs nothing that they lack.
    pub(super) elsewhere: bool,
}

/// The program that cuts runs off.
const TORTURE: &[&str] = &["-p", "see-tests", "--test", "torture"];

/// Every campaign, in alphabetic order.
pub(super) const CAMPAIGNS: &[Campaign] = &[
    Campaign {
        name: "cycles",
        help: "allocate, start and tear down, again and again; each twentieth boots",
        programs: &["-p", "see-tests", "--test", "cycles"],
        only: &[],
        count: 300,
        // In one process: what piles up shows late.
        chunk: 300,
        elsewhere: true,
    },
    Campaign {
        name: "daemons",
        help: "libvirtd killed and started again at seeded instants, with a run in each phase",
        programs: TORTURE,
        only: &["daemons::"],
        count: 10,
        chunk: 2,
        elsewhere: true,
    },
    Campaign {
        name: "fuzz",
        help: "a fuzzer at everything that reads what others wrote, so many inputs each",
        programs: &["-p", "see-tests", "--test", "fuzz"],
        only: &[],
        count: 10_000_000,
        chunk: 500_000,
        elsewhere: false,
    },
    Campaign {
        name: "images",
        help: "downloads whose server is stopped three times each, and images of 2 GiB that eight ask for",
        programs: &["-p", "see-tests", "--test", "images"],
        only: &["resume::", "crowd::"],
        count: 20,
        chunk: 10,
        elsewhere: false,
    },
    Campaign {
        name: "kills",
        help: "SIGKILL at each ledger step and so often in each phase of each hypervisor, then collect",
        programs: TORTURE,
        only: &["kills::"],
        count: 50,
        // Each chunk begins with all steps of the ledger.
        chunk: 25,
        elsewhere: true,
    },
    Campaign {
        name: "properties",
        help: "the tests of properties of every crate, with so many inputs each that nobody tried before",
        programs: &[
            "--workspace",
            "--exclude",
            "see-tests",
            "--lib",
            "--bins",
            "--tests",
        ],
        only: &["properties::"],
        count: 20_000,
        chunk: 5_000,
        elsewhere: false,
    },
    Campaign {
        name: "signals",
        help: "SIGTERM, Ctrl-C and SIGHUP at the same instants, without a collection",
        programs: TORTURE,
        only: &["signals::"],
        count: 50,
        chunk: 25,
        elsewhere: true,
    },
];
