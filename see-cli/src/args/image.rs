//! The command line of `seectl image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use see_core::config::Size;

use super::Output;

#[derive(Debug, Args)]
pub(crate) struct ImageArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images in the store, the last used first.
    Ls(StoreArguments),
    /// Get images before the runs that need them: those of a run file, or one of a provider.
    Pull(PullArguments),
    /// Read images anew, and compare them with their digests.
    Verify(VerifyArguments),
    /// Remove images. One that an environment uses stays, unless --force is given.
    Rm(RmArguments),
    /// Make room: remove downloads that nobody continues, and the least recently used images.
    Gc(ImageGcArguments),
}

#[derive(Debug, Args)]
pub(crate) struct StoreArguments {
    /// The store, where a run file's key `cache.folder` says another than the usual one.
    #[arg(long, value_name = "DIR", env = "SEE_IMAGE_STORE")]
    pub(crate) store: Option<PathBuf>,

    /// How to show it.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct PullArguments {
    /// The run file whose images are wanted.
    #[arg(value_name = "RUN.json", required_unless_present = "provider")]
    pub(crate) run_file: Option<PathBuf>,

    /// The provider to get one image from, such as http.
    #[arg(long, value_name = "NAME", conflicts_with = "run_file")]
    pub(crate) provider: Option<String>,

    /// The image's name or address, as in a run file.
    #[arg(long, value_name = "NAME", alias = "uri", requires = "provider")]
    pub(crate) name: Option<String>,

    /// With --provider, one key of its configuration, such as checksum=sha256:…; with a run file, one key of
    /// it, as with `seectl run`. Others on this host can read it: take a secret from the environment, as
    /// '${env:NAME}'.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// How to show what happens.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Their digests, or the beginning of them; all images without.
    #[arg(value_name = "DIGEST")]
    pub(crate) images: Vec<String>,

    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RmArguments {
    /// Their digests, or the beginning of them.
    #[arg(value_name = "DIGEST", required = true)]
    pub(crate) images: Vec<String>,

    /// Also those that environments use: what runs may end, and a kept machine is lost.
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ImageGcArguments {
    /// How much the images that stay may take together, such as 50GiB. Those that environments use stay in
    /// any case.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_size: Option<Size>,
    /// Remove every download that broke off, not only those that nobody continued for a week.
    #[arg(long)]
    pub(crate) partial: bool,

    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

fn size(text: &str) -> Result<Size, String> {
    Size::parse(text).ok_or_else(|| String::from("expected a size such as 500MiB or 50GiB"))
}
