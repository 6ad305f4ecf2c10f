//! The core on which libvirt asks the processor what it is.
//!
//! libvirt keeps what it knows of the emulators together with what the processor says of itself, and probes them
//! again where that differs. On some processors the number of the core that was asked is a part of it (leaf 0x1f of
//! `cpuid`), so whether a call needs seconds would be left to chance: roots are opened, and machines defined and
//! started, on the same core. libvirt itself lets an emulator that it started use all cores.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rustix::process::Pid;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

/// How often threads are looked for that were started meanwhile, by others that were.
const LOOKS: usize = 8;

/// The threads that do something on the first core now.
static HELD: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Does something on the first core that this thread may use. The threads that it starts may use all of them
/// afterwards, as this one may. Where nothing can be chosen, it is done wherever it is.
pub(crate) fn on_the_first_core<T>(work: impl FnOnce() -> T) -> T {
    let Ok(usual) = sched_getaffinity(None) else {
        return work();
    };
    if usual.count() < 2 {
        return work();
    }
    let mut first = CpuSet::new();
    if let Some(core) = (0..CpuSet::MAX_CPU).find(|core| usual.is_set(*core)) {
        first.set(core);
    }
    let before = threads();
    // Those that are held on purpose are left alone by others that come back from there.
    let held_on_purpose = || HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held_on_purpose().push(gettid());
    if sched_setaffinity(None, &first).is_err() {
        held_on_purpose().retain(|thread| *thread != gettid());
        return work();
    }
    let done = work();
    held_on_purpose().retain(|thread| *thread != gettid());
    // The kernel allowed it before. A thread that has ended needs nothing.
    let _ = sched_setaffinity(None, &usual);
    for _ in 0..LOOKS {
        let started = threads();
        let started = started.difference(&before).copied();
        let is_held = |thread: &Pid| {
            !held_on_purpose().contains(thread)
                && sched_getaffinity(Some(*thread)).is_ok_and(|it| it == first)
        };
        let held: Vec<Pid> = started.filter(is_held).collect();
        if held.is_empty() {
            break;
        }
        for thread in held {
            let _ = sched_setaffinity(Some(thread), &usual);
        }
    }
    done
}

/// The threads of this process.
fn threads() -> HashSet<Pid> {
    let entries = std::fs::read_dir("/proc/self/task");
    let entries = entries.into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn only_the_work_itself_is_held_to_one_core_and_what_it_started_is_free_again() {
        let usual = sched_getaffinity(None).unwrap();
        let (go, wait) = channel::<()>();
        let (inside, thread) = on_the_first_core(|| {
            let inside = sched_getaffinity(None).unwrap();
            let (ready, is_ready) = channel();
            let thread = std::thread::spawn(move || {
                ready.send(sched_getaffinity(None).unwrap()).unwrap();
                wait.recv().unwrap();
                sched_getaffinity(None).unwrap()
            });
            assert!(is_ready.recv().unwrap() == inside);
            (inside, thread)
        });
        assert_eq!(inside.count(), 1);
        let first = (0..CpuSet::MAX_CPU).find(|core| usual.is_set(*core));
        assert!(inside.is_set(first.unwrap()));
        assert!(sched_getaffinity(None).unwrap() == usual);
        go.send(()).unwrap();
        assert!(thread.join().unwrap() == usual);
    }
}
