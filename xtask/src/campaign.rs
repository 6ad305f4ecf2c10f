//! `campaign`: the large counts, in chunks, resumable, with a report.
//!
//! A campaign is a test program that takes its count and its seed from the
//! environment (`SEE_CAMPAIGN_COUNT`, `SEE_CAMPAIGN_SEED`). After each chunk
//! the state is saved, so an interrupted campaign goes on where it was.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::fuzz;
use crate::guest;
use crate::leftovers::Look;
use crate::setup::{self, Purpose, Started};
use crate::workspace;

/// What one chunk may take.
const DEADLINE: Duration = Duration::from_secs(3600);

/// How the lines begin in which a program sums up its rounds.
const SUMS: [&str; 3] = [INSTANTS, "cycles:", "inputs tried:"];

/// How the lines begin that name instants and what was left after them.
const INSTANTS: &str = "instants tried:";

/// One campaign: the test program, and how much of it.
struct Campaign {
    name: &'static str,
    help: &'static str,
    /// The words after `cargo`.
    command: &'static [&'static str],
    /// Which of the program's tests; all where it is empty.
    only: &'static [&'static str],
    /// How many rounds, when nobody says.
    count: u64,
    /// How many rounds a chunk has.
    chunk: u64,
}

/// The program that cuts runs off.
const TORTURE: &[&str] = &["test", "--locked", "-p", "see-tests", "--test", "torture"];

/// Every campaign, in alphabetic order.
const CAMPAIGNS: &[Campaign] = &[
    Campaign {
        name: "cycles",
        help: "allocate, start and tear down, again and again; each twentieth boots",
        command: &["test", "--locked", "-p", "see-tests", "--test", "cycles"],
        only: &[],
        count: 300,
        // In one process: what piles up shows late.
        chunk: 300,
    },
    Campaign {
        name: "daemons",
        help: "libvirtd killed and started again at seeded instants, with a run in each phase",
        command: TORTURE,
        only: &["daemons::"],
        count: 10,
        chunk: 2,
    },
    Campaign {
        name: "fuzz",
        help: "a fuzzer at everything that reads what others wrote, so many inputs each",
        command: &["test", "--locked", "-p", "see-tests", "--test", "fuzz"],
        only: &[],
        count: 10_000_000,
        chunk: 500_000,
    },
    Campaign {
        name: "images",
        help: "downloads whose server is stopped three times each, and images of 2 GiB that eight ask for",
        command: &["test", "--locked", "-p", "see-tests", "--test", "images"],
        only: &["resume::", "crowd::"],
        count: 20,
        chunk: 10,
    },
    Campaign {
        name: "kills",
        help: "SIGKILL at each ledger step and so often in each phase of each hypervisor, then collect",
        command: TORTURE,
        only: &["kills::"],
        count: 50,
        // Each chunk begins with all steps of the ledger.
        chunk: 25,
    },
    Campaign {
        name: "signals",
        help: "SIGTERM, Ctrl-C and SIGHUP at the same instants, without a collection",
        command: TORTURE,
        only: &["signals::"],
        count: 50,
        chunk: 25,
    },
];

/// Where a campaign stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    commit: String,
    seed: u64,
    host: String,
    wanted: u64,
    done: u64,
    /// The rounds of the chunks that passed.
    passed: u64,
    failed_chunks: Vec<String>,
    leaks: Vec<String>,
    /// What the program says of each chunk.
    told: Vec<String>,
    seconds: u64,
}

impl State {
    /// The next chunk's count and seed; none when everything is done.
    fn next(&self, chunk: u64) -> Option<(u64, u64)> {
        let left = self.wanted.saturating_sub(self.done);
        (left > 0).then(|| (left.min(chunk), self.seed.wrapping_add(self.done)))
    }

