//! The proof that a closed network is closed: owed by every guest that is started on one, unless `verify` of the
//! network is false. A hook delivers it; whether it is there is decided here, and without it nothing runs.

use std::sync::Mutex;

use serde::Serialize;

use crate::event::{Text, Value};
use crate::sync::lock;
use crate::{Error, ErrorKind, Event, Isolation, Machine, Result};

/// The event of the hook that let the guest try the walls, and saw that nothing answered it. It counts only
/// from a hook that announced that it proves the network ([`Context::proves_isolation`]). A hook that gives
/// up before it could begin says so with `not_isolation_proven`, whose attribute `message` tells why.
///
/// [`Context::proves_isolation`]: crate::Context::proves_isolation
pub const ISOLATION_PROVEN: &str = "isolation_proven";
/// The event of whoever found a hole in the walls. Its attribute `message` says what was found; `holes`, where
/// it is there, is a list of texts that names each hole. It ends the run: the guest's power is cut, and the
/// results are marked, and the guest is neither started nor resumed again.
pub const ISOLATION_BROKEN: &str = "isolation_broken";

/// The event of whoever was to let the guest try the walls, and could not. Its attribute `message` says why.
/// It ends the run as a hole does: what nobody could try is not taken for closed.
pub const ISOLATION_NOT_CHECKED: &str = "isolation_not_checked";

/// The event of a hook that gives up proving the network, since nobody in the guest answers.
const NOT_PROVEN: &str = "not_isolation_proven";

/// What helps where nobody proves the network.
const ADVICE: &str = "add the hook `commands`, and SEE's agent to the guest (python-see's agent cannot prove it), \
                      or set `\"verify\": false` in `network`, which skips the proof";

/// What is known of the walls around a run's guest.
///
/// As JSON it is an object: `verdict`; `why` where they were not checked, not proven or are broken; and `holes`,
/// a list of texts, where it is known what got through them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[non_exhaustive]
pub enum IsolationVerdict {
    /// The guest has no network, or one that promises no walls.
    #[default]
    NoWalls,
    /// The walls stood whenever they were looked at, and no proof from inside was asked for, or no guest ran.
    NotChecked {
        /// Why not.
        why: String,
    },
    /// The walls stood whenever they were looked at, but the guest ran and did not prove them closed as it
    /// had to: the run failed.
    Unproven {
        /// Why not.
        why: String,
    },
    /// The walls stood, and the guest itself found everything behind them closed.
    Proven,
    /// Something behind the walls answered the guest, or they did not stand as they were built: what the
    /// run found is not to be trusted.
    Broken {
        /// What was seen.
        why: String,
        /// Everything that answered the guest, where it tried the walls.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        holes: Vec<String>,
    },
}

/// What is known of the proof in one environment.
#[derive(Debug, Default)]
pub(crate) struct Proof(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The hooks that announced that they prove the network.
    provers: Vec<Text>,
    /// Somebody asked for the power to come on, or the machine was found running.
    started: bool,
    proven: bool,
    /// Why nothing may run in the guest any more, whatever is proven: the network was found open, or could not be
    /// tried.
    ended: Option<String>,
    /// Why the hook gave up, in this boot.
    given_up: Option<String>,
}

/// Whether something may run in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No proof is owed, or it is there.
    Settled,
    /// It is to come.
    Awaited,
    /// It will not come in this boot: why.
    GivenUp(String),
    /// Nothing may run any more: why.
    Ended(String),
}

/// The events with which a guest boots.
const BOOTS: [&str; 3] = ["pre_poweron", "restarted", "guest_reboot"];

impl Proof {
    /// The events to [hear](Self::hear).
    pub(crate) const EVENTS: [&str; 7] = [
        ISOLATION_PROVEN,
        ISOLATION_BROKEN,
        ISOLATION_NOT_CHECKED,
        NOT_PROVEN,
        BOOTS[0],
        BOOTS[1],
        BOOTS[2],
    ];

    /// A hook announces that it will prove the network.
    pub(crate) fn announce(&self, owner: &Text) {
        lock(&self.0).provers.push(owner.clone());
    }

    /// The hook has ended.
    pub(crate) fn withdraw(&self, owner: &Text) {
        lock(&self.0).provers.retain(|prover| prover != owner);
    }

    /// Nothing may run in the guest any more. What was told first counts.
    pub(crate) fn end(&self, why: impl Into<String>) {
        lock(&self.0).ended.get_or_insert_with(|| why.into());
    }

