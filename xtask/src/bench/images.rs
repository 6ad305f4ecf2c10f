//! `bench images`: how fast images come, and how much memory that takes.
//!
//! From nginx on loopback `seectl image pull` and `curl | sha256sum` fetch the same file in turn; from Glance
//! `seectl image pull` and python-see's provider the same image. Ours also writes the image to the disk, looks into
//! it and makes sure that it survives a crash.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{DEADLINE, PYTHON_SEE, ROUNDS, circumstances, median, publish, say};
use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::setup::{self, Purpose};
use crate::stage::stage;
use crate::workspace;

/// The image whose throughput is measured, in MiB.
const FAST: u64 = 1024;
/// The images that must not take more memory the larger they are, in MiB.
const SIZES: [u64; 3] = [64, 1024, 4096];
/// The image in Glance, in MiB.
const STORED: u64 = 512;
/// The least share of the throughput of curl and a hash.
const SHARE: f64 = 0.9;
/// The most memory at any size, in MiB.
const MEMORY: f64 = 32.0;
/// What python-see's provider of Glance's images needs beside itself: all of its providers load together.
const PYTHON_NEEDS: [&str; 4] = [
    "boto3",
    "keystoneauth1",
    "libvirt-python",
    "python-glanceclient",
];
/// How often a running program's memory is looked at. The kernel keeps the peak.
const LOOK: Duration = Duration::from_millis(2);

/// What the servers say of themselves.
#[derive(Debug, Deserialize)]
struct Told {
    nginx: Vec<File>,
    glance: Glance,
}

#[derive(Debug, Deserialize)]
struct File {
    mib: u64,
    url: String,
}

#[derive(Debug, Deserialize)]
struct Glance {
    auth: Value,
    images: Vec<Stored>,
}

#[derive(Debug, Deserialize)]
struct Stored {
    name: String,
}

/// The servers, as long as their input is open.
struct Servers {
    process: Child,
    input: Option<ChildStdin>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.input.take());
        // It ends by itself; one that does not is ended.
        if command::wait(&mut self.process, Duration::from_secs(30), "the servers").is_err() {
            let _ = self.process.kill();
        }
    }
}

/// One fetch: how long it took and how much memory.
#[derive(Debug, Clone, Copy)]
struct Fetched {
    seconds: f64,
    mib: f64,
}

pub(super) fn run() -> Result<(), Failure> {
    stage("setup", || setup::install(Purpose::Bench))?;
    let folder = workspace::target().join("bench");
    let python = stage("python-see", || {
        super::environment(&folder).and_then(|python| with_needs(&folder, python))
    })?;
    let (seectl, server) = stage("seectl", build)?;
    let (servers, told) = stage("servers", || start(&server))?;
    let place = folder.join("images");
    // What an interrupted run left.
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).doing(format_args!("cannot make {}", place.display()))?;
    let measured = measure(&told, &seectl, &python, &place);
    fs::remove_dir_all(&place).doing(format_args!("cannot remove {}", place.display()))?;
    drop(servers);
    let measured = measured?;
    println!("\n{}", measured.table());
    publish(&folder, "images", &chapter(&measured, &python)?)?;
    let broken = measured.broken();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::with(exit_code::TOO_SLOW, broken.join("; ")))
}

/// Everything that was measured; seconds are medians.
#[derive(Debug)]
struct Measured {
    ours: f64,
    curl: f64,
    ours_of_glance: f64,
    theirs: f64,
    /// Sizes in MiB with the peak of memory in MiB, ours and, where it was measured, python-see's.
    memory: Vec<(u64, f64)>,
}

