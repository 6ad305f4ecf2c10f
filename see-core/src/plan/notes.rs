//! What is said of a run file before its first run: hooks that are left out, and what python-see did otherwise.

use crate::Registries;
use crate::config::{Configuration, RunFile};

/// Notes about this run file; none where it cannot be read, which is told as an error.
pub(super) fn of(configuration: &Configuration, registries: &Registries) -> Vec<String> {
    let Ok(run) = RunFile::read(configuration) else {
        return Vec::new();
    };
    let left_out = registries.hooks.left_out(&run.hooks);
    let mut notes: Vec<String> = left_out
        .iter()
        .map(|error| {
            let place = error.place().map(|place| format!("{place}: "));
            let place = place.unwrap_or_default();
            format!("{place}{}; the run goes on without it", error.message())
        })
        .collect();
    if is_python_sees(configuration, &run) {
        notes.extend(
            changed(&run, configuration)
                .into_iter()
                .map(|change| format!("python-see did otherwise: {change} (docs/python-see.md)")),
        );
    }
    notes
}

/// Whether names or forms in it are python-see's alone.
fn is_python_sees(configuration: &Configuration, run: &RunFile) -> bool {
    let starts_with_see = |node: Option<&Configuration>| {
        node.and_then(Configuration::as_str)
            .is_some_and(|name| name.starts_with("see."))
    };
    let hooks = configuration.get("hooks");
    let is_wrapped = hooks
        .and_then(|hooks| hooks.get("hooks"))
        .is_some_and(Configuration::is_object);
    let image = run.context.get("disk").and_then(|disk| disk.get("image"));
    is_wrapped
        || starts_with_see(run.context.get("name"))
        || starts_with_see(image.and_then(|image| image.get("provider")))
        || run.hooks.hooks.iter().any(|hook| hook.name.contains('.'))
}

/// What the file leaves to defaults that are others than python-see's.
fn changed(run: &RunFile, configuration: &Configuration) -> Vec<String> {
    let mut changed = Vec::new();
    let mut say = |words: &str| changed.push(words.to_owned());
    let backend = ["backend", "name"]
        .iter()
        .find_map(|key| run.context.get(key).and_then(Configuration::as_str));
    let is_qemu = backend.is_none_or(|name| name.to_lowercase().contains("qemu"));
    if is_qemu && run.context.get("hypervisor").is_none() {
        say("without `context.hypervisor` it took qemu:///system, and this run takes `embedded`");
    }
    let clone = run.context.get("disk").map(|disk| disk.get("clone"));
    match clone {
        Some(None) => {
            say("without `disk.clone` the guest wrote into the image, and now into an overlay");
        }
        Some(Some(clone)) if is_qemu && clone.get("copy_on_write").is_none() => {
            say("without `copy_on_write` it made a full copy, and this run makes an overlay");
        }
        _ => {}
    }
    let has = |names: [&str; 2]| {
        run.hooks
            .hooks
            .iter()
            .any(|hook| names.contains(&hook.name.as_str()))
    };
    if has(["commands", "plugins.commands.CommandsHook"]) {
        say("commands had no deadline, and now have 5 minutes, samples `--runtime`");
    }
    if has(["screen", "plugins.screen.ScreenHook"]) {
        say("screenshots were PPM, and now are PNG");
    }
    if configuration.get("protocol").is_none() {
        say("a script drove the run, and now the default protocol does");
    }
    changed
}
