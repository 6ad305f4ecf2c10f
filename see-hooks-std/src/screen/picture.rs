//! Pictures as hypervisors give them, made into PNG. Their bytes may be what the guest wants.

use see_core::{Error, ErrorKind, Picture, Result};
use std::io::Cursor;

/// The largest picture that is read, in bytes, as it comes and unpacked.
const MAX_BYTES: usize = 64 << 20;
/// The longest side, in pixels.
const MAX_SIDE: u32 = 16_384;
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The picture as PNG: checked to its end and passed on, or converted from PPM. What it is, its
/// first bytes tell; what the hypervisor calls it serves only to explain a refusal.
pub(super) fn to_png(picture: Picture) -> Result<Vec<u8>> {
    let bytes = picture.bytes;
    if bytes.len() > MAX_BYTES {
        return Err(bad(&format!(
            "it has {} bytes, at most {MAX_BYTES} are read",
            bytes.len()
        )));
    }
    if bytes.starts_with(PNG) {
        check_png(&bytes)?;
        return Ok(bytes);
    }
    if bytes.starts_with(b"P6") {
        let (width, height, pixels) = read_ppm(&bytes)?;
        return write_png(width, height, &pixels);
    }
    let called = picture.mime_type.escape_debug().to_string();
    Err(bad(&format!(
        "it is neither PNG nor PPM, but called {called}"
    )))
}

fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::Guest,
        format!("the picture of the screen cannot be used: {why}"),
    )
}

/// Unpacks a PNG to its end, within the bounds.
fn check_png(bytes: &[u8]) -> Result<()> {
    let broken = |error: png::DecodingError| bad("it is a broken PNG").caused_by(error);
    let limits = png::Limits { bytes: MAX_BYTES };
    let mut reader = png::Decoder::new_with_limits(Cursor::new(bytes), limits)
        .read_info()
        .map_err(broken)?;
    let (width, height) = reader.info().size();
    check_sides(width, height)?;
    let length = reader
        .output_buffer_size()
        .filter(|length| *length <= MAX_BYTES);
    let mut pixels = vec![0; length.ok_or_else(|| bad("it is too large unpacked"))?];
    reader.next_frame(&mut pixels).map_err(broken)?;
    reader.finish().map_err(broken)
}

fn check_sides(width: u32, height: u32) -> Result<()> {
    if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        let found = format!("it is {width} × {height} pixels, 1 to {MAX_SIDE} are read");
        return Err(bad(&found));
    }
    Ok(())
}

/// Width, height, and red, green and blue of each pixel, eight bits each.
fn read_ppm(bytes: &[u8]) -> Result<(u32, u32, Vec<u8>)> {
    let mut rest = &bytes[2..];
    let width = ppm_number(&mut rest)?;
    let height = ppm_number(&mut rest)?;
    let most = ppm_number(&mut rest)?;
    check_sides(width, height)?;
    if !(1..=65_535).contains(&most) {
        return Err(bad(&format!(
            "its brightest value is {most}, 1 to 65535 are possible"
        )));
    }
    // Exactly one white space separates the header from the pixels.
    let Some((separator, data)) = rest.split_first() else {
        return Err(bad("it ends within its header"));
    };
    if !separator.is_ascii_whitespace() {
        return Err(bad("its header goes on where its pixels should begin"));
    }
    // At most 16384² pixels: no overflow in 64 bits, and the data has to be that long anyway.
    let samples = width as usize * height as usize * 3;
    let each = if most > 255 { 2 } else { 1 };
    if data.len() != samples * each {
        let wanted = samples * each;
        return Err(bad(&format!(
            "it has {} bytes of pixels instead of {wanted}",
            data.len()
        )));
    }
    if most == 255 {
        return Ok((width, height, data.to_vec()));
    }
    let scale = |value: u32| (value.min(most) * 255 / most) as u8;
    let pixels = if each == 1 {
        data.iter().map(|value| scale(u32::from(*value))).collect()
    } else {
        data.chunks_exact(2)
            .map(|pair| scale(u32::from(pair[0]) << 8 | u32::from(pair[1])))
            .collect()
    };
    Ok((width, height, pixels))
}

