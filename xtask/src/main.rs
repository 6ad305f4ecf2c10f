//! The duties of this workspace, one file each; this one only dispatches.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool that speaks to a person"
)]

mod bench;
mod campaign;
mod ci;
mod command;
mod demo;
mod demos;
mod failure;
mod fuzz;
mod guest;
mod hosts;
mod leftovers;
mod libvirtd;
mod setup;
mod stage;
mod test;
mod tidy;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use failure::{Failure, exit_code};

/// One duty: its word on the command line, its line of help, and what does it.
struct Duty {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

/// Every duty, in alphabetic order.
const DUTIES: &[Duty] = &[
    Duty {
        name: "bench",
        help: "measure: the event bus beside python-see, the demonstration's start, images, sandboxes, subnets; `bench events`, `bench demo`, `bench images`, `bench sandboxes`, `bench subnets`",
        run: bench::run,
    },
    Duty {
        name: "campaign",
        help: "run the large counts, resumable; without a name: list them",
        run: campaign::run,
    },
    Duty {
        name: "ci",
        help: "what the continuous integration calls: the same as `test`",
        run: ci::run,
    },
    Duty {
        name: "demo",
        help: "run a sample in a throw-away machine and show what happened",
        run: demo::run,
    },
    Duty {
        name: "fuzz",
        help: "build the fuzzer; `fuzz TARGET [OPTIONS]` runs it on a target, with libFuzzer's options",
        run: fuzz::run,
    },
    Duty {
        name: "guest",
        help: "build the small Linux guest (rootless, reproducible, cached)",
        run: guest::run,
    },
    Duty {
        name: "hosts",
        help: "make the root of Debian 13, in which tests and campaigns run as well",
        run: hosts::run,
    },
    Duty {
        name: "setup",
        help: "install what is missing; --check, --daemon, --stop-daemon",
        run: setup::run,
    },
    Duty {
        name: "test",
        help: "show every fact once: format, lints, tidy, tests, nothing left",
        run: test::run,
    },
    Duty {
        name: "tidy",
        help: "check the house: arrows, circles, documentation, names, card, words",
        run: tidy::run,
    },
];

fn main() -> ExitCode {
    let words: Result<Vec<String>, OsString> = std::env::args_os()
        .skip(1)
        .map(OsString::into_string)
        .collect();
    let outcome = match &words {
        Err(word) => Err(Failure::usage(format!(
            "the argument {} is not valid Unicode",
            word.display()
        ))),
        Ok(words) => dispatch(words),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {}", failure.message);
            ExitCode::from(failure.exit)
        }
    }
}

fn dispatch(words: &[String]) -> Result<(), Failure> {
    match words.split_first() {
        None => {
            print_help();
            Err(Failure::usage("no duty given"))
        }
        Some((word, _)) if ["--help", "-h", "help"].contains(&word.as_str()) => {
            print_help();
            Ok(())
        }
        // Not duties of a person's: what this program starts itself as, in another place.
        Some((word, rest)) if word == setup::PARENT_WORD => setup::parent(rest),
        Some((word, rest)) if word == hosts::FIRST_WORD => hosts::first(rest),
        Some((word, [])) if word == leftovers::LOOK_WORD => leftovers::print(),
        Some((word, rest)) => match DUTIES.iter().find(|duty| duty.name == word) {
            Some(duty) => (duty.run)(rest),
            None => {
                let known: Vec<_> = DUTIES.iter().map(|duty| duty.name).collect();
                Err(Failure::usage(format!(
                    "no duty is called `{word}`; there are {}",
                    known.join(", ")
                )))
            }
        },
    }
}

fn print_help() {
    println!("usage: cargo xtask DUTY [ARGUMENTS]\n\nduties:");
    for duty in DUTIES {
        println!("  {:<10} {}", duty.name, duty.help);
    }
    println!("\nexit codes:");
    for (code, meaning) in exit_code::ALL {
        println!("  {code:<10} {meaning}");
    }
}
