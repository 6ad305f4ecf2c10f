//! Broken and random bytes at everything that reads what others wrote: an error at worst, never a panic.
//!
//! `SEE_CAMPAIGN_COUNT` says how many inputs each reader gets, `SEE_CAMPAIGN_SEED` repeats the same ones.
#![expect(clippy::print_stdout, reason = "a campaign reads the seed")]

use see_agent::protocol::{Decoder, FailureCode, Frame, Reply, Request, Stream};
use see_core::Protocol;
use see_core::config::{Configuration, RunFile};
use see_core::ledger::Ledger;
use see_libvirt::xml::{DomainXml, NetworkXml};

/// Inputs for each reader where nobody says how many.
const FEW: u64 = 20_000;

/// A small generator, so that a seed repeats the same inputs everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % limit.max(1) as u64).expect("it is below a usize")
    }

    /// One of the seeds, changed in a few places: bits, bytes, pieces cut out, doubled or swapped in.
    fn mutant(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len());
            match self.below(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.roll() as u8,
                2 => bytes.truncate(at),
                3 if !bytes.is_empty() => {
                    let end = at + self.below(bytes.len() - at);
                    bytes.drain(at..end);
                }
                4 => bytes.insert(at, b"\"<>{}[]\\\0&'/*,:-9\xff"[self.below(18)]),
                5 if !bytes.is_empty() => {
                    let end = at + self.below((bytes.len() - at).min(64));
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    bytes.extend_from_slice(&other[from..]);
                    bytes.truncate(16 << 10);
                }
            }
        }
        bytes
    }
}

/// Feeds mutants of the seeds to a reader; `read` says whether it accepted one.
fn fuzz(seeds: &[Vec<u8>], mut read: impl FnMut(&[u8]) -> bool) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    let count = number("SEE_CAMPAIGN_COUNT").unwrap_or(FEW);
    let seed = number("SEE_CAMPAIGN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEE_CAMPAIGN_COUNT={count} SEE_CAMPAIGN_SEED={seed}");
    for seed in seeds {
        assert!(
            read(seed),
            "the seed itself is refused: {}",
            seed.escape_ascii()
        );
    }
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..count {
        read(&dice.mutant(seeds));
    }
}

/// Everything that a decoder makes of some bytes, pushed in pieces as a channel would.
fn frames(bytes: &[u8]) -> (Vec<Frame>, Decoder) {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for piece in bytes.chunks(1 + bytes.len() / 3) {
        decoder.push(piece);
        found.extend(std::iter::from_fn(|| decoder.next_frame()));
    }
    (found, decoder)
}

/// Frames as bytes on the channel, and once more with what follows the checksums changed: a hostile peer
/// computes them right.
fn fuzz_frames(whole: Vec<Frame>, mut read: impl FnMut(Frame) -> bool) {
    let encoded: Vec<Vec<u8>> = whole.iter().map(|frame| frame.encode().unwrap()).collect();
    fuzz(&encoded, |bytes| {
        let (found, _) = frames(bytes);
        found.into_iter().any(&mut read)
    });
    for frame in whole {
        // What an empty body could be is soon exhausted.
        if frame.body.is_empty() {
            continue;
        }
        fuzz(std::slice::from_ref(&frame.body), |body| {
            read(Frame {
                body: body.to_vec(),
                ..frame.clone()
            })
        });
    }
}

#[test]
fn the_guests_agent_survives_whatever_a_host_sends() {
    let requests = [
        Request::Ping,
        Request::Hello {
            version: 1,
            token: vec![7; 32],
        },
        Request::Download {
            path: b"/etc/hostname".to_vec(),
            limit: 1 << 20,
        },
        Request::Job {
            job: 1,
            stdout_from: 0,
            stderr_from: 9,
        },
        Request::SetClock {
            unix_seconds: 1_800_000_000,
        },
    ];
    let whole = requests.map(|request| request.into_frame(7, 3).unwrap());
    fuzz_frames(whole.into(), |frame| Request::from_frame(frame).is_ok());
}

#[test]
fn the_host_survives_whatever_a_guests_agent_sends() {
    let replies = [
        Reply::Done,
        Reply::Started { job: 0, pid: 137 },
        Reply::Output {
            stream: Stream::Stdout,
            bytes: b"from the program".to_vec(),
        },
        Reply::Stored {
            path: b"/root/samples/a".to_vec(),
            size: 12,
        },
        Reply::End {
            total: 3,
            truncated: false,
        },
        Reply::failed(FailureCode::BadRequest, "no such request"),
    ];
    let whole = replies.map(|reply| reply.into_frame(7, 3).unwrap());
    fuzz_frames(whole.into(), |frame| Reply::from_frame(frame).is_ok());
}

