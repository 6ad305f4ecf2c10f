//! `fuzz`: libFuzzer over the targets of `tests/fuzz`, on the stable compiler.
//!
//! Only our own crates are built with the instruments that tell the fuzzer where an input led: what they stand
//! on is as in every other build, and a run costs as much less as there are fewer places to look at.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::failure::{Failure, While};
use crate::setup::{self, Purpose};
use crate::workspace;

const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
/// What somebody who calls the fuzzer by hand may want of it.
const RUN_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Stands before the compiler of our own crates, and adds the instruments.
const INSTRUMENT: &str = "\
#!/bin/sh
exec \"$@\" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \\
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \\
    -Cllvm-args=-sanitizer-coverage-trace-compares
";

/// What the fuzzer is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speed {
    /// A few seconds of fuzzing: it stands on what the tests have built already.
    QuickToBuild,
    /// Millions of inputs.
    Fast,
}

/// Builds the fuzzer; gives the program.
pub(crate) fn build(speed: Speed) -> Result<PathBuf, Failure> {
    let target = workspace::target();
    let folder = target.join("fuzz-program");
    fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
    let wrapper = folder.join("instrument");
    fs::write(&wrapper, INSTRUMENT).doing(format_args!("cannot write {}", wrapper.display()))?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))
        .doing(format_args!("cannot make {} a program", wrapper.display()))?;
    let (profile, built) = match speed {
        Speed::QuickToBuild => ("dev", "debug"),
        Speed::Fast => ("fuzz", "fuzz"),
    };
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTC_WORKSPACE_WRAPPER", &wrapper)
        // Of the workspace, so that what it stands on is built with the same features as for the tests.
        .args([
            "build",
            "--quiet",
            "--locked",
            "--workspace",
            "--bin",
            "see-fuzz",
        ])
        .args(["--features", "see-fuzz/libfuzzer", "--profile", profile]);
    command::output(&mut cargo, BUILD_DEADLINE)?;
    let program = folder.join("see-fuzz");
    // A new file: the old one may be running.
    let aside = folder.join("see-fuzz.new");
    let built = target.join(built).join("see-fuzz");
    fs::copy(&built, &aside).doing(format_args!("cannot copy {}", built.display()))?;
    fs::rename(&aside, &program).doing(format_args!("cannot write {}", program.display()))?;
    Ok(program)
}

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    setup::install(Purpose::Everything)?;
    let program = build(Speed::Fast)?;
    let committed = workspace::root().join("tests/fuzz/corpus");
    let Some((target, options)) = words.split_first() else {
        println!("built {}; the targets are", program.display());
        let entries = fs::read_dir(&committed).doing("cannot list the corpora")?;
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            println!("  {}", name.display());
        }
        return Ok(());
    };
    let folder = workspace::target().join("fuzz-corpus").join(target);
    fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
    let mut fuzzer = Command::new(program);
    fuzzer
        .env("SEE_FUZZ_TARGET", target)
        .arg(format!(
            "-artifact_prefix={}/",
            folder.parent().unwrap_or(&folder).display()
        ))
        .args(options);
    // Who names a file or a folder wants that instead.
    if options.iter().all(|option| option.starts_with('-')) {
        fuzzer.arg(&folder).arg(committed.join(target));
    }
    let finished = command::finish(&mut fuzzer, RUN_DEADLINE)?;
    print!("{}{}", finished.stdout, finished.stderr);
    match finished.status.success() {
        true => Ok(()),
        false => Err(Failure::new("the fuzzer found something, or did not run")),
    }
}
