//! The program `seectl`. Everything it does is in the library, which tests call with other registries.

use std::process::ExitCode;

fn main() -> ExitCode {
    see_cli::main(see_cli::registries::standard)
}
