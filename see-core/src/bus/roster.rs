//! Who is subscribed to what: the part of the bus that several threads touch at once.
//!
//! Lists are replaced as a whole, so a trigger may go through one that is out of date. What it owes all the
//! same: who subscribed before it began is called, and who was unsubscribed is not called any more, however
//! long the trigger takes. So every seat says whether it is still taken; and since looking at that for each
//! handler would double what a trigger costs, it is looked at only once somebody has left since the trigger
//! [began](Roster::look).
//!
//! The order of the steps is what makes this right, and `tests/bus_model.rs` tries every interleaving of
//! them: who leaves gives up the seat, then the new list is published, and only then the departure is
//! counted; a trigger looks at the count first and at the list then.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Published, Reader, lock};

/// Something that subscribes.
pub(crate) trait Guest: Clone {
    /// What a whole list of them comes to, worked out when the list is made.
    type Sum;

    fn sum(seats: &[Seat<Self>]) -> Self::Sum;
}

/// A subscriber in a list.
#[derive(Clone)]
pub(crate) struct Seat<G> {
    pub(super) id: u64,
    taken: Arc<AtomicBool>,
    pub(crate) guest: G,
}

/// The subscribers of one event name, in the order in which they subscribed.
pub(crate) struct List<G: Guest> {
    pub(crate) seats: Vec<Seat<G>>,
    pub(crate) sum: G::Sum,
}

/// The lists of every name.
pub(crate) struct Table<G: Guest> {
    named: HashMap<Box<str>, Arc<List<G>>, FixedState>,
    /// Subscribers of every event; contained in each named list too.
    every: Arc<List<G>>,
}

/// When a trigger began, in departures.
#[derive(Clone, Copy)]
pub(crate) struct Began(u64);

/// Who is subscribed.
pub(crate) struct Roster<G: Guest> {
    pub(super) table: Published<Table<G>>,
    /// How many departures there were: while it stands, every seat of a list is taken.
    pub(super) departures: AtomicU64,
    next: AtomicU64,
    /// Serialises changes of the table: they are rare.
    change: Mutex<()>,
}

impl<G> Seat<G> {
    /// Whether its subscriber has not left.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    pub(super) fn give_up(&self) {
        self.taken.store(false, Ordering::Release);
    }
}

impl<G: Guest> List<G> {
    fn of(seats: Vec<Seat<G>>) -> Arc<Self> {
        let sum = G::sum(&seats);
        Arc::new(Self { seats, sum })
    }
}

impl<G: Guest> Table<G> {
    #[inline]
    pub(super) fn list(&self, name: &str) -> &Arc<List<G>> {
        self.named.get(name).unwrap_or(&self.every)
    }

    /// The same without some, and their seats.
    pub(super) fn without(&self, gone: &impl Fn(u64) -> bool) -> (Self, Vec<Seat<G>>) {
        let mut left = Vec::new();
        let mut rest = |list: &Arc<List<G>>| {
            if !list.seats.iter().any(|seat| gone(seat.id)) {
                return Arc::clone(list);
            }
            let seats = list.seats.iter().cloned();
            let (out, kept): (Vec<_>, Vec<_>) = seats.partition(|seat| gone(seat.id));
            left.extend(out);
            List::of(kept)
        };
        let every = rest(&self.every);
        let named = self
            .named
            .iter()
            .map(|(name, list)| (name.clone(), rest(list)))
            // A list with nothing of its own is what every event gets anyway.
            .filter(|(_, list)| list.seats.len() > every.seats.len())
            .collect();
        (Self { named, every }, left)
    }
}

impl<G: Guest> Roster<G> {
    pub(super) fn new() -> Self {
        Self {
            table: Published::new(Table {
                named: HashMap::default(),
                every: List::of(Vec::new()),
            }),
            departures: AtomicU64::new(0),
            next: AtomicU64::new(1),
            change: Mutex::new(()),
        }
    }

    /// Subscribes to one event name, or with `None` to every event. Returns the seat's number.
    pub(super) fn subscribe(&self, name: Option<&str>, guest: G) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let seat = Seat {
            id,
            taken: Arc::new(AtomicBool::new(true)),
            guest,
        };
        let appended = |list: &List<G>| {
            let mut seats = list.seats.clone();
            seats.push(seat.clone());
            List::of(seats)
        };
        let _change = lock(&self.change);
        let table = self.table.load();
        let mut named = table.named.clone();
        let every = match name {
            Some(name) => {
                let list = appended(table.list(name));
                named.insert(name.into(), list);
                Arc::clone(&table.every)
            }
            None => {
                for list in named.values_mut() {
                    *list = appended(list);
                }
                appended(&table.every)
            }
        };
        self.table.publish(Table { named, every });
        id
    }

    /// Ends subscriptions: from now on none of them is called, not even by a trigger under way.
    pub(super) fn unsubscribe(&self, gone: impl Fn(u64) -> bool) {
        let _change = lock(&self.change);
        let (table, left) = self.table.load().without(&gone);
        for seat in &left {
            seat.give_up();
        }
        self.table.publish(table);
        if !left.is_empty() {
            self.departures.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// What one thread that triggers keeps of the lists.
    pub(super) fn reader(&self) -> Reader<Table<G>> {
        self.table.reader()
    }

    /// How a trigger begins: who is to be called for this name, and when that was.
    #[inline]
    pub(super) fn look<'reader>(
        &self,
        reader: &'reader mut Reader<Table<G>>,
        name: &str,
    ) -> (Began, &'reader Arc<List<G>>) {
        let began = self.now();
        (began, reader.get().list(name))
    }

    #[inline]
    pub(super) fn now(&self) -> Began {
        Began(self.departures.load(Ordering::Acquire))
    }

    /// Whether a trigger still calls this seat's subscriber.
    #[inline]
    pub(super) fn calls(&self, began: Began, seat: &Seat<G>) -> bool {
        self.departures.load(Ordering::Acquire) == began.0 || seat.is_taken()
    }
}
