//! Numbers and bytes that a seed repeats, and what a campaign asks for.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

/// The seed of every run of the tests that is no campaign; a campaign's come from the clock.
const FIXED: u64 = 1;

/// How many bytes of a file are made at once.
const PIECE: u64 = 1 << 20;

/// Numbers and bytes that a seed repeats.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// From the campaign's seed, else from `SEE_SEED`, else always the same: a test that fails fails again. The seed
    /// is printed. The same name gives the same numbers.
    ///
    /// # Panics
    /// When the variable for the seed is no number.
    #[expect(clippy::print_stdout, reason = "a failed test is repeated by its seed")]
    pub fn of(test: &str) -> Self {
        let seed = number(&["SEE_CAMPAIGN_SEED", "SEE_SEED"]);
        let seed = seed.unwrap_or(FIXED);
        println!("\n{test}: SEE_SEED={seed}");
        // Tests of one seed differ.
        let own = test.bytes().fold(seed, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        Self(own)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next one, from 0 to 1.
    pub fn roll(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The next one, from this range, which is not empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// This many numbers from 0 to 1, one in each part of the way, so that no part is missed.
    pub fn spread(&mut self, count: usize) -> Vec<f64> {
        (0..count)
            .map(|part| (part as f64 + self.roll()) / count as f64)
            .collect()
    }

    /// So many bytes, no two parts of them alike: a raw image, as far as anybody can tell.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// A file of so many bytes, no two parts of it alike.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&mut self, path: &Path, size: u64) {
        const PAGE: usize = 4096;
        let mut file = File::create(path).expect("the test's folder is writable");
        // Bytes of dice for all of it would take longer than what is shown with them.
        let mut piece = self.bytes(PIECE as usize);
        let mut start = 0;
        while start < size {
            for (page, number) in piece.chunks_exact_mut(PAGE).zip(start..) {
                page[..8].copy_from_slice(&number.to_le_bytes());
            }
            let count = PIECE.min(size - start);
            file.write_all(&piece[..count as usize])
                .expect("there is room");
            start += count;
        }
    }
}

/// Whether this is a campaign: it takes the time that it takes.
///
/// # Panics
/// When the campaign's variable is no number.
pub fn is_campaign() -> bool {
    number(&["SEE_CAMPAIGN_COUNT"]).is_some()
}

/// How many rounds a campaign wants; `usual` without one.
///
/// # Panics
/// When the campaign's variable is no number.
pub fn rounds(usual: usize) -> usize {
    number(&["SEE_CAMPAIGN_COUNT"]).map_or(usual, |count| {
        usize::try_from(count).expect("a count of rounds")
    })
}

/// The first of these variables that is set.
fn number(variables: &[&str]) -> Option<u64> {
    let set = variables
        .iter()
        .find_map(|name| Some((name, std::env::var(name).ok()?)));
    let (name, text) = set?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_campaign_the_numbers_are_the_same_each_time_and_others_for_each_name() {
        if std::env::var_os("SEE_CAMPAIGN_SEED").is_some() || std::env::var_os("SEE_SEED").is_some()
        {
            return;
        }
        let rolls = |name| -> Vec<f64> { Dice::of(name).spread(4) };
        assert_eq!(rolls("one"), rolls("one"));
        assert_ne!(rolls("one"), rolls("other"));
    }
}
