//! `ci`: what the continuous integration calls. The same as `test`, so that
//! what passes there passes here.

use crate::failure::Failure;

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    crate::test::run(words)
}
