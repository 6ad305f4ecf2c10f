//! `demo`: what a newcomer sees first. Sets up what is missing, runs a sample
//! in a throw-away machine, and shows that nothing was left behind.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::guest;
use crate::leftovers::Look;
use crate::setup::{self, Purpose};
use crate::stage::stage;
use crate::workspace;

/// The exit code of `seectl run` when the run went well and the sample did not.
const SAMPLE_FAILED: i32 = 1;
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
/// The run has a limit of its own, which is far below.
const RUN_DEADLINE: Duration = Duration::from_secs(600);

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: cargo xtask demo"));
    }
    let started = Instant::now();
    stage("setup", || setup::install(Purpose::Demo))?;
    let image = stage("guest", guest::build)?;
    let seectl = stage("build seectl", build)?;
    let folder = workspace::target().join("demo");
    let results = folder.join("results");
    let run_file = prepare(&folder, &results, &image)?;
    println!(
        "   {:.2} s after the command: seectl starts\n",
        started.elapsed().as_secs_f64()
    );

    let mut seectl_run = Command::new(&seectl);
    seectl_run
        .arg("run")
        .arg(&run_file)
        .arg("--sample")
        .arg(folder.join("sample.sh"))
        .args(["--command", "sh {sample}"])
        .arg("--results")
        .arg(&results)
        .stdin(Stdio::null());
    let status = command::passed_through(&mut seectl_run, RUN_DEADLINE)?;
    let own = only_folder(&results);
    println!();
    if let Some(own) = &own {
        for picture in pictures(own) {
            println!("screenshot: {}", picture.display());
        }
        println!("results:    {}", own.display());
        if let Some(seconds) = until_it_ran(own) {
            println!("machine:    {seconds:.2} s after seectl's start it ran");
        }
    }
    // What is left is worth telling also when the run went wrong.
    nothing_left(&seectl, own.as_deref())?;
    if own.is_some() {
        println!("nothing left behind: checked");
    }
    match status.code() {
        Some(SAMPLE_FAILED) if own.is_some() => {
            println!(
                "the sample exited with 3, as it should ({:.1} s)",
                started.elapsed().as_secs_f64()
            );
            Ok(())
        }
        Some(0) => Err(Failure::new(
            "the sample should have exited with 3, but seectl says it succeeded",
        )),
        Some(code) => Err(Failure::new(format!(
            "the demonstration failed: seectl exited with {code}; `seectl run --help` says what \
             that means"
        ))),
        None => Err(Failure::new(format!(
            "seectl was ended by signal {}",
            status.signal().unwrap_or_default()
        ))),
    }
}

/// How long after its begin the run's machine ran, in seconds.
fn until_it_ran(own: &Path) -> Option<f64> {
    let result = fs::read(own.join("result.json")).ok()?;
    let result: serde_json::Value = serde_json::from_slice(&result).ok()?;
    let mut steps = result["steps"].as_array()?.iter();
    let poweron = steps.find(|step| step["step"] == "poweron")?;
    Some(poweron["start"].as_f64()? + poweron["seconds"].as_f64()?)
}

/// Builds the program. Cargo itself sees whether there is anything to do.
fn build() -> Result<PathBuf, Failure> {
    let target = workspace::target();
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--quiet", "--locked", "--package", "see-cli"]);
    command::output(&mut cargo, BUILD_DEADLINE)?;
    Ok(target.join("debug/seectl"))
}

/// Writes the run file and the sample, and empties the results of last time.
fn prepare(folder: &Path, results: &Path, image: &Path) -> Result<PathBuf, Failure> {
    if results.exists() {
        fs::remove_dir_all(results).doing(format_args!("cannot empty {}", results.display()))?;
    }
    fs::create_dir_all(folder).doing(format_args!("cannot make {}", folder.display()))?;
    let sample = folder.join("sample.sh");
    fs::write(&sample, include_str!("sample.sh"))
        .doing(format_args!("cannot write {}", sample.display()))?;
    let run_file = folder.join("run.json");
    let image = image.to_str().ok_or_else(|| {
        Failure::new(format!(
            "{} is not valid Unicode, as a run file must be; choose another target folder",
            image.display()
        ))
    })?;
    let text =
        serde_json::to_string_pretty(&run_description(image)).doing("cannot write the run file")?;
    fs::write(&run_file, text).doing(format_args!("cannot write {}", run_file.display()))?;
    Ok(run_file)
}

/// The run, with everything that has a good default left out.
fn run_description(image: &str) -> serde_json::Value {
    json!({
        "version": 1,
        "context": {
            "backend": "qemu",
            "hypervisor": "embedded",
            "disk": { "image": image },
        },
        "hooks": {
            "configuration": { "results_folder": "results" },
            "hooks": [
                { "name": "commands" },
                {
                    "name": "screen",
                    "configuration": {
                        "screenshot_on_event": ["ready", "snapshots_capture"],
                    },
                },
            ],
        },
    })
}

/// Looks for everything the run may have left: in seectl's own list, and on
/// the host, where processes, folders and interfaces can be seen.
fn nothing_left(seectl: &Path, own: Option<&Path>) -> Result<(), Failure> {
    let Some(identifier) = own.and_then(Path::file_name) else {
        return Ok(());
    };
    let identifier = identifier.to_string_lossy();
    let mut left = Look::left_of(&identifier);
    let listed = command::output(
        Command::new(seectl).args(["ls", "--output", "json"]),
        Duration::from_secs(60),
    )?;
    if listed.contains(&*identifier) {
        left.push(format!("environment {identifier} in the ledger"));
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::with(
        exit_code::LEFT_BEHIND,
        format!("left behind:\n  {}", left.join("\n  ")),
    ))
}

/// The one folder in the results: it is named after the run's identifier.
fn only_folder(results: &Path) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = entries(results)
        .into_iter()
        .filter(|path| path.is_dir())
        .collect();
    let first = folders.pop()?;
    folders.is_empty().then_some(first)
}

/// The screenshots under a folder, in the order of their names.
fn pictures(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in entries(folder) {
        if path.is_dir() {
            found.extend(pictures(&path));
        } else if path.extension().is_some_and(|it| it == "png") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_last_time_are_gone_before_a_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let results = folder.path().join("results");
        fs::create_dir_all(results.join("old")).expect("made");
        let run_file = prepare(folder.path(), &results, Path::new("/a b/ü.qcow2"))
            .expect("the folder can be written");
        assert!(!results.exists());
        let text = fs::read_to_string(run_file).expect("written");
        assert!(text.contains("/a b/ü.qcow2"), "{text}");
    }

    #[test]
    fn two_folders_of_results_are_not_taken_for_one_run() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("one")).expect("made");
        assert!(only_folder(folder.path()).is_some());
        fs::create_dir(folder.path().join("two")).expect("made");
        assert!(only_folder(folder.path()).is_none());
    }
}
