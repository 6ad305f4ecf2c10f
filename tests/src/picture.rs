//! Pictures that were taken of a screen.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// A decoded PNG.
#[derive(Debug)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// How many different pixels it has.
    pub colours: usize,
}

impl Picture {
    /// Reads a PNG; fails where it is none, or a broken one.
    pub fn read(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut decoder = png::Decoder::new(BufReader::new(file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = whole(decoder.read_info(), path);
        let size = reader
            .output_buffer_size()
            .expect("a screen fits into memory");
        let mut pixels = vec![0; size];
        let frame = whole(reader.next_frame(&mut pixels), path);
        let colours: BTreeSet<&[u8]> = pixels[..frame.buffer_size()]
            .chunks_exact(frame.color_type.samples())
            .collect();
        Self {
            width: frame.width,
            height: frame.height,
            colours: colours.len(),
        }
    }
}

fn whole<T>(decoded: Result<T, png::DecodingError>, path: &Path) -> T {
    decoded.unwrap_or_else(|error| panic!("{} is no PNG: {error}", path.display()))
}
