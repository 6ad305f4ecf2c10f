//! `bench sandboxes`: how long it takes to make a sandbox, to prove its network closed, and to remove it; and how many are
//! made and removed in a second where many are at once.
//!
//! Sandboxes that are not started, SEE's and python-see's in turn, so that a busy moment of the host hits both. The proof
//! is measured in whole runs of `seectl` with the small guest, which tell how long it took.

mod place;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use self::place::Place;
use super::{DEADLINE, PYTHON_SEE, ROUNDS, circumstances, images, median, publish, say};
use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::guest;
use crate::setup::{self, Purpose};
use crate::stage::stage;
use crate::workspace;

/// Sandboxes that each program makes in a round, one after the other.
const EACH: usize = 5;
/// How many each program makes at once.
const AT_ONCE: usize = 16;
/// The longest that the proof may add to a run, in seconds.
const PROOF: f64 = 5.0;

/// What is made.
struct Case {
    /// For people.
    title: &'static str,
    context: Value,
    /// How often in a round each of those at once is made; never: only one after the other.
    repeated_at_once: usize,
    /// Where python-see has such.
    promise: Option<Promise>,
}

/// What is promised beside python-see. Each is a sixth worse than what was measured when it was promised, since two
/// rounds on the same host differ that much.
#[derive(Debug, Clone, Copy)]
struct Promise {
    /// How many times python-see's time ours takes at most.
    making: f64,
    removing: f64,
    /// How many times as many as python-see's ours are in a second at least.
    at_once: f64,
}

fn cases() -> Vec<Case> {
    let with = |network: Value| json!({ "hypervisor": "qemu:///system", "network": network });
    let mode = |mode: &str| with(json!({ "mode": mode }));
    let dynamic =
        json!({ "dynamic_address": { "ipv4": "10.201.0.0", "prefix": 16, "subnet_prefix": 24 } });
    let case = |title, context, repeated_at_once, promise| Case {
        title,
        context,
        repeated_at_once,
        promise,
    };
    let without = Promise {
        making: 1.15,
        removing: 1.5,
        at_once: 0.75,
    };
    let on_network = Promise {
        making: 1.35,
        removing: 1.4,
        at_once: 0.85,
    };
    let daemon = json!({ "hypervisor": "qemu:///system" });
    vec![
        case("no network, system daemon", daemon, EACH, Some(without)),
        case("no network, embedded", json!({}), 0, None),
        case("`dynamic_address`", with(dynamic), 1, Some(on_network)),
        case("`nat`", mode("nat"), 0, None),
        case("`isolated`", mode("isolated"), 1, None),
        case("`shared`", mode("shared"), 1, None),
    ]
}

/// What one program took: each time in milliseconds, and sandboxes in a second where many are at once.
#[derive(Debug, Default)]
struct Side {
    making: Vec<f64>,
    removing: Vec<f64>,
    at_once: Vec<f64>,
}

/// The medians of a side.
#[derive(Debug, Clone, Copy)]
struct Typical {
    making: f64,
    removing: f64,
    at_once: Option<f64>,
}

impl Side {
    /// Measures one after the other, then many at once.
    fn round(
        &mut self,
        program: impl Fn() -> Command,
        (place, context): (&Place, &Value),
        repeated_at_once: usize,
    ) -> Result<(), Failure> {
        let found = place.measure(program(), EACH, 1, context)?;
        let milliseconds = |seconds: Vec<f64>| seconds.into_iter().map(|each| each * 1e3);
        self.making.extend(milliseconds(found.allocate));
        self.removing.extend(milliseconds(found.deallocate));
        if repeated_at_once > 0 {
            let found = place.measure(program(), repeated_at_once, AT_ONCE, context)?;
            self.at_once.push(found.allocate.len() as f64 / found.all);
        }
        Ok(())
    }

    fn typical(&self) -> Result<Typical, Failure> {
        let of =
            |found: &[f64]| median(found).ok_or_else(|| Failure::new("a program measured nothing"));
        Ok(Typical {
            making: of(&self.making)?,
            removing: of(&self.removing)?,
            at_once: median(&self.at_once),
        })
    }
}

/// A case that was measured.
#[derive(Debug)]
struct Line {
    title: &'static str,
    ours: Typical,
    theirs: Option<(Typical, Promise)>,
}

impl Line {
    /// How many times python-see's each of ours is.
    fn ratios(&self) -> Option<Promise> {
        let (theirs, _) = self.theirs?;
        let at_once = self.ours.at_once.zip(theirs.at_once);
        Some(Promise {
            making: self.ours.making / theirs.making,
            removing: self.ours.removing / theirs.removing,
            at_once: at_once.map_or(f64::INFINITY, |(ours, theirs)| ours / theirs),
        })
    }
}

