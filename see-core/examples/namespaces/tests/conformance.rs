//! The conformance suite, and what this backend promises beyond it. Needs Linux with user namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use see_core::config::{Configuration, HooksSection};
use see_core::ledger::Ledger;
use see_core::testing::conformance::{self, Candidate, GuestAct, Verdict};
use see_core::{
    AllocateOptions, Environment, Error, Host, Identifier, Machine, Registries, Result, Stop,
};
use see_namespaces::{Namespaces, NamespacesMachine};
use serde_json::{Value, json};

/// The longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// A program that obeys, not without complaint, and one beside it that has left its session.
const OBEDIENT: &str = "trap 'exit 0' USR1; trap 'exit 1' TERM; setsid sleep 600 & echo up; while :; do sleep 600 & wait $!; done";

#[derive(Debug)]
struct Candidates(tempfile::TempDir);

#[async_trait]
impl Candidate for Candidates {
    fn registries(&self) -> Result<Registries> {
        registries()
    }

    fn context(&self) -> Value {
        context(self.0.path(), &["sh", "-c", OBEDIENT])
    }

    async fn remains(&self, identifier: Identifier) -> Vec<String> {
        remains(self.0.path(), identifier)
    }

    fn malformed(&self) -> Vec<Value> {
        let mut empty = self.context();
        empty["command"] = json!([]);
        let mut nowhere = self.context();
        nowhere["folder"] = json!("/no/such/folder");
        vec![empty, nowhere]
    }

    fn obeys_shutdown(&self) -> bool {
        true
    }

    /// Waits until the program has set its traps.
    async fn settle(&self, machine: &Machine) -> Result<()> {
        let console = machine.console().expect("it claims one").log().to_owned();
        let deadline = Instant::now() + LIMIT;
        while !fs::read_to_string(&console).is_ok_and(|text| text.contains("up")) {
            if Instant::now() > deadline {
                return Err(Error::timeout("the program's first word", LIMIT));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn provoke(&self, machine: &Machine, act: GuestAct) -> Option<Result<()>> {
        let signal = match act {
            GuestAct::Poweroff => Signal::USR1,
            GuestAct::Crash => Signal::KILL,
            GuestAct::Reboot => return None,
        };
        if let Err(error) = self.settle(machine).await {
            return Some(Err(error));
        }
        Some(send(machine, signal))
    }

    async fn kill(&self, machine: &Machine) -> Option<Result<()>> {
        Some(send(machine, Signal::KILL))
    }
}

fn send(machine: &Machine, signal: Signal) -> Result<()> {
    let machine: &NamespacesMachine = machine.native().unwrap().downcast_ref().unwrap();
    let pid = machine.first_process().expect("it runs");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).map_err(|error| Error::io("no signal", error.into()))
}

fn registries() -> Result<Registries> {
    let mut registries = Registries::new();
    registries.backends.add::<Namespaces>()?;
    Ok(registries)
}

fn context(folder: &Path, command: &[&str]) -> Value {
    json!({ "backend": "namespaces", "folder": folder, "command": command })
}

/// Folders named after the environment, and processes that carry its mark.
fn remains(folder: &Path, identifier: Identifier) -> Vec<String> {
    let name = identifier.to_string();
    let own = std::process::id().to_string();
    let named = |path: &PathBuf| path.to_string_lossy().contains(&name);
    let folders = entries(folder).filter(named);
    let marked = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        !process.ends_with(&own) && String::from_utf8_lossy(&environment).contains(&name)
    };
    let processes = entries(Path::new("/proc")).filter(marked);
    folders
        .chain(processes)
        .map(|path| path.display().to_string())
        .collect()
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).expect("it is there");
    entries.flatten().map(|entry| entry.path())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_in_namespaces_pass_the_conformance_suite() {
    let report = conformance::run(Candidates(tempfile::TempDir::new().unwrap())).await;
    report.assert_passed();
    for finding in report.findings() {
        let passed = matches!(finding.verdict, Verdict::Passed(_));
        assert!(passed, "{} was not shown:\n{report}", finding.name);
    }
}

/// Runs a script in a machine until it says `done`, and gives its environment and what it wrote.
async fn run(folder: &Path, script: &str) -> (Host, Environment, String) {
    let ledger = Ledger::open(folder.join("state")).await.unwrap();
    let host = Host::new(registries().unwrap(), ledger).unwrap();
    let context = Configuration::from_json(context(folder, &["sh", "-c", script]));
    let prepared = host
        .prepare(&context, &HooksSection::default())
        .await
        .unwrap();
    let options = AllocateOptions::default();
    let mut environment = host.allocate(prepared, options, Stop::new()).await.unwrap();
    environment.turn().await.unwrap().poweron().await.unwrap();
    let console = environment.machine().console().unwrap().log().to_owned();
    let deadline = Instant::now() + LIMIT;
    loop {
        let written = fs::read_to_string(&console).unwrap_or_default();
        if written.contains("done") {
            return (host, environment, written);
        }
        assert!(Instant::now() < deadline, "not done: {written}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_sees_nothing_of_the_host_but_its_programs_and_cannot_change_that() {
    let folder = tempfile::TempDir::new().unwrap();
    fs::write(folder.path().join("secret"), "of the host").unwrap();
    let secret = folder.path().join("secret").display().to_string();
    let host_process = std::process::id();
    let script = format!(
        "echo number $$; echo root: $(ls /); echo interfaces: $(tail -n +3 /proc/net/dev | cut -d: -f1)
         [ -e '{secret}' ] && echo sees a secret
         [ -e /proc/{host_process}/root ] && [ {host_process} -gt 50 ] && echo sees a process
         touch /usr/bin/planted 2>/dev/null && echo writes programs
         mount -t tmpfs none /tmp 2>/dev/null && echo mounts
         unshare --user --map-root-user true 2>/dev/null && echo gains rights
         touch /tmp/own && echo writes its own
         echo done; sleep 600"
    );
    let (host, environment, written) = run(folder.path(), &script).await;
    let lines: Vec<&str> = written.lines().collect();
    let right = [
        "number 1",
        "root: bin dev lib lib64 proc sbin tmp usr",
        "interfaces: lo",
        "writes its own",
        "done",
    ];
    assert_eq!(lines, right);
    assert!(environment.deallocate().await.is_clean());
    host.finish(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_machine_stands_still_whole_and_goes_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let script = "setsid sh -c 'while :; do echo tick; sleep 0.01; done' & echo done; wait";
    let (host, mut environment, _) = run(folder.path(), script).await;
    let console = environment.machine().console().unwrap().log().to_owned();
    let length = || fs::metadata(&console).unwrap().len();
    let grows = |from: u64| {
        let deadline = Instant::now() + LIMIT;
        while length() == from {
            assert!(Instant::now() < deadline, "it does not go on");
            std::thread::yield_now();
        }
    };
    grows(length());
    environment.turn().await.unwrap().pause().await.unwrap();
    let still = length();
    // Many times as long as it takes from one tick to the next.
    let end = Instant::now() + Duration::from_millis(200);
    while Instant::now() < end {
        assert_eq!(length(), still, "something still runs");
        std::thread::yield_now();
    }
    environment.turn().await.unwrap().resume().await.unwrap();
    grows(still);
    assert!(environment.deallocate().await.is_clean());
    host.finish(LIMIT).await.unwrap();
}
