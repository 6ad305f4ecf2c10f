//! An owner that is killed between any two of its steps leaves nothing that collection does not find.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use see_core::Identifier;
use see_core::ledger::{
    CollectOptions, Collectors, Ledger, Outcome, RecordOutcome, RecordState, Resource,
};

const FOLDER: &str = "SEE_TEST_OWNER_FOLDER";
const IDENTIFIER: &str = "SEE_TEST_OWNER_IDENTIFIER";

/// What an owner does, one step after the other; `reached` is told after each.
fn own(folder: &Path, identifier: Identifier, mut reached: impl FnMut(&str)) {
    let run = folder.join("run");
    let ledger = Ledger::open_blocking(folder.join("see")).expect("the ledger opens");
    reached("opened");
    let record = ledger
        .begin_blocking(identifier, "killed soon")
        .expect("a record begins");
    reached("begun");
    let mut entries = record
        .intend_blocking([
            Resource::folder(&run, identifier.to_string()).expect("a folder to be"),
            Resource::file(&run, format!("{identifier}.qcow2")).expect("a file to be"),
            Resource::process("sleep"),
        ])
        .expect("entries");
    reached("intended");
    let process = entries.pop().expect("the process's entry");
    let file = entries.pop().expect("the file's entry");
    let made = entries.pop().expect("the folder's entry");
    let path = made.path().expect("a path");
    // In two steps, to be killed in between.
    fs::create_dir(&path).expect("the folder is made");
    reached("folder made");
    made.identify_blocking().expect("it is recorded");
    reached("folder recorded");
    fs::create_dir(path.join("inner")).expect("a folder inside");
    fs::write(path.join("inner/file"), "x").expect("a file inside");
    reached("folder filled");
    let disk = file.path().expect("a path");
    fs::write(&disk, "disk").expect("the file is made");
    reached("file made");
    file.identify_blocking().expect("it is recorded");
    reached("file recorded");
    let mut sleep = Command::new("sleep")
        .arg("600")
        .envs([process.mark()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("a process starts");
    reached("process started");
    process
        .spawned_blocking(sleep.id())
        .expect("it is recorded");
    reached("process recorded");
    let late = Resource::file(&run, format!("{identifier}.late")).expect("a file to be");
    let late = record.intend_one_blocking(late).expect("an entry");
    drop(late.create_file_blocking().expect("the file is made"));
    reached("more made");
    fs::remove_file(late.path().expect("a path")).expect("the file is removed");
    reached("more removed");
    late.gone_blocking().expect("it is recorded");
    reached("more gone");
    sleep.kill().expect("the process is killed");
    sleep.wait().expect("it ends");
    process.gone_blocking().expect("it is recorded");
    fs::remove_file(disk).expect("the file is removed");
    reached("file removed");
    file.gone_blocking().expect("it is recorded");
    fs::remove_dir_all(path).expect("the folder is removed");
    reached("folder removed");
    made.gone_blocking().expect("it is recorded");
    reached("all gone");
    assert_eq!(record.close_blocking().expect("the record closes"), []);
    reached("closed");
}

/// An undisturbed owner leaves nothing. Also the owner that is killed: when a folder is given, it
/// stops after each step until it is told to go on.
#[test]
fn an_owner_that_comes_to_its_end_leaves_nothing() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let identifier = std::env::var(IDENTIFIER).expect("an identifier");
        let identifier = identifier.parse().expect("an identifier");
        return own(Path::new(&folder), identifier, |step| {
            // On a line of its own, whatever the test harness printed before.
            let mut output = std::io::stdout();
            writeln!(output, "\nreached {step}").expect("the parent reads");
            let mut go = [0];
            // The end of the input is the parent's death.
            if std::io::stdin().read_exact(&mut go).is_err() {
                std::process::exit(1);
            }
        });
    }
    let place = Place::new();
    own(place.0.path(), Identifier::random(), |_| {});
    place.assert_clean("the end");
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let scratch = tempfile::Builder::new().prefix("see kill ü ").tempdir();
        let scratch = scratch.expect("a scratch folder");
        fs::create_dir(scratch.path().join("run")).expect("a folder for runs");
        Self(scratch)
    }

    fn assert_clean(&self, step: &str) {
        for folder in ["run", "see/ledger"] {
            let entries = fs::read_dir(self.0.path().join(folder)).expect("a folder");
            let left: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left, Vec::<PathBuf>::new(), "left after {step:?}");
        }
    }
}

/// A process that runs [`own`], and is killed with the test.
struct Owner {
    child: Child,
    go: ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Owner {
    fn start(place: &Place, identifier: Identifier) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the test's program"))
            .args(["--exact", "an_owner_that_comes_to_its_end_leaves_nothing"])
            .arg("--nocapture")
            .env(FOLDER, place.0.path())
            .env(IDENTIFIER, identifier.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the owner starts");
        let go = child.stdin.take().expect("its input");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, go, lines }
    }

    /// The next step that it reached; `None` at its end.
    fn step(&mut self) -> Option<String> {
        self.lines
            .by_ref()
            .map(|line| line.expect("a line"))
            .find_map(|line| line.strip_prefix("reached ").map(str::to_owned))
    }

    fn go_on(&mut self) {
        self.go.write_all(b".").expect("the owner goes on");
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SIGKILL; both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes that carry the mark of an environment.
fn marked(identifier: Identifier) -> Vec<String> {
    let mark = format!("SEE_LEDGER={identifier}/");
    let processes = fs::read_dir("/proc").expect("the processes").flatten();
    processes
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&mark)
        })
        .collect()
}

#[test]
fn an_owner_killed_after_any_step_leaves_nothing_that_collection_does_not_remove() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut steps = Vec::new();
    loop {
        let place = Place::new();
        let identifier = Identifier::random();
        let mut owner = Owner::start(&place, identifier);
        let mut reached = None;
        for _ in 0..=steps.len() {
            if reached.is_some() {
                owner.go_on();
            }
            reached = owner.step();
        }
        let Some(step) = reached else {
            break;
        };
        let ledger = Ledger::open_blocking(place.0.path().join("see")).expect("the ledger opens");
        let collect = || {
            let collectors = Collectors::core();
            let collecting = ledger.collect(&collectors, CollectOptions::default());
            runtime.block_on(collecting).expect("a report")
        };
        // While the owner lives it is left alone.
        for record in collect().records {
            assert!(matches!(record.outcome, RecordOutcome::Alive), "{step}");
        }
        let processes = marked(identifier).len();
        let left = fs::read_dir(place.0.path().join("run"))
            .expect("a folder")
            .count();
        drop(owner);

        for listed in ledger.list_blocking().expect("a list") {
            assert!(matches!(listed.state, RecordState::Orphaned), "{step}");
        }
        let report = collect();
        assert!(report.is_clean(), "after {step:?}: {report:?}");
        let removed = report
            .records
            .iter()
            .flat_map(|record| &record.resources)
            .filter(|(_, outcome)| matches!(outcome, Outcome::Removed))
            .count();
        assert_eq!(removed, processes + left, "after {step:?}: {report:?}");
        place.assert_clean(&step);
        assert_eq!(marked(identifier), Vec::<String>::new(), "after {step:?}");
        steps.push(step);
    }
    assert_eq!(steps.len(), 17, "{steps:?}");
    assert_eq!(steps.last().map(String::as_str), Some("closed"));
}
