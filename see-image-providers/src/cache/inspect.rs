//! What a server sent, looked at before anyone opens it: by the same inspector as before a run.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use see_core::{Error, ErrorKind, ImageFormat, Result};

use super::unpack::Packing;

/// How many of the first bytes tell text from an image, and how it is packed.
pub(crate) const TOLD_BY: usize = 512;

/// The format of a complete image.
pub(crate) fn format_of(file: &File) -> Result<ImageFormat> {
    let mut head = [0; 8];
    // What is shorter is looked at all the same.
    if file.read_exact_at(&mut head, 0).is_ok()
        && let Some(packing) = Packing::of(&head)
    {
        let message = format!("the image is packed with {}", packing.name());
        return Err(Error::new(ErrorKind::Guest, message)
            .advice("`unpack: true` unpacks it while it is downloaded"));
    }
    ImageFormat::of(file).map_err(of_the_server)
}

/// Refuses what begins with text: an error page, a listing, a login.
pub(crate) fn refuse_text(head: &[u8]) -> Result<()> {
    ImageFormat::refuse_text(head).map_err(of_the_server)
}

/// What is wrong with the bytes is the server's mistake, not the configuration's.
fn of_the_server(error: Error) -> Error {
    if error.kind() != ErrorKind::Configuration {
        return error;
    }
    let told = Error::new(ErrorKind::Guest, error.message().to_owned());
    told.advice(error.advice_text().unwrap_or_default())
}
