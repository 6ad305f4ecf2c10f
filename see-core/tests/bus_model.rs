//! The bus's synchronisation, with every interleaving of its threads: the very files of the bus, compiled
//! once more with loom's threads, atomics and locks beneath them.
//!
//! What is promised is promised to whoever saw the change happen: a thread that knows, by whatever way, that
//! somebody has unsubscribed, never calls them again.

#[path = "../src/bus/bounded.rs"]
mod bounded;
#[path = "../src/bus/roster.rs"]
mod roster;

mod sync {
    //! loom's types, and a model of `arc_swap` as weak as the real one.

    pub(super) use std::sync::Arc;

    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no holder panics")
    }

    /// Every version that there was, and the number of the current one.
    pub(super) struct Published<T>(Arc<Versions<T>>);

    struct Versions<T> {
        /// Not a part of the model: nobody learns of a version but by its number.
        all: std::sync::Mutex<Vec<Arc<T>>>,
        current: AtomicU64,
    }

    pub(super) struct Reader<T> {
        versions: Arc<Versions<T>>,
        number: u64,
        cached: Arc<T>,
    }

    impl<T> Versions<T> {
        fn get(&self, number: u64) -> Arc<T> {
            let all = self.all.lock().expect("no holder panics");
            let index = usize::try_from(number).expect("it is small");
            Arc::clone(&all[index])
        }
    }

    impl<T> Published<T> {
        pub(super) fn new(value: T) -> Self {
            Self(Arc::new(Versions {
                all: std::sync::Mutex::new(vec![Arc::new(value)]),
                current: AtomicU64::new(0),
            }))
        }

        pub(super) fn load(&self) -> Arc<T> {
            self.0.get(self.0.current.load(Ordering::Acquire))
        }

        pub(super) fn publish(&self, value: T) {
            let number = {
                let mut all = self.0.all.lock().expect("no holder panics");
                all.push(Arc::new(value));
                all.len() as u64 - 1
            };
            self.0.current.store(number, Ordering::Release);
        }

        pub(super) fn reader(&self) -> Reader<T> {
            let number = self.0.current.load(Ordering::Acquire);
            Reader {
                versions: Arc::clone(&self.0),
                number,
                cached: self.0.get(number),
            }
        }
    }

    impl<T> Reader<T> {
        /// `arc_swap::Cache` looks with a relaxed load whether there is something new.
        pub(super) fn get(&mut self) -> &Arc<T> {
            if self.versions.current.load(Ordering::Relaxed) != self.number {
                self.number = self.versions.current.load(Ordering::Acquire);
                self.cached = self.versions.get(self.number);
            }
            &self.cached
        }
    }
}

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use bounded::{Bounded, Crew};
use roster::{Began, Guest, List, Roster, Seat};

/// A subscriber is known by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Name(&'static str);

impl Guest for Name {
    type Sum = usize;

    fn sum(seats: &[Seat<Self>]) -> usize {
        seats.len()
    }
}

/// Goes through every interleaving with at most three switches between threads that could have gone on.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(run);
}

/// Triggers `event` with these subscribers, and tells before each call who is called.
fn call(roster: &Roster<Name>, (began, list): (Began, &List<Name>), mut called: impl FnMut(Name)) {
    assert_eq!(list.sum, list.seats.len());
    for seat in &list.seats {
        if roster.calls(began, seat) {
            called(seat.guest);
        }
    }
}

/// One thread triggers an event of two subscribers, another ends the second's subscription by `leave` and
/// then says so. Whoever heard it must not call the second.
fn leaves_while_it_is_triggered(
    look: impl Fn(&Roster<Name>, &mut sync::Reader<roster::Table<Name>>) -> (Began, Arc<List<Name>>)
    + Copy
    + Send
    + Sync
    + 'static,
    leave: impl Fn(&Roster<Name>, u64) + Copy + Send + Sync + 'static,
) {
    model(move || {
        let roster = Arc::new(Roster::new());
        roster.subscribe(Some("event"), Name("first"));
        let second = roster.subscribe(Some("event"), Name("second"));
        let left = Arc::new(AtomicBool::new(false));
        let mut reader = roster.reader();
        let leaving = {
            let (roster, left) = (Arc::clone(&roster), Arc::clone(&left));
            thread::spawn(move || {
                leave(&roster, second);
                left.store(true, Ordering::Release);
            })
        };
        let mut heard = left.load(Ordering::Acquire);
        let (began, list) = look(&roster, &mut reader);
        let mut called = Vec::new();
        call(&roster, (began, &list), |name| {
            assert!(!(heard && name == Name("second")), "called after it left");
            called.push(name);
            // What the first handler learns, the second's call comes after.
            heard = heard || left.load(Ordering::Acquire);
        });
        assert!(called.starts_with(&[Name("first")]), "a handler was lost");
        leaving.join().unwrap();
        let (began, list) = look(&roster, &mut reader);
        call(&roster, (began, &list), |name| {
            assert_eq!(name, Name("first"))
        });
    });
}

fn as_the_bus_looks(
    roster: &Roster<Name>,
    reader: &mut sync::Reader<roster::Table<Name>>,
) -> (Began, Arc<List<Name>>) {
    let (began, list) = roster.look(reader, "event");
    (began, Arc::clone(list))
}

fn as_the_bus_leaves(roster: &Roster<Name>, second: u64) {
    roster.unsubscribe(|id| id == second);
}

#[test]
fn who_was_unsubscribed_is_not_called_again_not_even_by_a_trigger_under_way() {
    leaves_while_it_is_triggered(as_the_bus_looks, as_the_bus_leaves);
}

