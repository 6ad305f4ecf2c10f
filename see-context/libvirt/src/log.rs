//! libvirt's own log, which the embedded driver writes to the standard error stream.

/// Read by libvirt when it starts; each switches its log to what the user wants.
const USER_CHOICES: [&str; 3] = [
    "LIBVIRT_DEBUG",
    "LIBVIRT_LOG_FILTERS",
    "LIBVIRT_LOG_OUTPUTS",
];

/// Errors reach the caller as values; an output has to be named, and none means the stream.
const QUIET: &str = "4:file:/dev/null";

/// Keeps the embedded driver's warnings (each domain that runs as root, each monitor command)
/// off the standard error stream, unless the user has set one of libvirt's variables for it.
///
/// The only way is a variable of the environment, and that may only be set while no other thread
/// can read it: call this first thing in `main`, before any runtime. Returns whether it was in
/// time; when not, nothing was changed.
#[must_use]
pub fn quiet_log() -> bool {
    if USER_CHOICES
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return true;
    }
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return false;
    }
    // SAFETY: this is the only thread of the process, so nobody reads or writes the environment
    // meanwhile.
    unsafe { std::env::set_var("LIBVIRT_LOG_OUTPUTS", QUIET) };
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn beside_other_threads_the_environment_is_left_alone() {
        let other = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| other.wait());
            let chosen = super::USER_CHOICES.map(std::env::var_os);
            let quiet = super::quiet_log();
            assert_eq!(quiet, chosen.iter().any(Option::is_some));
            assert_eq!(super::USER_CHOICES.map(std::env::var_os), chosen);
            other.wait();
        });
    }
}