pub(super) fn run() -> Result<(), Failure> {
    stage("setup", || setup::install(Purpose::Bench))?;
    setup::start_daemon()?;
    let image = stage("guest", guest::build)?;
    let folder = workspace::target().join("bench");
    let python = stage("python-see", || {
        super::environment(&folder).and_then(|python| images::with_needs(&folder, python))
    })?;
    let (program, seectl) = stage("our programs", build)?;
    let place = Place::new(&image)?;
    let script = place.folder.path().join("bench_sandboxes.py");
    fs::write(&script, include_str!("../bench_sandboxes.py"))
        .doing(format_args!("cannot write {}", script.display()))?;
    let mut lines = Vec::new();
    for case in cases() {
        let (mut ours, mut theirs) = (Side::default(), Side::default());
        let context = place.context(&case.context);
        let context_of_theirs = place.context_of_python_see(&case.context);
        let repeated = case.repeated_at_once;
        stage(case.title, || {
            for _ in 0..ROUNDS {
                ours.round(|| Command::new(&program), (&place, &context), repeated)?;
                if case.promise.is_some() {
                    let program = || {
                        let mut python = Command::new(&python);
                        python.arg("-I").arg(&script);
                        python
                    };
                    theirs.round(program, (&place, &context_of_theirs), repeated)?;
                }
            }
            Ok(())
        })?;
        let theirs = case.promise.map(|promise| Ok((theirs.typical()?, promise)));
        lines.push(Line {
            title: case.title,
            ours: ours.typical()?,
            theirs: theirs.transpose()?,
        });
    }
    let mut proofs = Vec::new();
    for mode in ["isolated", "shared"] {
        let seconds = stage(&format!("proof of `{mode}`"), || {
            let rounds: Result<Vec<f64>, Failure> =
                (0..ROUNDS).map(|_| place.proof(&seectl, mode)).collect();
            Ok(median(&rounds?).unwrap_or(f64::INFINITY))
        })?;
        proofs.push((mode, seconds));
    }
    let table = table(&lines, &proofs);
    println!("\n{table}");
    let text = format!(
        "## Making and removing sandboxes beside python-see\n\n\
         `cargo xtask bench sandboxes`: medians of {} sandboxes that are not started, and of {ROUNDS} rounds with \
         {AT_ONCE} at once, both programs in turn; the proof, in runs of a small emulated guest, from its agent's first \
         answer.\n\n{table}\n{}- {}, release build\n- {}, {PYTHON_SEE}\n",
        ROUNDS * EACH,
        circumstances()?,
        say(Command::new("rustc").arg("--version"))?,
        say(Command::new(&python).arg("--version"))?,
    );
    publish(&folder, "sandboxes", &text)?;
    let slow = slow(&lines, &proofs);
    if slow.is_empty() {
        return Ok(());
    }
    Err(Failure::with(exit_code::TOO_SLOW, slow.join("; ")))
}

/// What is slower than promised.
fn slow(lines: &[Line], proofs: &[(&str, f64)]) -> Vec<String> {
    let mut found = Vec::new();
    for line in lines {
        let (Some(ratios), Some((_, promise))) = (line.ratios(), line.theirs) else {
            continue;
        };
        let title = line.title;
        for (what, ratio, most) in [
            ("making", ratios.making, promise.making),
            ("removing", ratios.removing, promise.removing),
        ] {
            if ratio > most {
                found.push(format!(
                    "{title}: {what} takes {ratio:.2} times python-see's time, promised are {most:.2}"
                ));
            }
        }
        if ratios.at_once < promise.at_once {
            found.push(format!(
                "{title}: {AT_ONCE} at once are {:.2} times as many in a second as python-see's, promised are {:.2}",
                ratios.at_once, promise.at_once
            ));
        }
    }
    let proofs = proofs.iter().filter(|(_, seconds)| *seconds > PROOF);
    found.extend(proofs.map(|(mode, seconds)| {
        format!("the proof of `{mode}` takes {seconds:.1} s, promised are {PROOF:.0}")
    }));
    found
}

