//! `bench sandboxes`: how long it takes to make a sandbox, to prove its network closed, and to remove it.
//!
//! Sandboxes that are not started, SEE's and python-see's in turn, so that a busy moment of the host hits both. The proof
//! is measured in whole runs of `seectl` with the small guest, which tell how long it took.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{DEADLINE, PYTHON_SEE, ROUNDS, circumstances, images, median, publish, say};
use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::guest;
use crate::setup::{self, Purpose};
use crate::stage::stage;
use crate::workspace;

/// Sandboxes that each program makes in a round.
const EACH: usize = 5;
/// A machine on a network as python-see's users write it.
const DOMAIN: &str = "<domain type='qemu'><memory unit='MiB'>128</memory><os><type>hvm</type></os><devices>\
                      <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><target dev='vda' bus='virtio'/>\
                      </disk></devices></domain>";
/// The longest that the proof may add to a run, in seconds.
const PROOF: f64 = 8.0;

/// What is made: for people, the context of ours, the one of python-see's where it has such, and how many times
/// python-see's time ours may take.
struct Case {
    title: &'static str,
    ours: Value,
    theirs: Option<Value>,
    most: f64,
}

fn cases() -> Vec<Case> {
    let daemon = || json!({ "hypervisor": "qemu:///system" });
    let with = |network: Value| json!({ "hypervisor": "qemu:///system", "network": network });
    let dynamic = || json!({ "dynamic_address": { "ipv4": "10.201.0.0", "prefix": 16, "subnet_prefix": 24 } });
    let case = |title, ours, theirs, most| Case {
        title,
        ours,
        theirs,
        most,
    };
    vec![
        case("no network, system daemon", daemon(), Some(daemon()), 1.5),
        case("no network, embedded", json!({}), None, 0.0),
        case(
            "`dynamic_address`",
            with(dynamic()),
            Some(with(dynamic())),
            1.5,
        ),
        case("`nat`", with(json!({ "mode": "nat" })), None, 0.0),
        case("`isolated`", with(json!({ "mode": "isolated" })), None, 0.0),
        case("`shared`", with(json!({ "mode": "shared" })), None, 0.0),
    ]
}

/// Seconds, as a measuring program prints them.
#[derive(Debug, Default, Deserialize)]
struct Seconds {
    allocate: Vec<f64>,
    deallocate: Vec<f64>,
}

impl Seconds {
    fn add(&mut self, more: Self) {
        self.allocate.extend(more.allocate);
        self.deallocate.extend(more.deallocate);
    }

    /// The medians in milliseconds.
    fn typical(&self) -> Result<(f64, f64), Failure> {
        let of = |seconds: &[f64]| {
            let median = median(seconds).map(|seconds| seconds * 1e3);
            median.ok_or_else(|| Failure::new("a program measured nothing"))
        };
        Ok((of(&self.allocate)?, of(&self.deallocate)?))
    }
}

/// A line of the table, in milliseconds.
#[derive(Debug)]
struct Line {
    title: &'static str,
    ours: (f64, f64),
    theirs: Option<(f64, f64)>,
    most: f64,
}

