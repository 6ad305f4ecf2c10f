//! The folder in which sandboxes are measured, and the programs that measure them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::bench::DEADLINE;
use crate::command;
use crate::failure::{Failure, While};

/// A machine on a network as python-see's users write it.
const DOMAIN: &str = "<domain type='qemu'><memory unit='MiB'>128</memory><os><type>hvm</type></os><devices>\
                      <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><target dev='vda' bus='virtio'/>\
                      </disk></devices></domain>";
/// What a measuring program prints, in seconds.
#[derive(Debug, Deserialize)]
pub(super) struct Measured {
    pub(super) allocate: Vec<f64>,
    pub(super) deallocate: Vec<f64>,
    pub(super) all: f64,
}

/// A folder with an image that the system's emulators may pass.
pub(super) struct Place {
    pub(super) folder: tempfile::TempDir,
    image: PathBuf,
}

impl Place {
    pub(super) fn new(guest: &Path) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("see-bench-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .doing("cannot make a folder")?;
        let image = folder.path().join("images/guest.qcow2");
        for name in ["images", "clones"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).doing(format_args!("cannot make {}", path.display()))?;
        }
        fs::copy(guest, &image).doing(format_args!("cannot write {}", image.display()))?;
        let domain = folder.path().join("domain.xml");
        fs::write(&domain, DOMAIN).doing(format_args!("cannot write {}", domain.display()))?;
        Ok(Self { folder, image })
    }

    pub(super) fn context(&self, case: &Value) -> Value {
        let mut context = case.clone();
        context["backend"] = json!("qemu");
        context["acceleration"] = json!("tcg");
        context["disk"] = json!({ "image": self.image });
        context
    }

    pub(super) fn context_of_python_see(&self, case: &Value) -> Value {
        let mut context = case.clone();
        let folder = self.folder.path();
        context["domain"] = json!({ "configuration": folder.join("domain.xml") });
        context["disk"] = json!({ "image": self.image, "clone": {
            "storage_pool_path": folder.join("clones"), "copy_on_write": true } });
        context
    }

    pub(super) fn measure(
        &self,
        mut program: Command,
        rounds: usize,
        at_once: usize,
        context: &Value,
    ) -> Result<Measured, Failure> {
        program.arg(self.folder.path());
        program.args([rounds, at_once].map(|number| number.to_string()));
        let output = command::output(program.arg(context.to_string()), DEADLINE)?;
        serde_json::from_str(&output).doing(format_args!("a program printed {output:?}"))
    }

    /// The seconds that the proof takes in a run of this mode.
    pub(super) fn proof(&self, seectl: &Path, mode: &str) -> Result<f64, Failure> {
        let mut context =
            self.context(&json!({ "hypervisor": "qemu:///system", "network": { "mode": mode } }));
        context["memory"] = json!("128MiB");
        let run = json!({
            "version": 1,
            "context": context,
            "hooks": { "hooks": [
                { "name": "commands", "configuration": { "ready_timeout": "160s" } } ] },
            "protocol": [
                { "step": "poweron" },
                { "step": "wait", "for": "ready", "timeout": "300s" } ],
        });
        let file = self.folder.path().join("run.json");
        fs::write(&file, run.to_string()).doing(format_args!("cannot write {}", file.display()))?;
        let mut run = Command::new(seectl);
        run.args(["run", "--output", "json"]).arg(&file);
        run.current_dir(self.folder.path())
            .env("SEE_STATE_DIR", self.folder.path().join("state"));
        let output = command::output(&mut run, DEADLINE)?;
        proven_in(&output).ok_or_else(|| {
            Failure::new(format!(
                "the run does not tell how long its proof took:\n{output}"
            ))
        })
    }
}

/// The seconds that the proof took, from the events of a run.
fn proven_in(output: &str) -> Option<f64> {
    let lines = output.lines();
    let mut events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let proven = events.find(|event| event["event"] == "isolation_proven")?;
    proven["attributes"]["seconds"].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_proof_is_read_from_the_events_of_a_run() {
        let output = "{\"event\":\"ready\"}\n{\"event\":\"isolation_proven\",\"attributes\":{\"tried\":9,\"seconds\":2.5}}\n";
        assert_eq!(proven_in(output), Some(2.5));
        assert_eq!(proven_in("nothing"), None);
    }
}
