//! Whether libvirt hears what a container's controller tells it.
//!
//! The controller tells libvirt's daemon which process is the container's first one, and later that the container ended
//! or restarts. The first message comes as soon as the daemon connects. On a busy host libvirt 11 may read it before it
//! has registered who takes it, and then hears nothing more of this controller: the container runs on for libvirt after
//! it ended, cannot be signalled, and its restart is never told. Only a new controller helps, so the container is
//! started again: after a start before anybody uses it, after a restart of its own once that is known.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use see_libvirt::{CALL_LIMIT, Domain, Error};
use tokio::sync::{Mutex, MutexGuard};

use super::end;
use super::orders::Orders;

/// How long libvirt may take to learn of the first process after the container was started, and how often it is asked.
const LEARNS: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);
/// How long a start waits for the container's own restart: longer than libvirt's answer may take.
const WAITS: Duration = CALL_LIMIT.saturating_mul(2);
/// How long a cut of the power waits for either: it is the way out where something hangs.
const OVERTAKES: Duration = Duration::from_secs(5);
/// How often a container is started again.
const TRIES: usize = 5;

/// Starts a domain.
pub(super) async fn start_once(domain: &Domain, orders: &Orders) -> Result<(), Error> {
    orders.start();
    let started = domain.start().await;
    if started.is_err() {
        orders.start_failed();
    }
    started
}

/// Starts a container, which was just started, again until libvirt hears of it. One that somebody else ends meanwhile
/// stays off; one that libvirt never hears of is off after the error.
pub(super) async fn start_until_heard(
    domain: &Domain,
    orders: &Orders,
    released: &AtomicBool,
) -> Result<(), Error> {
    start_until(|| first_process_known(domain), domain, orders, released).await
}

/// The same with another look at what libvirt has heard.
async fn start_until<F>(
    heard: impl Fn() -> F,
    domain: &Domain,
    orders: &Orders,
    released: &AtomicBool,
) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut tries = 0;
    while let Err(error) = heard().await {
        orders.cut();
        if !end(domain).await? || released.load(Ordering::Acquire) {
            return Ok(());
        }
        if tries == TRIES {
            return Err(error);
        }
        tries += 1;
        tracing::warn!(%error, "libvirt hears nothing of the container: it is started again");
        start_once(domain, orders).await?;
    }
    Ok(())
}

/// A container, which libvirt itself starts again when its first process asks for a restart. That has to be seen to, and
/// excludes what core does meanwhile to the container's power.
#[derive(Debug)]
pub(super) struct Container {
    domain: Domain,
    power: Mutex<()>,
    released: AtomicBool,
}

impl Container {
    pub(super) fn new(domain: Domain) -> Self {
        Self {
            domain,
            power: Mutex::default(),
            released: AtomicBool::new(false),
        }
    }

    /// Starts it, and again until libvirt hears of it.
    pub(super) async fn start(&self, orders: &Orders) -> Result<(), Error> {
        let _power = self.power(WAITS).await;
        start_once(&self.domain, orders).await?;
        start_until_heard(&self.domain, orders, &self.released).await
    }

    /// Cuts its power, also beside a start that hangs. One that was found off beside a start is cut once more behind it:
    /// that start may only have been about to begin.
    pub(super) async fn end(&self, orders: &Orders) -> Result<(), Error> {
        let power = self.power(OVERTAKES).await;
        orders.cut();
        if end(&self.domain).await? || power.is_some() {
            return Ok(());
        }
        let _power = self.power(WAITS).await;
        orders.cut();
        end(&self.domain).await.map(drop)
    }

    /// It is not started again from now on.
    pub(super) async fn release(&self) {
        self.released.store(true, Ordering::Release);
        drop(self.power(OVERTAKES).await);
    }

    /// As [`start_until_heard`], after a restart of its own.
    pub(super) async fn settle(&self, orders: &Orders) {
        let power = self.power(WAITS).await;
        if power.is_none() || self.released.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = start_until_heard(&self.domain, orders, &self.released).await {
            tracing::warn!(%error, "the restarted container cannot be followed");
        }
    }

    async fn power(&self, patience: Duration) -> Option<MutexGuard<'_, ()>> {
        tokio::time::timeout(patience, self.power.lock()).await.ok()
    }
}

/// Waits until libvirt knows the first process; the error is libvirt's own at the deadline.
async fn first_process_known(domain: &Domain) -> Result<(), Error> {
    let deadline = Instant::now() + LEARNS;
    loop {
        let error = match domain.check_first_process().await {
            Err(error) if error.is_invalid_state() => error,
            // It knows the process, which may have ended, or cannot be asked.
            _ => return Ok(()),
        };
        if !domain.is_active().await.unwrap_or(false) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use see_core::ChangeSender;
    use see_libvirt::Connection;

    use super::super::watch::{Source, Watch};
    use super::*;

    /// A machine that runs, of a driver that tells nothing of first processes.
    async fn running(name: &str) -> Domain {
        let connection = Connection::open("test:///default", Duration::from_secs(30));
        let xml = format!(
            "<domain type='test'><name>{name}</name><memory unit='MiB'>8</memory>\
             <os><type>hvm</type></os></domain>"
        );
        let domain = connection.await.unwrap().define_domain(&xml).await.unwrap();
        domain.start().await.unwrap();
        domain
    }

    /// Does this at each look at whether libvirt has heard of the container, which never happens: how many looks there
    /// were, and how they ended.
    async fn never_heard<F: Future<Output = ()>>(
        domain: &Domain,
        meanwhile: impl Fn() -> F,
    ) -> (usize, Result<(), Error>) {
        let unheard = domain.start().await.expect_err("it runs");
        let watch = Watch::start(Source::Asked(domain.clone()), ChangeSender::new(), None);
        let looks = AtomicUsize::new(0);
        let heard = async || {
            looks.fetch_add(1, Ordering::SeqCst);
            meanwhile().await;
            Err(unheard.clone())
        };
        let ended = start_until(heard, domain, &watch.orders(), &AtomicBool::new(false)).await;
        (looks.into_inner(), ended)
    }

    #[tokio::test]
    async fn a_cut_of_the_power_leaves_a_container_off_that_is_started_again_beside_it() {
        let domain = running("beside").await;
        domain.destroy().await.unwrap();
        let watch = Watch::start(Source::Asked(domain.clone()), ChangeSender::new(), None);
        let orders = watch.orders();
        let container = Container::new(domain.clone());
        // It is between the end and the next start of one that libvirt does not hear of.
        let started = async {
            let _power = container.power.lock().await;
            tokio::time::sleep(OVERTAKES + OVERTAKES / 5).await;
            start_once(&domain, &orders).await.unwrap();
        };
        let ((), ended) = tokio::join!(started, container.end(&orders));
        ended.unwrap();
        assert!(!domain.is_active().await.unwrap());
    }

    #[tokio::test]
    async fn a_container_that_somebody_else_ends_while_it_is_started_again_stays_off() {
        let domain = running("ended").await;
        let end = async || domain.destroy().await.unwrap();
        let (looks, ended) = never_heard(&domain, end).await;
        ended.unwrap();
        assert_eq!(looks, 1);
        assert!(!domain.is_active().await.unwrap());
    }

    #[tokio::test]
    async fn a_container_of_which_libvirt_never_hears_is_off_after_the_error() {
        let domain = running("unheard").await;
        let (looks, ended) = never_heard(&domain, async || {}).await;
        ended.unwrap_err();
        assert_eq!(looks, TRIES + 1);
        assert!(!domain.is_active().await.unwrap());
    }
}
