//! The command line.

mod image;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use see_core::config::DurationValue;

pub(crate) use self::image::{
    ImageArguments, ImageCommand, ImageGcArguments, PullArguments, RmArguments, StoreArguments,
    VerifyArguments,
};
use crate::exit_code;

/// Runs programs in throw-away machines, and shows what they did.
#[derive(Debug, Parser)]
#[command(name = "seectl", version, after_help = exit_code::HELP)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Say more: once for each step and event and the timeline, and on stderr for what is done; twice for how. SEE_LOG
    /// filters the latter more finely. What to know of an image, and what is taken out of a domain's XML, is told
    /// without it.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a sample in a machine of its own, show what happened, and leave nothing behind.
    #[command(after_help = exit_code::HELP)]
    Run(RunArguments),
    /// List the environments of this user: alive, kept or orphaned, and what they hold on this host.
    Ls(LsArguments),
    /// Remove what environments left whose owner is dead.
    Gc(GcArguments),
    /// Fetch, list, check and remove disk images.
    #[command(after_help = exit_code::HELP)]
    Image(ImageArguments),
}

/// How results are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people: with progress on a terminal, in plain lines otherwise.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The run file: JSON, comments and trailing commas allowed.
    #[arg(value_name = "RUN.json")]
    pub(crate) run_file: PathBuf,

    /// The file to run in the guest; in the run file, ${sample}. For each file of a folder there is one
    /// run, in the order of their names; folders in it and names that start with a dot are left out. One that cannot
    /// be read fails its own run only.
    #[arg(long, value_name = "FILE")]
    pub(crate) sample: Option<PathBuf>,

    /// The command that runs the sample in the guest; in the run file, ${command}.
    #[arg(long, value_name = "CMD")]
    pub(crate) command: Option<String>,

    /// Where each run makes a folder of its own, named after its identifier. Without it,
    /// hooks.configuration.results_folder of the run file, else `results` beside the run file.
    #[arg(long, value_name = "DIR")]
    pub(crate) results: Option<PathBuf>,

    /// How long the sample may run, such as 90s or 5m; in the run file, ${runtime}. Not longer than the whole run
    /// (context.limits.run). [default: 2m, or the whole run's time where that is shorter]
    #[arg(long, value_name = "DURATION", value_parser = written_duration)]
    pub(crate) runtime: Option<String>,

    /// Set one key of the run file, such as context.memory=1GiB. The value is JSON, or else a string.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// The backend, whatever the run file says; short for --set context.backend=NAME.
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,

    /// Leave the machine on the host after the run, as it is then, for so long: `seectl ls` shows it, and
    /// `seectl gc ID --include-kept` removes it sooner. An interrupted run keeps nothing.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) keep: Option<Duration>,

    /// Do not remove first what runs left whose owner is dead.
    #[arg(long)]
    pub(crate) no_gc: bool,

    /// How to show what happens.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct LsArguments {
    /// Only this environment: its identifier, or the beginning of it.
    #[arg(value_name = "ID", value_parser = beginning)]
    pub(crate) identifier: Option<String>,

    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    /// Only this environment: its identifier, or the beginning of it.
    #[arg(value_name = "ID", value_parser = beginning)]
    pub(crate) identifier: Option<String>,

    /// Say what would be removed, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Leave environments alone that are younger, such as 30m or 1h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,

    /// Also those that were asked to be kept and whose time is not over.
    #[arg(long)]
    pub(crate) include_kept: bool,

    /// How to show what was done.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

fn duration(text: &str) -> Result<Duration, String> {
    DurationValue::parse(text)
        .map(|value| value.0)
        .ok_or_else(|| String::from("expected a duration such as 90s, 5m or 1h30m"))
}

/// The beginning of an identifier, in the form in which identifiers are shown.
fn beginning(text: &str) -> Result<String, String> {
    let is_one = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    match text.len() {
        FEWEST..=36 if is_one(text) => Ok(text.to_ascii_lowercase()),
        _ => Err(format!(
            "expected an identifier or at least its first {FEWEST} digits, such as 7f0c1a52"
        )),
    }
}

/// How many digits name an environment at the least.
const FEWEST: usize = 4;

/// The text itself: it goes into the run file, whose reader reads it again.
fn written_duration(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_and_identifiers_are_checked_before_anything_starts() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("seectl run r.json --runtime 90s").is_ok());
        assert!(parse("seectl run r.json --runtime soon").is_err());
        assert!(parse("seectl gc --older-than 1h").is_ok());
        assert!(parse("seectl gc --older-than 1").is_ok());
        assert!(parse("seectl gc ../../etc").is_err());
        assert!(parse("seectl gc 7F0c1a52").is_ok());
        assert!(parse("seectl ls 7f0").is_err());
        assert!(parse("seectl image pull run.json").is_ok());
        assert!(
            parse("seectl image pull --provider http --uri http://a/b --set checksums=true")
                .is_ok()
        );
        assert!(parse("seectl image pull").is_err());
        assert!(parse("seectl image pull run.json --provider http").is_err());
        assert!(parse("seectl image gc --max-size 50GiB").is_ok());
        assert!(parse("seectl image gc --max-size much").is_err());
        assert!(parse("seectl image rm").is_err());
    }
}