impl Line {
    /// How many times python-see's time ours takes, from the first action to the last.
    fn ratio(&self) -> Option<f64> {
        let whole = |(allocate, deallocate): (f64, f64)| allocate + deallocate;
        self.theirs.map(|theirs| whole(self.ours) / whole(theirs))
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
        let (mut ours, mut theirs) = (Seconds::default(), Seconds::default());
        stage(case.title, || {
            for _ in 0..ROUNDS {
                ours.add(place.measure(&mut Command::new(&program), &place.context(&case.ours))?);
                if let Some(context) = &case.theirs {
                    let mut python = Command::new(&python);
                    let context = place.context_of_python_see(context);
                    theirs.add(place.measure(python.arg("-I").arg(&script), &context)?);
                }
            }
            Ok(())
        })?;
        lines.push(Line {
            title: case.title,
            ours: ours.typical()?,
            theirs: case.theirs.map(|_| theirs.typical()).transpose()?,
            most: case.most,
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
         `cargo xtask bench sandboxes`: medians of {} sandboxes that are not started, both programs in turn; the proof, \
         in runs of a small emulated guest, from its agent's first answer.\n\n{table}\n{}- {}, release build\n- {}, \
         {PYTHON_SEE}\n",
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
    let lines = lines.iter().filter_map(|line| {
        let ratio = line.ratio().filter(|ratio| *ratio > line.most)?;
        Some(format!(
            "{}: {ratio:.2} times python-see's time, promised are {:.1}",
            line.title, line.most
        ))
    });
    let proofs = proofs.iter().filter(|(_, seconds)| *seconds > PROOF);
    let proofs = proofs.map(|(mode, seconds)| {
        format!("the proof of `{mode}` takes {seconds:.1} s, promised are {PROOF:.0}")
    });
    lines.chain(proofs).collect()
}

fn table(lines: &[Line], proofs: &[(&str, f64)]) -> String {
    let mut text = String::from(
        "| milliseconds to make / to remove | SEE | python-see | ratio of the sums | promised |\n|---|---:|---:|---:|---:|\n",
    );
    let shown = |(allocate, deallocate): (f64, f64)| format!("{allocate:.1} / {deallocate:.1}");
    for line in lines {
        let theirs = line.theirs.map(shown).unwrap_or_default();
        let ratio = line.ratio().map(|ratio| format!("{ratio:.2}"));
        let most = line.theirs.map(|_| format!("{:.1}", line.most));
        let _ = writeln!(
            text,
            "| {} | {} | {theirs} | {} | {} |",
            line.title,
            shown(line.ours),
            ratio.unwrap_or_default(),
            most.unwrap_or_default(),
        );
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

/// A folder with an image that the system's emulators may pass.
struct Place {
    folder: tempfile::TempDir,
    image: PathBuf,
}

impl Place {
    fn new(guest: &Path) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("see-bench-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .doing("cannot make a folder")?;
        let image = folder.path().join("images/guest.qcow2");
        for name in ["images", "clones"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).doing(format_args!("cannot make {}", path.display()))?;
        }
        fs::copy(guest, &image).doing(format_args!("cannot write {}", image.display()))?;
        let domain = folder.path().join("domain.xml");
        fs::write(&domain, DOMAIN).doing(format_args!("cannot write {}", domain.display()))?;
        Ok(Self { folder, image })
    }

    fn context(&self, case: &Value) -> Value {
        let mut context = case.clone();
        context["backend"] = json!("qemu");
        context["acceleration"] = json!("tcg");
        context["disk"] = json!({ "image": self.image });
        context
    }

    fn context_of_python_see(&self, case: &Value) -> Value {
        let mut context = case.clone();
        let folder = self.folder.path();
        context["domain"] = json!({ "configuration": folder.join("domain.xml") });
        context["disk"] = json!({ "image": self.image, "clone": {
            "storage_pool_path": folder.join("clones"), "copy_on_write": true } });
        context
    }

    fn measure(&self, program: &mut Command, context: &Value) -> Result<Seconds, Failure> {
        let folder = self.folder.path();
        program.arg(folder).arg(EACH.to_string());
        let output = command::output(program.arg(context.to_string()), DEADLINE)?;
        serde_json::from_str(&output).doing(format_args!("a program printed {output:?}"))
    }

    /// The seconds that the proof takes in a run of this mode.
    fn proof(&self, seectl: &Path, mode: &str) -> Result<f64, Failure> {
        let mut context =
            self.context(&json!({ "hypervisor": "qemu:///system", "network": { "mode": mode } }));
        context["memory"] = json!("128MiB");
        let run = json!({
            "version": 1,
            "context": context,
            "hooks": { "hooks": [
                { "name": "commands", "configuration": { "ready_timeout": "160s" } } ] },
            "protocol": [
                { "step": "poweron" },
                { "step": "wait", "for": "ready", "timeout": "300s" } ],
        });
        let file = self.folder.path().join("run.json");
        fs::write(&file, run.to_string()).doing(format_args!("cannot write {}", file.display()))?;
        let mut run = Command::new(seectl);
        run.args(["run", "--output", "json"]).arg(&file);
        run.current_dir(self.folder.path())
            .env("SEE_STATE_DIR", self.folder.path().join("state"));
        let output = command::output(&mut run, DEADLINE)?;
        proven_in(&output).ok_or_else(|| {
            Failure::new(format!(
                "the run does not tell how long its proof took:\n{output}"
            ))
        })
    }
}

/// The seconds that the proof took, from the events of a run.
fn proven_in(output: &str) -> Option<f64> {
    let lines = output.lines();
    let mut events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let proven = events.find(|event| event["event"] == "isolation_proven")?;
    proven["attributes"]["seconds"].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slower_than_promised_is_told_and_what_has_nothing_beside_it_is_not() {
        let line = |ours, theirs| Line {
            title: "x",
            ours,
            theirs,
            most: 1.5,
        };
        let fast = line((10.0, 4.0), Some((10.0, 2.0)));
        assert_eq!(
            slow(&[fast, line((9e9, 9e9), None)], &[("isolated", 3.0)]),
            [""; 0]
        );
        let found = slow(&[line((20.0, 2.0), Some((10.0, 1.0)))], &[("shared", 9.0)]);
        assert!(found[0].starts_with("x: 2.00 times"), "{found:?}");
        assert!(found[1].contains("`shared` takes 9.0 s"), "{found:?}");
    }

    #[test]
    fn the_time_of_the_proof_is_read_from_the_events_of_a_run() {
        let output = "{\"event\":\"ready\"}\n{\"event\":\"isolation_proven\",\"attributes\":{\"tried\":9,\"seconds\":2.5}}\n";
        assert_eq!(proven_in(output), Some(2.5));
        assert_eq!(proven_in("nothing"), None);
    }
}