    /// Takes note of an event that tells of the proof.
    pub(crate) fn hear(&self, event: &Event) {
        let mut state = lock(&self.0);
        match event.name() {
            ISOLATION_PROVEN => {
                let source = event.said_by();
                if state.provers.iter().any(|prover| prover.as_str() == source) {
                    state.proven = true;
                    state.given_up = None;
                } else {
                    tracing::warn!(
                        "`{ISOLATION_PROVEN}` does not count from {source:?}, which did not announce that it \
                         proves the network"
                    );
                }
            }
            name @ (ISOLATION_BROKEN | ISOLATION_NOT_CHECKED) => {
                let why = event.get("message").and_then(Value::as_str);
                let why = why.unwrap_or(name).to_owned();
                state.ended.get_or_insert(why);
            }
            NOT_PROVEN => {
                let why = event.get("message").and_then(Value::as_str);
                state.given_up = Some(why.unwrap_or("it was given up").to_owned());
            }
            name if BOOTS.contains(&name) => state.given_up = None,
            _ => {}
        }
    }

    /// Whether a guest may go on.
    ///
    /// # Errors
    /// [`ErrorKind::Isolation`] once its network was found open, or could not be tried.
    pub(crate) fn check_ended(&self) -> Result<()> {
        match &lock(&self.0).ended {
            Some(why) => Err(ended(why)),
            None => Ok(()),
        }
    }

    /// Whether the guest may be started: where a proof is owed, some hook has to be there that delivers it.
    ///
    /// # Errors
    /// [`ErrorKind::Isolation`] where none is, and as [`Self::check_ended`].
    pub(crate) fn check_start(&self, machine: &Machine) -> Result<()> {
        self.check_ended()?;
        let mut state = lock(&self.0);
        state.started = true;
        match is_owed(machine) && !state.proven && state.provers.is_empty() {
            true => Err(nobody_proves()),
            false => Ok(()),
        }
    }

    /// Whether the proof that is owed is there.
    pub(crate) fn standing(&self, machine: &Machine) -> Standing {
        let state = lock(&self.0);
        if let Some(why) = &state.ended {
            return Standing::Ended(why.clone());
        }
        if !is_owed(machine) || !state.started || state.is_proven() {
            return Standing::Settled;
        }
        match &state.given_up {
            Some(why) => Standing::GivenUp(why.clone()),
            None => Standing::Awaited,
        }
    }

    /// Fails a run at its end that owes the proof.
    ///
    /// # Errors
    /// [`ErrorKind::Isolation`].
    pub(crate) fn check_end(&self, machine: &Machine) -> Result<()> {
        match self.standing(machine) {
            Standing::Settled => Ok(()),
            Standing::GivenUp(why) => Err(unproven(why)),
            Standing::Ended(why) => Err(ended(&why)),
            Standing::Awaited if lock(&self.0).provers.is_empty() => Err(nobody_proves()),
            Standing::Awaited => Err(Error::new(
                ErrorKind::Isolation,
                "the protocol ended before the guest had proven that its network is closed",
            )
            .advice(
                "wait for `ready`, which comes after the proof, or set `\"verify\": false` in `network`, which \
                 skips the proof",
            )),
        }
    }

    /// The verdict on walls that stand.
    pub(crate) fn verdict(&self, isolation: &dyn Isolation) -> IsolationVerdict {
        let state = lock(&self.0);
        let not_checked = |why: &str| IsolationVerdict::NotChecked {
            why: why.to_owned(),
        };
        if let Some(why) = &state.ended {
            return IsolationVerdict::Unproven { why: why.clone() };
        }
        if state.is_proven() {
            return IsolationVerdict::Proven;
        }
        if !isolation.is_verified() {
            return not_checked("`verify` of the network is false");
        }
        if !state.started {
            return not_checked("the guest was not started");
        }
        let why = match &state.given_up {
            Some(why) => why.clone(),
            None if state.provers.is_empty() => nobody_proves().to_string(),
            None => {
                "the run ended before the guest had proven that its network is closed".to_owned()
            }
        };
        IsolationVerdict::Unproven { why }
    }
}

impl State {
    fn is_proven(&self) -> bool {
        self.proven && self.ended.is_none()
    }
}

/// Whether a guest on this network has to prove that it is closed.
pub(crate) fn is_owed(machine: &Machine) -> bool {
    machine.isolation().is_some_and(Isolation::is_verified)
}

fn nobody_proves() -> Error {
    Error::new(
        ErrorKind::Isolation,
        "no hook of this run can have the guest prove that its network is closed",
    )
    .advice(ADVICE)
}

/// Nothing may run any more: why.
pub(crate) fn ended(why: &str) -> Error {
    let why = format!("the guest does not run again, since its network may be open: {why}");
    Error::new(ErrorKind::Isolation, why)
}

/// The proof that will not come: why.
pub(crate) fn unproven(why: String) -> Error {
    let why = format!("the guest did not prove that its network is closed: {why}");
    Error::new(ErrorKind::Isolation, why).advice(
        "SEE's agent in the guest has to answer; `\"verify\": false` in `network` skips the proof",
    )
}
