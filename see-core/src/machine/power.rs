//! Who changed the machine's power: we, or the guest.

use std::sync::Mutex;

use crate::sync::lock;
use crate::{SandboxState, Transition};

/// How a guest ended that went to sleep: nothing in it fires an event until something wakes it.
const ASLEEP: &str = "the guest suspended itself, and nothing wakes it";

/// What we want the machine to be, so that the guest's own changes can be told apart.
#[derive(Debug, Default)]
pub(super) struct Power(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    wanted: Option<SandboxState>,
    /// Changes that we began. While not all of them are done, what the machine looks like says nothing about the guest.
    begun: u64,
    /// Changes of ours that are done.
    done: u64,
    /// Restarts that were asked for and have not been seen yet.
    restarts_asked: u32,
    guest_end: Option<&'static str>,
}

/// A change of ours, over when this is dropped: also where a driver panics.
pub(super) struct Change<'a> {
    number: u64,
    transition: Transition,
    /// What we wanted before.
    before: Option<SandboxState>,
    /// How the guest had ended itself before.
    guest_end: Option<&'static str>,
    pub(super) succeeded: bool,
    power: &'a Power,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut power = lock(&self.power.0);
        power.done += 1;
        if self.succeeded {
            return;
        }
        if self.transition == Transition::Restart {
            power.restarts_asked = power.restarts_asked.saturating_sub(1);
        }
        // One that failed is wanted no more, unless another was begun since.
        if power.begun == self.number {
            power.wanted = self.before;
            power.guest_end = self.guest_end;
        }
    }
}

/// A look at the machine that was begun after so many changes of ours.
pub(super) struct Look(u64);

impl Power {
    /// Notes that we begin to change the machine's power.
    pub(super) fn begin(&self, transition: Transition) -> Change<'_> {
        let mut power = lock(&self.0);
        power.begun += 1;
        let guest_end = power.guest_end;
        match transition {
            Transition::Restart => power.restarts_asked += 1,
            // What was asked of a guest that is off comes no more.
            Transition::Poweron => (power.guest_end, power.restarts_asked) = (None, 0),
            Transition::Resume => power.guest_end = None,
            _ => {}
        }
        Change {
            number: power.begun,
            transition,
            guest_end,
            before: power.wanted.replace(transition.leads_to()),
            succeeded: false,
            power: self,
        }
    }

    /// Notes that a look at the machine's state begins.
    pub(super) fn look(&self) -> Look {
        Look(lock(&self.0).begun)
    }

    /// What the guest did by itself, as the name of an event, where the machine was found like this.
    pub(super) fn found(&self, look: Look, state: SandboxState) -> Option<&'static str> {
        let mut power = lock(&self.0);
        // A change under way, or made meanwhile, looks again when it is done.
        if power.done != power.begun || power.begun != look.0 {
            return None;
        }
        if state == SandboxState::Running && power.guest_end == Some(ASLEEP) {
            power.guest_end = None;
            return Some("guest_wakeup");
        }
        let (words, name) = match state {
            SandboxState::Shutoff => ("the guest switched itself off", "guest_poweroff"),
            SandboxState::Crashed => ("the guest crashed", "guest_crash"),
            SandboxState::Suspended => (ASLEEP, "guest_suspend"),
            _ => return None,
        };
        let unwanted = power
            .wanted
            .is_some_and(|wanted| wanted != SandboxState::Shutoff);
        if !unwanted || power.guest_end.is_some() {
            return None;
        }
        power.guest_end = Some(words);
        Some(name)
    }

    /// The event of a restart: we asked for it, or the guest made it.
    pub(super) fn rebooted(&self) -> &'static str {
        let mut power = lock(&self.0);
        let asked = power.restarts_asked > 0;
        power.restarts_asked = power.restarts_asked.saturating_sub(1);
        match asked {
            true => "restarted",
            false => "guest_reboot",
        }
    }

    pub(super) fn want_off(&self) {
        lock(&self.0).wanted = Some(SandboxState::Shutoff);
    }

    pub(super) fn is_wanted_off(&self) -> bool {
        lock(&self.0).wanted == Some(SandboxState::Shutoff)
    }

    pub(super) fn guest_end(&self) -> Option<&'static str> {
        lock(&self.0).guest_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn does(power: &Power, transition: Transition, succeeded: bool) {
        power.begin(transition).succeeded = succeeded;
    }

    #[test]
    fn an_end_of_the_guests_is_told_once_also_where_the_next_start_fails() {
        let power = Power::default();
        does(&power, Transition::Poweron, true);
        let found = || power.found(power.look(), SandboxState::Shutoff);
        assert_eq!(found(), Some("guest_poweroff"));
        does(&power, Transition::Poweron, false);
        assert_eq!(found(), None);
    }

    #[test]
    fn a_restart_is_the_guests_where_ours_failed_or_was_asked_of_a_guest_that_went_off() {
        let power = Power::default();
        does(&power, Transition::Poweron, true);
        does(&power, Transition::Restart, false);
        assert_eq!(power.rebooted(), "guest_reboot");
        does(&power, Transition::Restart, true);
        does(&power, Transition::Poweroff, true);
        does(&power, Transition::Poweron, true);
        assert_eq!(power.rebooted(), "guest_reboot");
        does(&power, Transition::Restart, true);
        assert_eq!(power.rebooted(), "restarted");
    }
}
