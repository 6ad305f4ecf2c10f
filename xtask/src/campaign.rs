//! `campaign`: the large counts, in chunks, resumable, with a report.
//!
//! A campaign is test programs that take their count and their seed from the
//! environment (`SEE_CAMPAIGN_COUNT` and `SEE_CAMPAIGN_SEED`, or proptest's own). After each chunk
//! the state is saved, so an interrupted campaign goes on where it was.

mod list;
mod state;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use self::list::{CAMPAIGNS, Campaign};
use self::state::{INSTANTS, State};
use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::fuzz;
use crate::guest;
use crate::hosts::{Entered, Host};
use crate::leftovers::Look;
use crate::setup::{self, Purpose, Started};
use crate::test::programs::{self, Program};
use crate::workspace;

/// What one chunk may take.
const DEADLINE: Duration = Duration::from_secs(3600);

/// How the lines begin in which a program sums up its rounds.
const SUMS: [&str; 3] = [INSTANTS, "cycles:", "inputs tried:"];

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let mut words = words.iter();
    let Some(name) = words.next() else {
        for campaign in CAMPAIGNS {
            println!("  {:<10} {}", campaign.name, campaign.help);
        }
        println!(
            "usage: cargo xtask campaign NAME [--count N] [--seed N] [--fresh] [--host debian-13]"
        );
        return Ok(());
    };
    let campaign = CAMPAIGNS.iter().find(|it| it.name == name).ok_or_else(|| {
        let known: Vec<_> = CAMPAIGNS.iter().map(|it| it.name).collect();
        Failure::usage(format!(
            "no campaign is called `{name}`; there are {}",
            known.join(", ")
        ))
    })?;
    let mut asked = Asked {
        campaign,
        count: campaign.count,
        seed: None,
        fresh: false,
        host: None,
    };
    while let Some(word) = words.next() {
        if word == "--host" {
            let name = words.next().map_or("", String::as_str);
            asked.host = Some(Host::named(name)?);
            continue;
        }
        let mut number = || -> Result<u64, Failure> {
            words
                .next()
                .and_then(|it| it.parse().ok())
                .ok_or_else(|| Failure::usage(format!("{word} needs a number")))
        };
        match word.as_str() {
            "--count" => asked.count = number()?,
            "--seed" => asked.seed = Some(number()?),
            "--fresh" => asked.fresh = true,
            _ => return Err(Failure::usage(format!("`{word}` is not known here"))),
        }
    }
    if asked.host.is_some() && !campaign.elsewhere {
        return Err(Failure::usage(format!(
            "the campaign {name} does not run on another host"
        )));
    }
    go(&asked)
}

/// What the command line asks for.
struct Asked {
    campaign: &'static Campaign,
    count: u64,
    seed: Option<u64>,
    fresh: bool,
    /// The other host that the rounds run on.
    host: Option<Host>,
}

impl Asked {
    /// The name of its report and of its state.
    fn name(&self) -> String {
        match self.host {
            Some(host) => format!("{}-{}", self.campaign.name, host.name),
            None => self.campaign.name.to_owned(),
        }
    }
}

fn go(asked: &Asked) -> Result<(), Failure> {
    setup::install(Purpose::Everything)?;
    guest::build()?;
    let outcome = match asked.host {
        Some(host) => build(asked.campaign).and_then(|programs| {
            let entered = Entered::new(host)?;
            chunks(asked, &programs, Some(&entered))
        }),
        None => {
            let daemon = setup::start_daemon()?;
            let outcome = build(asked.campaign).and_then(|programs| chunks(asked, &programs, None));
            if daemon == Started::Yes {
                setup::stop_daemon()?;
            }
            outcome
        }
    };
    let state = outcome?;
    println!("{}", state.report(&asked.name()));
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

/// Builds the programs that the rounds run, and gives the campaign's own. It may replace this very program, which the
/// daemon's parent is: that one is started before.
fn build(campaign: &Campaign) -> Result<Vec<Program>, Failure> {
    let cargo = |words: &[&str]| {
        let mut cargo = Command::new(workspace::cargo());
        cargo
            .current_dir(workspace::root())
            .env("CARGO_TARGET_DIR", workspace::target())
            .args(words);
        cargo
    };
    if campaign.name == "fuzz" {
        fuzz::build(fuzz::Speed::Fast)?;
    } else {
        let mut build = cargo(&["build", "--quiet", "--workspace", "--locked"]);
        command::output(&mut build, DEADLINE)?;
    }
    let mut test = cargo(&["test", "--locked"]);
    programs::build(test.args(campaign.programs), DEADLINE)
}

fn chunks(asked: &Asked, programs: &[Program], host: Option<&Entered>) -> Result<State, Failure> {
    let &Asked {
        campaign,
        count,
        seed,
        fresh,
        ..
    } = asked;
    let name = asked.name();
    let folder = workspace::target().join("campaign");
    fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
    let file = folder.join(format!("{name}.json"));
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
            host: match asked.host {
                Some(other) => format!("{} on {}", other.name, self::host()),
                None => self::host(),
            },
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
        let before = Look::on(host)?;
        let (mut ran, mut failed) = (false, false);
        for program in programs {
            let mut command = program.command(host);
            command
                .env("SEE_CAMPAIGN_COUNT", rounds.to_string())
                .env("SEE_CAMPAIGN_SEED", seed.to_string())
                .env("PROPTEST_CASES", rounds.to_string())
                .env("PROPTEST_RNG_SEED", seed.to_string())
                .arg("--nocapture")
                .args(campaign.only);
            let finished = command::finish(&mut command, DEADLINE)?;
            let is_program = finished.stdout.contains("test result:");
            // Some have no tests, and a harness of their own.
            if !is_program && finished.status.success() {
                continue;
            }
            // A program itself must have run: one that is not there is no failed round.
            if !is_program {
                return Err(Failure::new(format!(
                    "the campaign's program did not run:\n{}",
                    finished.stderr.trim_end()
                )));
            }
            ran |= !finished.stdout.contains("running 0 tests");
            if !finished.status.success() {
                failed = true;
                let log = folder.join(format!("{name}-{seed}-{}.log", program.file_name()));
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
        }
        if !ran {
            return Err(Failure::new(
                "the campaign's programs have none of its tests",
            ));
        }
        if !failed {
            state.passed += rounds;
        }
        for leak in before.left_on(host) {
            state.leaks.push(format!("seed {seed}: {leak}"));
        }
        state.done += rounds;
        state.seconds += started.elapsed().as_secs();
        save(&file, &state)?;
        let report = folder.join(format!("{name}.md"));
        fs::write(&report, state.report(&name))
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