fn measure(told: &Told, seectl: &Path, python: &Path, place: &Path) -> Result<Measured, Failure> {
    let file = |mib: u64| {
        let found = told.nginx.iter().find(|file| file.mib == mib);
        found.ok_or_else(|| Failure::new(format!("the servers have no image of {mib} MiB")))
    };
    let stored = told
        .glance
        .images
        .first()
        .ok_or_else(|| Failure::new("Glance has no image"))?;
    let fast = file(FAST)?;
    let of_nginx = json!({ "provider": "http", "uri": fast.url });
    let of_glance = json!({ "provider": "glance", "name": stored.name,
        "provider_configuration": { "os_auth": told.glance.auth } });
    let (mut ours, mut curl, mut ours_of_glance, mut theirs) = (vec![], vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        stage(&format!("round {round} of {ROUNDS}"), || {
            ours.push(pull(seectl, &of_nginx, place)?.seconds);
            curl.push(hashed(&fast.url)?);
            ours_of_glance.push(pull(seectl, &of_glance, place)?.seconds);
            theirs.push(pull_by_python(python, stored, &told.glance.auth, place)?);
            Ok(())
        })?;
    }
    let mut memory = Vec::new();
    for mib in SIZES {
        let section = json!({ "provider": "http", "uri": file(mib)?.url });
        let fetched = stage(&format!("memory at {mib} MiB"), || {
            pull(seectl, &section, place)
        })?;
        memory.push((mib, fetched.mib));
    }
    let typical = |rounds: &[f64]| median(rounds).unwrap_or(f64::INFINITY);
    Ok(Measured {
        ours: typical(&ours),
        curl: typical(&curl),
        ours_of_glance: typical(&ours_of_glance),
        theirs: typical(&theirs),
        memory,
    })
}

/// Pulls one image into a store that is empty.
fn pull(seectl: &Path, section: &Value, place: &Path) -> Result<Fetched, Failure> {
    let store = place.join("store");
    // What the round before stored is not wanted.
    let _ = fs::remove_dir_all(&store);
    let file = place.join("run.json");
    let run = json!({ "version": 1, "context": { "disk": { "image": section } } });
    fs::write(&file, run.to_string()).doing(format_args!("cannot write {}", file.display()))?;
    let mut command = Command::new(seectl);
    command
        .args(["image", "pull"])
        .arg(&file)
        .env("SEE_IMAGE_STORE", &store)
        .env("SEE_STATE_DIR", place.join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let name = command::shown(&command);
    let begin = Instant::now();
    let mut child = command
        .spawn()
        .doing(format_args!("cannot start `{name}`"))?;
    let mut peak = 0.0_f64;
    let status = loop {
        peak = peak.max(peak_of(child.id()).unwrap_or(0.0));
        if let Some(status) = child
            .try_wait()
            .doing(format_args!("cannot wait for `{name}`"))?
        {
            break status;
        }
        if begin.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::new(format!("`{name}` does not end")));
        }
        std::thread::sleep(LOOK);
    };
    let seconds = begin.elapsed().as_secs_f64();
    if !status.success() {
        return Err(Failure::new(format!("`{name}` ended with {status}")));
    }
    Ok(Fetched { seconds, mib: peak })
}

/// The most memory that a process has had in its life, in MiB.
fn peak_of(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// curl into a hash, which is the least that anybody does who trusts no network.
fn hashed(url: &str) -> Result<f64, Failure> {
    let line = format!(
        "set -o pipefail; curl --silent --fail {} | sha256sum",
        command::quoted(url)
    );
    let begin = Instant::now();
    command::output(Command::new("bash").args(["-c", &line]), DEADLINE)?;
    Ok(begin.elapsed().as_secs_f64())
}

/// python-see's provider, by its own clock: the time in which Python starts does not count.
fn pull_by_python(
    python: &Path,
    stored: &Stored,
    auth: &Value,
    place: &Path,
) -> Result<f64, Failure> {
    let path = place.join("python");
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).doing(format_args!("cannot make {}", path.display()))?;
    let told = place.join("python.json");
    let text = json!({ "name": stored.name, "path": path, "os_auth": auth }).to_string();
    fs::write(&told, text).doing(format_args!("cannot write {}", told.display()))?;
    let script = place.join("bench_images.py");
    fs::write(&script, include_str!("../bench_images.py"))
        .doing(format_args!("cannot write {}", script.display()))?;
    let mut command = Command::new(python);
    let output = command::output(command.arg("-I").arg(&script).arg(&told), DEADLINE)?;
    let said: Value =
        serde_json::from_str(&output).doing(format_args!("python-see printed {output:?}"))?;
    said["seconds"]
        .as_f64()
        .ok_or_else(|| Failure::new(format!("python-see printed {output:?}")))
}

/// Installs what python-see's providers need into its Python.
pub(super) fn with_needs(folder: &Path, python: PathBuf) -> Result<PathBuf, Failure> {
    let done = folder.join("venv/installed-for-images");
    let wanted = PYTHON_NEEDS.join(" ");
    if fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    command::output(pip.args(PYTHON_NEEDS), DEADLINE)?;
    fs::write(&done, wanted).doing(format_args!("cannot write {}", done.display()))?;
    Ok(python)
}

