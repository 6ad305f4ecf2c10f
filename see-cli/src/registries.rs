//! What a run file can name: the only file that names every crate.

use std::io::Write as _;

use see_core::{Registries, Result};

/// The hooks, backends and image providers that come with SEE, and their collectors.
///
/// # Errors
/// Where two of them claim the same name.
pub fn standard() -> Result<Registries> {
    let mut registries = Registries::new();
    see_context::register(&mut registries)?;
    see_hooks_std::register(&mut registries)?;
    see_image_providers::register(&mut registries)?;
    Ok(registries)
}

/// Keeps the hypervisor libraries from writing to standard error by themselves. Call it before the process
/// has a second thread; later it does nothing.
pub(crate) fn quiet() {
    if !see_context::quiet_log() {
        tracing::debug!("libvirt may write to standard error by itself");
    }
}

/// Ends the process with this code where the libraries of a hypervisor would not let it end in the usual way.
/// Elsewhere it returns.
pub(crate) fn end_process(code: u8) {
    // There is nobody to tell when stdout is gone.
    let _ = std::io::stdout().flush();
    see_context::end_process(code);
}

#[cfg(test)]
mod python_see;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_crates_claim_the_same_name() {
        let registries = standard().unwrap();
        let names: Vec<_> = registries.hooks.names().collect();
        assert!(names.contains(&"commands"), "{names:?}");
        let names: Vec<_> = registries.backends.names().collect();
        assert!(names.contains(&"qemu"), "{names:?}");
        let names: Vec<_> = registries.images.names().collect();
        assert!(names.contains(&"dummy"), "{names:?}");
    }
}
