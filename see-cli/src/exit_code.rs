//! The exit codes of `seectl`: what a script decides on.
//!
//! They are part of the interface: none changes its meaning, and `seectl --help` lists them all.

/// Everything went well.
pub const OK: u8 = 0;
/// The sample ended by itself with an exit code other than 0, or by a signal. The run itself went well.
pub const SAMPLE_FAILED: u8 = 1;
/// The run file, an override, the domain or the command line is wrong. Nothing was made, or nothing is left of it.
pub const CONFIGURATION: u8 = 2;
/// The sample did not end by itself: its time ran out, or the guest or its agent was lost.
pub const SAMPLE_UNFINISHED: u8 = 3;
/// The sandbox failed: it could not be made, a step of the protocol or a required hook failed, or its end was not
/// clean.
pub const SANDBOX_FAILED: u8 = 4;
/// Rights are missing on this host.
pub const MISSING_RIGHTS: u8 = 5;
/// Something that a dead owner left could not be removed (`seectl gc`).
pub const LEFT_BEHIND: u8 = 6;
/// An image is not to be had, not as it should be, or in use (`seectl image`).
pub const IMAGE_FAILED: u8 = 7;
/// Ended by SIGHUP.
pub const HUNG_UP: u8 = 129;
/// Ended by SIGINT: Ctrl-C.
pub const INTERRUPTED: u8 = 130;
/// Ended by SIGTERM.
pub const TERMINATED: u8 = 143;

/// Every exit code with its meaning, in order: the end of `seectl --help`.
pub const HELP: &str = "\
Exit codes:
    0  everything went well
    1  the sample failed: its exit code was not 0, or a signal ended it
    2  bad configuration or command line; nothing was made, or nothing is left of it
    3  the sample did not end by itself: out of time, or the guest or its agent was lost
    4  the sandbox failed: not made, a step or a hook failed, or its end was not clean
    5  rights are missing on this host
    6  `seectl gc` could not remove everything
    7  `seectl image`: an image is not to be had, changed on disk, or in use
  129  ended by SIGHUP
  130  ended by SIGINT (Ctrl-C)
  143  ended by SIGTERM
For a folder of samples it is the gravest of theirs: 4, 5, 2, 3, 1, 0; a signal's comes first.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_code_once_and_in_order() {
        let listed: Vec<u8> = HELP
            .lines()
            .filter_map(|line| line.get(..5)?.trim().parse().ok())
            .collect();
        let all = [
            OK,
            SAMPLE_FAILED,
            CONFIGURATION,
            SAMPLE_UNFINISHED,
            SANDBOX_FAILED,
            MISSING_RIGHTS,
            LEFT_BEHIND,
            IMAGE_FAILED,
            HUNG_UP,
            INTERRUPTED,
            TERMINATED,
        ];
        assert_eq!(listed, all);
    }

    #[test]
    fn a_verdict_has_the_code_that_the_help_gives_it() {
        use see_core::Verdict;
        for (verdict, code) in [
            (Verdict::Ok, OK),
            (Verdict::SampleFailed, SAMPLE_FAILED),
            (Verdict::BadConfiguration, CONFIGURATION),
            (Verdict::SampleUnfinished, SAMPLE_UNFINISHED),
            (Verdict::SandboxFailed, SANDBOX_FAILED),
            (Verdict::HookFailed, SANDBOX_FAILED),
            (Verdict::MissingRights, MISSING_RIGHTS),
            (Verdict::Interrupted, INTERRUPTED),
        ] {
            assert_eq!(verdict.exit_code(), code, "{verdict:?}");
        }
    }
}
