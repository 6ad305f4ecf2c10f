//! Everything that reads what others wrote, as targets of a fuzzer.
//!
//! A target takes any bytes, and panics where something breaks a promise: that alone is a finding, next to a
//! crash, a hang, and memory without bounds, which the fuzzer sees by itself. It says whether it could make
//! something of the bytes, so that a corpus can be seen to reach what lies behind the first check.
//!
//! A target has no effects: it starts nothing, and writes nowhere but into a folder of its own.

mod agent;
mod document;
mod record;
mod replies;
mod wire;

/// One target: its name, and what it does with some bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Reads the bytes; says whether it could make something of them.
    pub read: fn(&[u8]) -> bool,
}

/// Every target, in alphabetic order.
pub const TARGETS: [Target; 7] = [
    Target {
        name: "agent_replies",
        read: replies::agent_replies,
    },
    Target {
        name: "agent_serial",
        read: agent::agent_serial,
    },
    Target {
        name: "agent_tcp",
        read: agent::agent_tcp,
    },
    Target {
        name: "domain_xml",
        read: document::domain_xml,
    },
    Target {
        name: "ledger_record",
        read: record::ledger_record,
    },
    Target {
        name: "network_xml",
        read: document::network_xml,
    },
    Target {
        name: "run_file",
        read: document::run_file,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