    /// How many instants the rounds have tried, and how many leaks they have found.
    fn tried(&self) -> (u64, u64) {
        let number = |line: &str, key: &str| -> u64 {
            let rest = line
                .split_once(key)
                .map_or("", |(_, rest)| rest.trim_start());
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        let lines = self.told.iter().filter(|line| line.contains(INSTANTS));
        lines.fold((0, 0), |(instants, leaks), line| {
            let more = (number(line, INSTANTS), number(line, "leaks:"));
            (instants + more.0, leaks + more.1)
        })
    }

    fn report(&self, name: &str) -> String {
        let mut text = format!("# Campaign {name}\n\n");
        let _ = writeln!(text, "- commit: {}", self.commit);
        let _ = writeln!(text, "- seed: {}", self.seed);
        let _ = writeln!(text, "- host: {}", self.host);
        let _ = writeln!(text, "- rounds: {} of {}", self.done, self.wanted);
        let _ = writeln!(text, "- rounds in chunks that passed: {}", self.passed);
        let _ = writeln!(text, "- time: {} s", self.seconds);
        let _ = writeln!(text, "- chunks that failed: {}", self.failed_chunks.len());
        let (instants, leaks) = self.tried();
        match instants {
            // Not every campaign cuts something off.
            0 => drop(writeln!(text, "- leaks: {}", self.leaks.len())),
            _ => drop(writeln!(
                text,
                "- instants tried: {instants}, leaks: {}",
                leaks + self.leaks.len() as u64
            )),
        }
        for line in self.failed_chunks.iter().chain(&self.leaks) {
            let _ = writeln!(text, "  - {line}");
        }
        if !self.told.is_empty() {
            text.push_str("\nWhat the rounds said:\n");
        }
        for line in &self.told {
            let _ = writeln!(text, "- {line}");
        }
        text
    }
}

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let mut words = words.iter();
    let Some(name) = words.next() else {
        for campaign in CAMPAIGNS {
            println!("  {:<8} {}", campaign.name, campaign.help);
        }
        println!("usage: cargo xtask campaign NAME [--count N] [--seed N] [--fresh]");
        return Ok(());
    };
    let campaign = CAMPAIGNS.iter().find(|it| it.name == name).ok_or_else(|| {
        let known: Vec<_> = CAMPAIGNS.iter().map(|it| it.name).collect();
        Failure::usage(format!(
            "no campaign is called `{name}`; there are {}",
            known.join(", ")
        ))
    })?;
    let (mut count, mut seed, mut fresh) = (campaign.count, None, false);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, Failure> {
            words
                .next()
                .and_then(|it| it.parse().ok())
                .ok_or_else(|| Failure::usage(format!("{word} needs a number")))
        };
        match word.as_str() {
            "--count" => count = number()?,
            "--seed" => seed = Some(number()?),
            "--fresh" => fresh = true,
            _ => return Err(Failure::usage(format!("`{word}` is not known here"))),
        }
    }
    go(campaign, count, seed, fresh)
}

fn go(campaign: &Campaign, count: u64, seed: Option<u64>, fresh: bool) -> Result<(), Failure> {
    setup::install(Purpose::Everything)?;
    guest::build()?;
    let daemon = setup::start_daemon()?;
    let outcome = build(campaign).and_then(|()| chunks(campaign, count, seed, fresh));
    if daemon == Started::Yes {
        setup::stop_daemon()?;
    }
    let state = outcome?;
    println!("{}", state.report(campaign.name));
    if !state.failed_chunks.is_empty() {
        return Err(Failure::new("the campaign found failures"));
    }
    if !state.leaks.is_empty() {
        return Err(Failure::with(
            exit_code::LEFT_BEHIND,
            "the campaign found leaks",
        ));
    }
    Ok(())
}

/// Builds the programs that the rounds run. It may replace this very program, which the daemon's parent
/// is: that one is started before.
fn build(campaign: &Campaign) -> Result<(), Failure> {
    if campaign.name == "fuzz" {
        return fuzz::build(fuzz::Speed::Fast).map(drop);
    }
    let mut build = Command::new(workspace::cargo());
    build
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", workspace::target())
        .args(["build", "--quiet", "--workspace", "--locked"]);
    command::output(&mut build, DEADLINE).map(drop)
}