fn table(lines: &[Line], proofs: &[(&str, f64)]) -> String {
    let mut text = String::from(
        "| milliseconds to make / to remove | SEE | python-see | ratios | promised |\n|---|---:|---:|---:|---:|\n",
    );
    for line in lines {
        let shown = |side: Typical| format!("{:.1} / {:.1}", side.making, side.removing);
        let ratios = |side: Promise| format!("{:.2} / {:.2}", side.making, side.removing);
        row(&mut text, line, Some(shown(line.ours)), shown, ratios);
    }
    let _ = write!(
        text,
        "\n| sandboxes a second, {AT_ONCE} at once | SEE | python-see | ratio | promised |\n|---|---:|---:|---:|---:|\n",
    );
    for line in lines {
        let shown = |rate: f64| format!("{rate:.1}");
        let theirs = |side: Typical| side.at_once.map(shown).unwrap_or_default();
        let ratio = |side: Promise| format!("{:.2}", side.at_once);
        row(&mut text, line, line.ours.at_once.map(shown), theirs, ratio);
    }
    text.push_str("\n| seconds | SEE | promised |\n|---|---:|---:|\n");
    for (mode, seconds) in proofs {
        let _ = writeln!(
            text,
            "| the proof that `{mode}` is closed | {seconds:.1} | {PROOF:.0} |"
        );
    }
    text
}

/// Adds a line to a table, where ours was measured.
fn row(
    text: &mut String,
    line: &Line,
    ours: Option<String>,
    theirs: impl Fn(Typical) -> String,
    ratio: impl Fn(Promise) -> String,
) {
    let Some(ours) = ours else { return };
    let beside = line.ratios().zip(line.theirs);
    let beside = beside.map(|(ratios, (found, promise))| {
        format!("{} | {} | {}", theirs(found), ratio(ratios), ratio(promise))
    });
    let _ = writeln!(
        text,
        "| {} | {ours} | {} |",
        line.title,
        beside.as_deref().unwrap_or(" | | ")
    );
}

fn build() -> Result<(PathBuf, PathBuf), Failure> {
    let target = workspace::target();
    for words in [
        &["--package", "see-context", "--example", "bench_sandboxes"][..],
        &["--package", "see-cli"],
    ] {
        let mut cargo = Command::new(workspace::cargo());
        cargo
            .current_dir(workspace::root())
            .env("CARGO_TARGET_DIR", &target)
            .args(["build", "--quiet", "--locked", "--release"])
            .args(words);
        command::output(&mut cargo, DEADLINE)?;
    }
    let release = target.join("release");
    Ok((
        release.join("examples/bench_sandboxes"),
        release.join("seectl"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ours: [f64; 3], theirs: Option<[f64; 3]>) -> Line {
        let typical = |[making, removing, at_once]: [f64; 3]| Typical {
            making,
            removing,
            at_once: Some(at_once),
        };
        let promise = Promise {
            making: 1.2,
            removing: 1.5,
            at_once: 0.8,
        };
        Line {
            title: "x",
            ours: typical(ours),
            theirs: theirs.map(|theirs| (typical(theirs), promise)),
        }
    }

    #[test]
    fn what_is_slower_than_promised_is_told_and_what_has_nothing_beside_it_is_not() {
        let theirs = Some([10.0, 2.0, 100.0]);
        let fine = [line([11.0, 2.9, 81.0], theirs), line([9e9, 9e9, 0.1], None)];
        assert_eq!(slow(&fine, &[("isolated", 3.0)]), [""; 0]);
        for (ours, wanted) in [
            ([13.0, 1.0, 99.0], "x: making takes 1.30 times"),
            ([1.0, 4.0, 99.0], "x: removing takes 2.00 times"),
            ([1.0, 1.0, 50.0], "x: 16 at once are 0.50 times"),
        ] {
            let found = slow(&[line(ours, theirs)], &[]);
            assert!(
                found.len() == 1 && found[0].starts_with(wanted),
                "{found:?}"
            );
        }
        let found = slow(&[], &[("shared", 9.0)]);
        assert!(found[0].contains("`shared` takes 9.0 s"), "{found:?}");
    }

    #[test]
    fn what_was_not_measured_at_once_stands_in_one_table_alone() {
        let mut alone = line([1.0, 2.0, 3.0], None);
        alone.ours.at_once = None;
        alone.title = "alone";
        let text = table(
            &[line([1.0, 2.0, 80.0], Some([1.0, 2.0, 100.0])), alone],
            &[],
        );
        assert!(
            text.contains("| x | 1.0 / 2.0 | 1.0 / 2.0 | 1.00 / 1.00 | 1.20 / 1.50 |"),
            "{text}"
        );
        assert!(
            text.contains("| x | 80.0 | 100.0 | 0.80 | 0.80 |"),
            "{text}"
        );
        assert_eq!(text.matches("| alone |").count(), 1, "{text}");
    }
}
