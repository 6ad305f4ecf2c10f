//! Unpacking while the bytes come in, up to a declared size.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use see_core::config::Size;
use see_core::{Error, ErrorKind, Result};

use super::digest::{Algorithm, Digest, Hasher};

/// How much memory unpacking may take: what `xz -9` and `zstd --ultra` ask for, and little more.
const MEMORY: u64 = 160 << 20;
/// The same for Zstandard, as the logarithm of its window: 128 MiB.
const WINDOW: u32 = 27;
/// Zeros of this length are left out of the file where they begin at a multiple of it.
const HOLE: usize = 64 << 10;
/// How much is written at most before the disk is waited for: all of it at the end would take longer than those who wait
/// for the image are patient.
pub(crate) const SYNCED: u64 = 256 << 20;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Xz,
    Zstandard,
}

impl Packing {
    /// How what begins so is packed; `None` where it is not, or in no way that is known.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"\x1f\x8b") {
            Some(Self::Gzip)
        } else if head.starts_with(b"\xfd7zXZ\0") {
            Some(Self::Xz)
        } else if head.starts_with(b"\x28\xb5\x2f\xfd") {
            Some(Self::Zstandard)
        } else {
            None
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstandard => "Zstandard",
        }
    }
}

/// Takes packed bytes, and writes and hashes what they hold.
pub(crate) struct Unpacker {
    packing: Packing,
    decoder: Decoder,
}

enum Decoder {
    Gzip(flate2::write::MultiGzDecoder<Output>),
    Xz(liblzma::write::XzDecoder<Output>),
    /// The plain writer, since the decoder over it takes a frame that is cut off for a whole one.
    Zstandard(zstd::stream::zio::Writer<Output, zstd::stream::raw::Decoder<'static>>),
}

impl Unpacker {
    pub(crate) fn new(packing: Packing, output: Output) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Internal, "unpacking cannot begin").caused_by(error)
        };
        let decoder = match packing {
            Packing::Gzip => Decoder::Gzip(flate2::write::MultiGzDecoder::new(output)),
            Packing::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY, flags)
                    .map_err(|error| failed(error.into()))?;
                Decoder::Xz(liblzma::write::XzDecoder::new_stream(output, stream))
            }
            Packing::Zstandard => {
                use zstd::stream::raw::DParameter::WindowLogMax;
                let mut decoder = zstd::stream::raw::Decoder::new().map_err(failed)?;
                decoder
                    .set_parameter(WindowLogMax(WINDOW))
                    .map_err(failed)?;
                Decoder::Zstandard(zstd::stream::zio::Writer::new(output, decoder))
            }
        };
        Ok(Self { packing, decoder })
    }

    /// Takes the next packed bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let done = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.write_all(bytes),
            Decoder::Xz(decoder) => decoder.write_all(bytes),
            Decoder::Zstandard(decoder) => decoder.write_all(bytes),
        };
        done.map_err(|error| self.failed(error))
    }

    /// The packed bytes are complete: what they hold is too, and on disk.
    pub(crate) fn finish(mut self) -> Result<(Digest, u64)> {
        let done = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.try_finish(),
            Decoder::Xz(decoder) => decoder.try_finish(),
            Decoder::Zstandard(decoder) => decoder.finish(),
        };
        done.map_err(|error| self.failed(error))?;
        let output = match self.decoder {
            Decoder::Gzip(decoder) => decoder.finish(),
            Decoder::Xz(decoder) => decoder.finish(),
            Decoder::Zstandard(decoder) => Ok(decoder.into_inner().0),
        };
        let packing = self.packing;
        output
            .and_then(Output::finish)
            .map_err(|error| failed(packing, None, error))
    }

    fn failed(&self, error: io::Error) -> Error {
        let output = match &self.decoder {
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Xz(decoder) => decoder.get_ref(),
            Decoder::Zstandard(decoder) => decoder.writer(),
        };
        failed(self.packing, Some(output), error)
    }
}

fn failed(packing: Packing, output: Option<&Output>, error: io::Error) -> Error {
    if let Some(output) = output
        && output.is_over
    {
        return Error::new(
            ErrorKind::Exhausted,
            format!(
                "the {} image holds more than {} when it is unpacked",
                packing.name(),
                Size(output.limit)
            ),
        )
        .advice(
            "`max_size` says how large it may be, else the room that the disk of the image store has: \
             `seectl image gc --partial` and `rm` make more",
        );
    }
    if error.raw_os_error().is_some() {
        return Error::io("the unpacked image cannot be written", error)
            .advice("make room on the disk of the image store");
    }
    Error::new(
        ErrorKind::Guest,
        format!("the image cannot be unpacked as {}", packing.name()),
    )
    .advice("it is broken or cut off at its server; `unpack: false` takes it as it is")
    .caused_by(error)
}

/// The unpacked image: written with holes where it is zero, hashed, and bounded.
pub(crate) struct Output {
    file: File,
    hasher: Hasher,
    written: u64,
    /// How much of that was written since the disk was last waited for.
    unsynced: u64,
    limit: u64,
    is_over: bool,
}

impl Output {
    /// Writes to an empty file, at most `limit` bytes.
    pub(crate) fn new(file: File, limit: u64) -> Self {
        Self {
            file,
            hasher: Hasher::new(Algorithm::Sha256),
            written: 0,
            unsynced: 0,
            limit,
            is_over: false,
        }
    }

    fn finish(self) -> io::Result<(Digest, u64)> {
        // A hole at the end is not written by anything else.
        self.file.set_len(self.written)?;
        self.file.sync_all()?;
        Ok((self.hasher.finish(), self.written))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.limit - self.written {
            self.is_over = true;
            return Err(io::Error::other("too large"));
        }
        let to_edge = HOLE - (self.written % HOLE as u64) as usize;
        let piece = &bytes[..bytes.len().min(to_edge)];
        if piece.len() < HOLE || piece.iter().any(|byte| *byte != 0) {
            self.file.write_all_at(piece, self.written)?;
            self.unsynced += piece.len() as u64;
        }
        if self.unsynced >= SYNCED {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        self.hasher.update(piece);
        self.written += piece.len() as u64;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