#[test]
#[should_panic(expected = "called after it left")]
fn the_model_finds_a_departure_that_is_counted_before_the_list_is_published() {
    leaves_while_it_is_triggered(as_the_bus_looks, |roster, second| {
        let (table, left) = roster.table.load().without(&|id| id == second);
        left.iter().for_each(Seat::give_up);
        roster.departures.fetch_add(1, sync::Ordering::AcqRel);
        roster.table.publish(table);
    });
}

#[test]
#[should_panic(expected = "called after it left")]
fn the_model_finds_a_trigger_that_looks_at_the_list_before_the_count() {
    let list_first = |roster: &Roster<Name>, reader: &mut sync::Reader<roster::Table<Name>>| {
        let list = Arc::clone(reader.get().list("event"));
        (roster.now(), list)
    };
    leaves_while_it_is_triggered(list_first, as_the_bus_leaves);
}

#[test]
fn who_subscribed_is_called_from_the_next_trigger_on_and_nobody_is_lost() {
    model(|| {
        let roster = Arc::new(Roster::new());
        roster.subscribe(Some("event"), Name("first"));
        let came = Arc::new(AtomicBool::new(false));
        let mut reader = roster.reader();
        let others = [(Some("event"), "named"), (None, "every")].map(|(event, name)| {
            let (roster, came) = (Arc::clone(&roster), Arc::clone(&came));
            thread::spawn(move || {
                roster.subscribe(event, Name(name));
                if name == "named" {
                    came.store(true, Ordering::Release);
                }
            })
        });
        let heard = came.load(Ordering::Acquire);
        let mut called = Vec::new();
        let (began, list) = as_the_bus_looks(&roster, &mut reader);
        call(&roster, (began, &list), |name| called.push(name));
        assert_eq!(called[0], Name("first"));
        assert!(!heard || called.contains(&Name("named")), "{called:?}");
        for other in others {
            other.join().unwrap();
        }
        called.clear();
        let (began, list) = as_the_bus_looks(&roster, &mut reader);
        call(&roster, (began, &list), |name| called.push(name));
        assert_eq!(called.len(), 3, "a handler was lost: {called:?}");
    });
}

#[test]
fn one_who_comes_and_one_who_goes_at_once_both_get_their_way() {
    model(|| {
        let roster = Arc::new(Roster::new());
        let first = roster.subscribe(Some("event"), Name("first"));
        let coming = {
            let roster = Arc::clone(&roster);
            thread::spawn(move || roster.subscribe(Some("event"), Name("second")))
        };
        roster.unsubscribe(|id| id == first);
        coming.join().unwrap();
        let mut called = Vec::new();
        let (began, list) = as_the_bus_looks(&roster, &mut roster.reader());
        call(&roster, (began, &list), |name| called.push(name));
        assert_eq!(called, [Name("second")]);
    });
}

/// Tasks that are threads.
struct Threads {
    all: Vec<(Arc<AtomicBool>, thread::JoinHandle<()>)>,
    running: Arc<AtomicUsize>,
}

impl Crew for Threads {
    fn sweep(&mut self) {
        self.all.retain(|(ended, _)| !ended.load(Ordering::Acquire));
    }

    fn count(&self) -> usize {
        self.all.len()
    }
}

impl Threads {
    fn start(&mut self, limit: usize) {
        let (running, ended) = (Arc::clone(&self.running), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        let task = thread::spawn(move || {
            let beside = running.fetch_add(1, Ordering::AcqRel) + 1;
            assert!(beside <= limit, "{beside} at once, {limit} are allowed");
            running.fetch_sub(1, Ordering::AcqRel);
            end.store(true, Ordering::Release);
        });
        self.all.push((ended, task));
    }
}

#[test]
fn never_more_tasks_than_the_limit_run_and_none_starts_after_the_end() {
    model(|| {
        let running = Arc::new(AtomicUsize::new(0));
        let crew = Arc::new(Bounded::new(Threads {
            all: Vec::new(),
            running: Arc::clone(&running),
        }));
        let admitting = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || usize::from(crew.admit(1, |crew| crew.start(1))))
        };
        let mut admitted = usize::from(crew.admit(1, |crew| crew.start(1)));
        let closed = crew.close().expect("it was open");
        assert!(crew.close().is_none());
        assert!(!crew.admit(1, |_| panic!("started after the end")));
        // Whoever was admitted was swept out after its end, or is given out here.
        let given = closed.all.len();
        for (_, task) in closed.all {
            task.join().unwrap();
        }
        admitted += admitting.join().unwrap();
        assert!(given <= 1 && given <= admitted, "{given} of {admitted}");
        assert_eq!(running.load(Ordering::Acquire), 0, "a task is lost");
    });
}

#[test]
#[should_panic(expected = "at once, 1 are allowed")]
fn the_model_finds_room_that_is_looked_for_before_the_lock_is_taken() {
    model(|| {
        let crew = Arc::new(sync::Mutex::new(Threads {
            all: Vec::new(),
            running: Arc::new(AtomicUsize::new(0)),
        }));
        let admit = |crew: &sync::Mutex<Threads>| {
            let room = sync::lock(crew).count() < 1;
            if room {
                sync::lock(crew).start(1);
            }
        };
        let other = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || admit(&crew))
        };
        admit(&crew);
        other.join().unwrap();
        for (_, task) in sync::lock(&crew).all.drain(..) {
            task.join().unwrap();
        }
    });
}