fn chunks(
    campaign: &Campaign,
    count: u64,
    seed: Option<u64>,
    fresh: bool,
) -> Result<State, Failure> {
    let folder = workspace::target().join("campaign");
    fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
    let file = folder.join(format!("{}.json", campaign.name));
    let commit = commit();
    let mut state = fs::read_to_string(&file)
        .ok()
        .filter(|_| !fresh)
        .and_then(|text| serde_json::from_str::<State>(&text).ok())
        // Rounds of another commit, or from another seed, prove nothing here.
        .filter(|state| state.commit == commit && seed.is_none_or(|seed| seed == state.seed))
        .unwrap_or_else(|| State {
            commit,
            seed: seed.unwrap_or_else(clock),
            host: host(),
            wanted: count,
            done: 0,
            passed: 0,
            failed_chunks: Vec::new(),
            leaks: Vec::new(),
            told: Vec::new(),
            seconds: 0,
        });
    state.wanted = count;
    while let Some((rounds, seed)) = state.next(campaign.chunk) {
        let started = Instant::now();
        let before = Look::now();
        let mut cargo = Command::new(workspace::cargo());
        cargo
            .current_dir(workspace::root())
            .env("CARGO_TARGET_DIR", workspace::target())
            .env("SEE_CAMPAIGN_COUNT", rounds.to_string())
            .env("SEE_CAMPAIGN_SEED", seed.to_string())
            .args(campaign.command)
            .args(["--", "--nocapture"])
            .args(campaign.only);
        let finished = command::finish(&mut cargo, DEADLINE)?;
        // The program itself must have run: one that is not there is no failed round.
        if !finished.stdout.contains("test result:") {
            return Err(Failure::new(format!(
                "the campaign's program did not run:\n{}",
                finished.stderr.trim_end()
            )));
        }
        if finished.status.success() {
            state.passed += rounds;
        } else {
            let log = folder.join(format!("{}-{seed}.log", campaign.name));
            fs::write(&log, format!("{}{}", finished.stdout, finished.stderr))
                .doing(format_args!("cannot write {}", log.display()))?;
            state
                .failed_chunks
                .push(format!("seed {seed}, {rounds} rounds: {}", log.display()));
        }
        let telling = |line: &&str| SUMS.iter().any(|sum| line.starts_with(sum));
        for line in finished.stdout.lines().filter(telling) {
            state.told.push(format!("seed {seed}: {line}"));
        }
        for leak in before.left_on(None) {
            state.leaks.push(format!("seed {seed}: {leak}"));
        }
        state.done += rounds;
        state.seconds += started.elapsed().as_secs();
        save(&file, &state)?;
        let report = folder.join(format!("{}.md", campaign.name));
        fs::write(&report, state.report(campaign.name))
            .doing(format_args!("cannot write {}", report.display()))?;
        println!(
            "{} of {} rounds, {} failed chunks, {} leaks",
            state.done,
            state.wanted,
            state.failed_chunks.len(),
            state.leaks.len()
        );
    }
    Ok(state)
}

fn save(file: &PathBuf, state: &State) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(state).doing("cannot write the campaign's state")?;
    let aside = file.with_extension("new");
    fs::write(&aside, text).doing(format_args!("cannot write {}", aside.display()))?;
    fs::rename(&aside, file).doing(format_args!("cannot write {}", file.display()))
}

/// The commit of the checkout, marked when files differ from it.
pub(crate) fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]);
    command::output(&mut git, Duration::from_secs(30))
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The host in one line: processor, cores, kernel.
pub(crate) fn host() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        })
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{processor}, {cores} cores, Linux {}", kernel.trim())
}

/// A seed that differs each time.
fn clock() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            commit: "c0ffee".to_owned(),
            seed: 7,
            host: "host".to_owned(),
            wanted: 25,
            done: 0,
            passed: 0,
            failed_chunks: Vec::new(),
            leaks: vec!["process 1".to_owned()],
            told: vec!["seed 7: instants tried: 10, leaks: 0".to_owned()],
            seconds: 3,
        }
    }

    #[test]
    fn chunks_go_on_where_they_were_with_seeds_of_their_own() {
        let mut state = state();
        assert_eq!(state.next(10), Some((10, 7)));
        state.done = 20;
        assert_eq!(state.next(10), Some((5, 27)));
        state.done = 25;
        assert_eq!(state.next(10), None);
    }

    #[test]
    fn the_reports_head_adds_up_instants_and_the_leaks_of_rounds_and_host() {
        let mut state = state();
        state.told = vec![
            "seed 7: instants tried: 10 (System, ledger steps), inside: 9, leaks: 0".to_owned(),
            "seed 7: instants tried: 6 (Lxc, PowerOn), inside: 5, leaks: 2".to_owned(),
            "seed 7: cycles: 3".to_owned(),
        ];
        let report = state.report("kills");
        assert!(
            report.contains("- instants tried: 16, leaks: 3\n"),
            "{report}"
        );
    }

    #[test]
    fn the_report_names_commit_seed_counts_host_and_leaks() {
        let report = state().report("kills");
        for part in [
            "c0ffee",
            "seed: 7",
            "0 of 25",
            "host: host",
            "process 1",
            "instants tried: 10",
        ] {
            assert!(report.contains(part), "{part} in {report}");
        }
    }
}