/// The next number of a header, after white space and comments.
fn ppm_number(rest: &mut &[u8]) -> Result<u32> {
    loop {
        let trimmed = rest.trim_ascii_start();
        let has_space = trimmed.len() < rest.len();
        *rest = trimmed;
        if rest.first() == Some(&b'#') {
            let end = rest.iter().position(|byte| *byte == b'\n');
            *rest = end.map_or(&[][..], |end| &rest[end..]);
        } else if has_space {
            break;
        } else {
            return Err(bad("its header lacks a number"));
        }
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, after) = rest.split_at(digits);
    *rest = after;
    let number = std::str::from_utf8(number)
        .ok()
        .and_then(|number| number.parse().ok());
    number.ok_or_else(|| bad("its header lacks a number"))
}

fn write_png(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>> {
    let failed = |error: png::EncodingError| {
        Error::new(ErrorKind::Internal, "the picture cannot be packed").caused_by(error)
    };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(bytes: impl Into<Vec<u8>>) -> Picture {
        Picture {
            mime_type: "image/whatever".to_owned(),
            bytes: bytes.into(),
        }
    }

    fn unpack(png: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(Cursor::new(png))
            .read_info()
            .expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("small")];
        reader.next_frame(&mut pixels).expect("pixels");
        let (width, height) = reader.info().size();
        (width, height, pixels)
    }

    #[test]
    fn a_ppm_becomes_a_png_of_the_same_pixels() {
        let pixels: Vec<u8> = (0..2 * 3 * 3).collect();
        let ppm = [b"P6\n# by a hypervisor\n2 3\n255\n", &pixels[..]].concat();
        let png = to_png(picture(ppm)).expect("a picture");
        assert_eq!(unpack(&png), (2, 3, pixels));
    }

    #[test]
    fn other_depths_are_scaled() {
        let eight = to_png(picture(*b"P6 1 1 15 \x00\x07\x0f")).expect("a picture");
        assert_eq!(unpack(&eight).2, [0, 119, 255]);
        let sixteen = to_png(picture(*b"P6 1 1 65535 \x00\x00\x80\x00\xff\xff"));
        assert_eq!(unpack(&sixteen.expect("a picture")).2, [0, 127, 255]);
    }

    #[test]
    fn a_png_is_passed_on_as_it_is() {
        let png = write_png(2, 2, &[7; 12]).expect("a PNG");
        assert_eq!(to_png(picture(png.clone())).expect("a picture"), png);
    }

    #[test]
    fn a_png_cut_off_or_damaged_anywhere_is_refused() {
        let png = write_png(20, 20, &[7; 1200]).expect("a PNG");
        for length in 0..png.len() {
            assert!(to_png(picture(&png[..length])).is_err(), "cut at {length}");
        }
        for at in 0..png.len() {
            let mut damaged = png.clone();
            damaged[at] ^= 0x55;
            assert!(to_png(picture(damaged)).is_err(), "damaged at {at}");
        }
    }

    #[test]
    fn pictures_that_lie_about_their_size_are_refused() {
        for bad in [
            &b"P6"[..],
            b"P6 2 2 255",
            b"P6 2 2 255 123",
            b"P6 1 1 255 1234",
            b"P6 0 1 255 ",
            b"P6 99999 99999 255 x",
            b"P6 4294967296 1 255 xxx",
            b"P6 1 1 0 xxx",
            b"P6 1 1 70000 xxxxxx",
            b"P6 1 -1 255 xxx",
            b"P61 1 255 xxx",
            b"P6 1 1 255#xxx",
            b"P6 # no end",
            b"",
            b"BM....",
        ] {
            let refused = to_png(picture(bad)).expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::Guest, "{bad:?}");
        }
    }
}