#[test]
fn a_broken_run_file_is_an_error_with_a_place() {
    let whole = r#"{ // a comment
        "version": 1, "context": { "disk": { "image": "a.qcow2" }, "memory": "1GiB", },
        "hooks": { "configuration": {}, "hooks": [{ "name": "commands", "required": false }] },
        "protocol": [{ "step": "wait", "for": "ready", "timeout": "1h30m" },
                     { "step": "trigger", "event": "x", "attributes": { "ü": [1.5e3, null] } }],
    }"#;
    let seeds = [whole.into(), br#"{"version": 1, "context": {}}"#.to_vec()];
    let read = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let read = Configuration::from_str("run.json", &text).and_then(|configuration| {
            let run = RunFile::read(&configuration)?;
            run.protocol
                .as_ref()
                .map(Protocol::from_configuration)
                .transpose()
        });
        if let Err(error) = &read {
            assert!(error.place().is_some(), "an error without a place: {error}");
        }
        read.is_ok()
    };
    fuzz(&seeds, read);
}

#[test]
fn a_broken_domain_xml_is_an_error_and_a_whole_one_survives_its_edits() {
    let seeds = [
        br#"<?xml version="1.0"?><!-- mine --><domain type='kvm' xmlns:q='urn:q'><name>a&amp;b</name>
            <devices><disk device='cdrom'/><disk type="file" device='disk'><driver name='qemu'/>
            <target dev='vda'/></disk><interface type='network'><source network='x'/></interface>
            <q:odd><![CDATA[ <raw> ]]></q:odd></devices></domain>"#
            .to_vec(),
        b"<domain><devices/></domain>".to_vec(),
    ];
    fuzz(&seeds, |bytes| {
        let Ok(mut domain) = DomainXml::parse_bytes(bytes) else {
            return false;
        };
        let uuid = "6ca14d2c-2815-45c4-884b-649bac0cab90";
        domain.set_identity(uuid, uuid);
        domain.set_label(uuid);
        domain.set_agent_channel(Some(std::path::Path::new("/tmp/a&b/agent.sock")));
        let written = domain.to_string();
        let again = DomainXml::parse(&written).expect("what we wrote can be read");
        assert_eq!(again.uuid().as_deref(), Some(uuid));
        assert_eq!(again.label().as_deref(), Some(uuid));
        true
    });
}

#[test]
fn a_broken_network_xml_is_an_error() {
    let seeds = [
        b"<network><name>n</name><forward mode='nat'/><bridge name='virbr9' stp='off'/>\
          <ip address='10.1.2.1' netmask='255.255.255.0'><dhcp><range start='10.1.2.2' end='10.1.2.9'/>\
          </dhcp></ip><ip address='10.9.0.1' prefix='24'/></network>"
            .to_vec(),
    ];
    fuzz(&seeds, |bytes| {
        let Ok(network) = NetworkXml::parse_bytes(bytes) else {
            return false;
        };
        let subnets = network.subnets();
        assert!(
            subnets
                .iter()
                .all(|(address, prefix)| *prefix <= if address.is_ipv4() { 32 } else { 128 }),
            "{subnets:?}"
        );
        true
    });
}

#[test]
fn a_broken_ledger_record_is_reported_and_never_followed() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_blocking(folder.path().join("state")).unwrap();
    let identifier = see_core::Identifier::random();
    let record = ledger.begin_blocking(identifier, "a note").unwrap();
    let made = folder.path().join("made");
    std::fs::create_dir(&made).unwrap();
    let name = format!("disk-{identifier}");
    let resource = see_core::ledger::Resource::folder(&made, name).unwrap();
    let entry = record.intend_one_blocking(resource).unwrap();
    let path = entry.create_folder_blocking().unwrap();
    let file = folder
        .path()
        .join(format!("state/ledger/{identifier}.jsonl"));
    let whole = std::fs::read(&file).unwrap();
    drop((entry, record));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rounds = 0_u64;
    fuzz(&[whole], |bytes| {
        rounds += 1;
        // Each input costs several trips to the disk.
        if rounds > 1 && !rounds.is_multiple_of(50) {
            return false;
        }
        std::fs::write(&file, bytes).unwrap();
        let listed = ledger.list_blocking().unwrap();
        let options = see_core::ledger::CollectOptions {
            dry_run: true,
            ..Default::default()
        };
        let collectors = see_core::ledger::Collectors::core();
        let report = runtime
            .block_on(ledger.collect(&collectors, options))
            .unwrap();
        assert!(path.is_dir(), "a dry run removes nothing");
        listed.len() == 1 && report.is_clean()
    });
}
