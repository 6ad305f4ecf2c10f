//! What others on the host see of a process and of all that it starts: command lines and environments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long it rests between two looks.
const REST: Duration = Duration::from_millis(1);

/// What was seen of one program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sight {
    /// Its file.
    pub program: PathBuf,
    /// Its arguments, with zeros between.
    pub arguments: Vec<u8>,
    /// Its environment, likewise. Empty for the program that is watched: what that was given is known to whoever
    /// gave it. So a child of its that is not yet another program is not judged by what it still shares.
    pub environment: Vec<u8>,
}

/// Looks at a process and its descendants until the process has ended.
#[derive(Debug)]
pub struct Onlooker {
    is_over: Arc<AtomicBool>,
    looking: JoinHandle<BTreeSet<Sight>>,
}

impl Onlooker {
    /// One that looks at this process from now on.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let looking = std::thread::spawn(move || {
            let mut view = View::of(pid);
            while !over.load(Ordering::Relaxed) {
                view.look();
                std::thread::sleep(REST);
            }
            view.seen
        });
        Self { is_over, looking }
    }

    /// All that was seen.
    ///
    /// # Panics
    /// When it could not look.
    #[must_use]
    pub fn end(self) -> BTreeSet<Sight> {
        self.is_over.store(true, Ordering::Relaxed);
        self.looking.join().expect("an onlooker does not panic")
    }
}

/// What was seen so far.
#[derive(Debug)]
struct View {
    root: u32,
    /// The program of the root.
    own: Option<PathBuf>,
    /// The root and its descendants: who was one stays one when its parent dies.
    family: BTreeSet<u32>,
    /// Whom one look sufficed for: a program that runs is not held up by ever more of them.
    known: BTreeSet<(u32, PathBuf)>,
    seen: BTreeSet<Sight>,
}

impl View {
    fn of(root: u32) -> Self {
        Self {
            root,
            own: program(root),
            family: BTreeSet::from([root]),
            known: BTreeSet::new(),
            seen: BTreeSet::new(),
        }
    }

    fn look(&mut self) {
        let (root, parents) = (self.root, parents());
        // A number of one that is gone may be somebody else's soon.
        let is_there = |pid: &u32| *pid == root || parents.contains_key(pid);
        self.family.retain(is_there);
        self.known.retain(|(pid, _)| is_there(pid));
        loop {
            let before = self.family.len();
            for (pid, parent) in &parents {
                if self.family.contains(parent) {
                    self.family.insert(*pid);
                }
            }
            if self.family.len() == before {
                break;
            }
        }
        for pid in &self.family {
            // The program comes first: what is read after it is its own, or that of one that follows it.
            let Some(program) = program(*pid) else {
                continue;
            };
            let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}"));
            let key = (*pid, program.clone());
            if self.known.contains(&key) {
                continue;
            }
            let is_own = self.own.as_ref() == Some(&program);
            let environment = match is_own {
                true => Vec::new(),
                false => read("environ").unwrap_or_default(),
            };
            let arguments = read("cmdline").unwrap_or_default();
            if !is_own && !arguments.is_empty() {
                self.known.insert(key);
            }
            self.seen.insert(Sight {
                program,
                arguments,
                environment,
            });
        }
    }
}

/// The file of a process's program; `None` where it has ended.
fn program(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// All processes, with their parents.
fn parents() -> BTreeMap<u32, u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // Its name may hold anything, a parenthesis too.
            let (_, rest) = stat.rsplit_once(')')?;
            Some((pid, rest.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn arguments_and_environments_of_grandchildren_are_seen() {
        let mut child = Command::new("sh")
            .args(["-c", "TOLD=to-the-grandchild cat - >&2; true"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh is there");
        let end = Instant::now() + Duration::from_secs(30);
        let mut view = View::of(child.id());
        let is_there = |sight: &Sight| {
            let told: &[u8] = b"TOLD=to-the-grandchild";
            let holds = |text: &[u8]| text.split(|byte| *byte == 0).any(|word| word == told);
            holds(&sight.environment) && sight.arguments.starts_with(b"cat\0")
        };
        loop {
            view.look();
            if view.seen.iter().any(is_there) {
                break;
            }
            assert!(Instant::now() < end, "{view:?}");
        }
        drop(child.stdin.take());
        child.wait().expect("it is ours");
    }
}