/// The program that users run, as they run it, and the servers, for which the quicker build serves.
fn build() -> Result<(PathBuf, PathBuf), Failure> {
    let target = workspace::target();
    for words in [
        &["--release", "--package", "see-cli"][..],
        &["--package", "see-tests", "--example", "image_server"],
    ] {
        let mut cargo = Command::new(workspace::cargo());
        cargo
            .current_dir(workspace::root())
            .env("CARGO_TARGET_DIR", &target)
            .args(["build", "--quiet", "--locked"])
            .args(words);
        command::output(&mut cargo, DEADLINE)?;
    }
    Ok((
        target.join("release/seectl"),
        target.join("debug/examples/image_server"),
    ))
}

fn start(program: &Path) -> Result<(Servers, Told), Failure> {
    let mut command = Command::new(program);
    command
        .args(SIZES.map(|mib| mib.to_string()))
        .args(["glance", &STORED.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = command.spawn().doing("cannot start the servers")?;
    let output = process.stdout.take();
    let servers = Servers {
        input: process.stdin.take(),
        process,
    };
    let mut line = String::new();
    let output = output.ok_or_else(|| Failure::new("the servers have no output"))?;
    BufReader::new(output)
        .read_line(&mut line)
        .doing("the servers say nothing")?;
    let told = serde_json::from_str(&line).doing(format_args!("the servers printed {line:?}"))?;
    Ok((servers, told))
}

impl Measured {
    fn table(&self) -> String {
        let speed = |mib: u64, seconds: f64| mib as f64 / seconds;
        let mut text = format!(
            "| MiB a second | SEE | beside | ratio | promised |\n|---|---:|---:|---:|---:|\n\
             | {FAST} MiB from nginx; `curl \\| sha256sum` | {:.0} | {:.0} | {:.2} | {SHARE} |\n\
             | {STORED} MiB from Glance; python-see | {:.0} | {:.0} | {:.2} | |\n\n\
             | peak memory in MiB | SEE | promised |\n|---|---:|---:|\n",
            speed(FAST, self.ours),
            speed(FAST, self.curl),
            self.curl / self.ours,
            speed(STORED, self.ours_of_glance),
            speed(STORED, self.theirs),
            self.theirs / self.ours_of_glance,
        );
        for (mib, peak) in &self.memory {
            text += &format!("| image of {mib} MiB | {peak:.1} | {MEMORY} |\n");
        }
        text
    }

    /// What is worse than promised.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let share = self.curl / self.ours;
        if share < SHARE {
            broken.push(format!(
                "{share:.2} of the throughput of curl and a hash, promised are {SHARE}"
            ));
        }
        for (mib, peak) in &self.memory {
            if *peak > MEMORY {
                broken.push(format!(
                    "{peak:.1} MiB of memory for an image of {mib} MiB, promised are {MEMORY}"
                ));
            }
        }
        broken
    }
}

fn chapter(measured: &Measured, python: &Path) -> Result<String, Failure> {
    Ok(format!(
        "## Images beside curl and python-see\n\n\
         `cargo xtask bench images`: medians of {ROUNDS} rounds from servers on loopback, in turn. `seectl image \
         pull` is timed from its start to its end, with an empty store; it writes the image to the disk and makes \
         it last, which `curl | sha256sum` does not. python-see's provider is timed without Python's start.\n\n\
         {}\n{}- {}, release build\n- {}, {PYTHON_SEE}\n",
        measured.table(),
        circumstances()?,
        say(Command::new("rustc").arg("--version"))?,
        say(Command::new(python).arg("--version"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slower_or_larger_than_promised_is_told() {
        let mut measured = Measured {
            ours: 10.0,
            curl: 9.5,
            ours_of_glance: 1.0,
            theirs: 2.0,
            memory: vec![(64, 20.0), (1024, 31.9)],
        };
        assert_eq!(measured.broken(), Vec::<String>::new());
        assert!(measured.table().contains("| 0.95 | 0.9 |"));
        measured.curl = 8.0;
        measured.memory[1].1 = 40.0;
        let broken = measured.broken().join("\n");
        assert!(broken.contains("0.80 of the throughput"), "{broken}");
        assert!(broken.contains("an image of 1024 MiB"), "{broken}");
    }

    #[test]
    fn the_peak_of_a_process_is_known_to_the_kernel() {
        let own = peak_of(std::process::id()).expect("it runs");
        assert!((0.5..100_000.0).contains(&own), "{own}");
    }
}
