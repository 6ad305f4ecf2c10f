//! libvirt's own program, as a second opinion.

use std::process::Command;

/// What `virsh` prints when it asks the daemon at this URI, or its complaint.
pub fn virsh<'a>(uri: &str, words: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
    let output = Command::new("virsh")
        .args(["-q", "-c", uri])
        .args(words)
        .output()
        .map_err(|error| format!("virsh cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("virsh -c {uri}: {}", complaint.trim_end()))
}
