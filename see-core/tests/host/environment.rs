//! How environments are allocated, run and torn down, shown with the fake backend.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{TestHost, environment, prepared, until};
use async_trait::async_trait;
use see_core::config::DurationValue;
use see_core::testing::{FakeConfiguration, FakeControl, Fault, FaultAt};
use see_core::{
    AllocateOptions, Context, EndLimits, Environment, Error, ErrorKind, Hook, Identifier,
    PreparedHook, Result, Stop,
};

pub(crate) async fn allocate(host: &TestHost, fake: FakeConfiguration) -> Result<Environment> {
    let options = AllocateOptions::default();
    host.host
        .allocate(prepared(fake, Vec::new()), options, Stop::new())
        .await
}

fn holdings(host: &TestHost) -> usize {
    host.host.ledger().list_blocking().unwrap().len()
}

#[tokio::test]
async fn an_environment_that_ended_holds_nothing_of_what_could_stop_it() {
    let host = TestHost::new();
    let stop = Stop::new();
    let token = stop.token();
    let fake = prepared(host.fake(), Vec::new());
    let allocating = host.host.allocate(fake, AllocateOptions::default(), stop);
    let environment = allocating.await.unwrap();
    assert!(!token.is_stopped());
    assert!(environment.deallocate().await.is_clean());
    // Nobody asked: it reads so once the last holder is gone.
    until("the stop is given back", || token.is_stopped()).await;
}

/// Records its life in a log that the test reads.
struct Witness {
    name: &'static str,
    log: Arc<Mutex<Vec<String>>>,
    cleanup_fails: bool,
}

#[derive(Clone)]
struct WitnessConfiguration {
    name: &'static str,
    log: Arc<Mutex<Vec<String>>>,
    attach_fails: bool,
    cleanup_fails: bool,
}

impl<'de> serde::Deserialize<'de> for WitnessConfiguration {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(serde::de::Error::custom("made by the test, never read"))
    }
}

#[async_trait]
impl Hook for Witness {
    const NAME: &'static str = "witness";
    type Configuration = WitnessConfiguration;

    async fn attach(configuration: WitnessConfiguration, context: &Context) -> Result<Self> {
        let WitnessConfiguration {
            name,
            log,
            attach_fails,
            cleanup_fails,
        } = configuration;
        log.lock().unwrap().push(format!("{name} attaches"));
        let task_log = Arc::clone(&log);
        let token = context.stop_token().clone();
        context.spawn(async move {
            token.stopped().await;
            task_log.lock().unwrap().push(format!("{name}'s task ends"));
        });
        if attach_fails {
            return Err(Error::new(ErrorKind::Hook, "it did not want to"));
        }
        Ok(Self {
            name,
            log,
            cleanup_fails,
        })
    }

    async fn cleanup(&self) -> Result<()> {
        self.log
            .lock()
            .unwrap()
            .push(format!("{} cleans up", self.name));
        if self.cleanup_fails {
            return Err(Error::new(ErrorKind::Hook, "dirt stays"));
        }
        Ok(())
    }
}

fn witness(name: &'static str, log: &Arc<Mutex<Vec<String>>>) -> WitnessConfiguration {
    WitnessConfiguration {
        name,
        log: Arc::clone(log),
        attach_fails: false,
        cleanup_fails: false,
    }
}

fn hook(configuration: WitnessConfiguration, required: bool) -> PreparedHook {
    PreparedHook::new::<Witness>(configuration, required)
}

#[tokio::test]
async fn an_environment_leaves_nothing_and_its_record_goes_with_it() {
    let (host, environment) = environment().await;
    assert_eq!((host.left(), holdings(&host)), (3, 1));
    let teardown = environment.deallocate().await;
    assert!(teardown.is_clean(), "{:?}", teardown.errors);
    assert_eq!((host.left(), holdings(&host)), (0, 0));
}

#[tokio::test]
async fn an_allocation_that_fails_at_any_step_leaves_nothing() {
    for at in FaultAt::ALLOCATION {
        let host = TestHost::new();
        let error = allocate(&host, host.fake().fault(at, Fault::Fail))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Hypervisor, "{error}");
        assert_eq!((host.left(), holdings(&host)), (0, 0), "at {at:?}");
    }
}

#[tokio::test]
async fn what_a_panicking_backend_left_is_collected() {
    for at in FaultAt::ALLOCATION {
        let host = TestHost::new();
        let error = allocate(&host, host.fake().fault(at, Fault::Panic))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert!(error.to_string().contains("the panic injected"), "{error}");
        assert_eq!((host.left(), holdings(&host)), (0, 0), "at {at:?}");
    }
}

#[tokio::test]
async fn an_allocation_whose_future_is_dropped_is_undone() {
    for at in FaultAt::ALLOCATION {
        let host = TestHost::new();
        let fake = host.fake().fault(at, Fault::Stall);
        let gone = tokio::time::timeout(Duration::from_millis(100), allocate(&host, fake)).await;
        assert!(gone.is_err(), "the allocation was not stalled at {at:?}");
        until("nothing is left of the dropped allocation", || {
            host.left() == 0 && holdings(&host) == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_dropped_environment_is_torn_down_by_its_host() {
    let (host, environment) = environment().await;
    drop(environment);
    until("nothing is left", || {
        host.left() == 0 && holdings(&host) == 0
    })
    .await;
}

#[test]
fn a_dropped_runtime_leaks_nothing() {
    let host = TestHost::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let environment = runtime.block_on(allocate(&host, host.fake())).unwrap();
    runtime.shutdown_background();
    assert_eq!(host.left(), 3);
    drop(environment);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(until("nothing is left", || host.left() == 0));
}

#[tokio::test]
async fn finish_waits_until_every_environment_has_ended() {
    let (host, environment) = environment().await;
    let TestHost { host, folder } = host;
    let ending = tokio::spawn(environment.deallocate());
    host.finish(Duration::from_secs(10)).await.unwrap();
    assert!(ending.await.unwrap().is_clean());
    assert_eq!(
        std::fs::read_dir(folder.path().join("made"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn an_identifier_in_use_stops_the_allocation() {
    let (host, environment) = environment().await;
    let options = AllocateOptions {
        identifier: Some(environment.identifier()),
        ..AllocateOptions::default()
    };
    let again = host
        .host
        .allocate(prepared(host.fake(), Vec::new()), options, Stop::new());
    assert_eq!(again.await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(host.left(), 3, "the first environment is untouched");
    environment.deallocate().await;
}

#[tokio::test]
async fn a_folder_that_exists_already_is_not_reused() {
    let host = TestHost::new();
    let identifier = Identifier::random();
    let foreign = host
        .folder
        .path()
        .join(format!("made/network-{identifier}"));
    std::fs::create_dir(&foreign).unwrap();
    let options = AllocateOptions {
        identifier: Some(identifier),
        ..AllocateOptions::default()
    };
    let outcome = host
        .host
        .allocate(prepared(host.fake(), Vec::new()), options, Stop::new())
        .await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(foreign.is_dir(), "what is not ours stays");
    assert_eq!((host.left(), holdings(&host)), (1, 0));
}

#[tokio::test]
async fn hooks_are_cleaned_up_in_reverse_after_their_tasks_ended() {
    let host = TestHost::new();
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let hooks = vec![
        hook(witness("a", &log), true),
        hook(witness("b", &log), true),
    ];
    let options = AllocateOptions::default();
    let environment = host
        .host
        .allocate(prepared(host.fake(), hooks), options, Stop::new())
        .await
        .unwrap();
    assert!(environment.deallocate().await.is_clean());
    assert_eq!(
        *log.lock().unwrap(),
        [
            "a attaches",
            "b attaches",
            "b's task ends",
            "b cleans up",
            "a's task ends",
            "a cleans up"
        ]
    );
}

#[tokio::test]
async fn a_required_hook_that_fails_undoes_the_allocation_and_others_go_without_it() {
    let host = TestHost::new();
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let failing = WitnessConfiguration {
        attach_fails: true,
        ..witness("b", &log)
    };
    for required in [true, false] {
        log.lock().unwrap().clear();
        let hooks = vec![
            hook(witness("a", &log), true),
            hook(failing.clone(), required),
        ];
        let options = AllocateOptions::default();
        let outcome = host
            .host
            .allocate(prepared(host.fake(), hooks), options, Stop::new())
            .await;
        if required {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Hook);
            assert!(error.to_string().contains("hook witness"), "{error}");
        } else {
            outcome.unwrap().deallocate().await;
        }
        assert!(log.lock().unwrap().contains(&"a cleans up".to_owned()));
        assert_eq!((host.left(), holdings(&host)), (0, 0));
    }
}

#[tokio::test]
async fn every_step_of_the_teardown_runs_even_when_one_before_it_failed() {
    let host = TestHost::new();
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let dirty = WitnessConfiguration {
        cleanup_fails: true,
        ..witness("b", &log)
    };
    let hooks = vec![hook(witness("a", &log), true), hook(dirty, true)];
    let options = AllocateOptions::default();
    let environment = host
        .host
        .allocate(prepared(host.fake(), hooks), options, Stop::new())
        .await
        .unwrap();
    let teardown = environment.deallocate().await;
    assert_eq!(teardown.errors.len(), 1, "{:?}", teardown.errors);
    assert!(log.lock().unwrap().contains(&"a cleans up".to_owned()));
    assert_eq!((host.left(), holdings(&host)), (0, 0));
}

#[tokio::test]
async fn a_release_that_fails_is_reported_and_what_was_made_goes_nevertheless() {
    let (host, environment) = environment().await;
    FakeControl::of(environment.machine())
        .unwrap()
        .set_fault(FaultAt::Release, Some(Fault::Fail));
    let teardown = environment.deallocate().await;
    assert_eq!(teardown.errors.len(), 1, "{teardown:?}");
    assert_eq!((host.left(), holdings(&host)), (0, 0));
}

#[tokio::test]
async fn what_cannot_be_removed_is_reported_and_stays_in_the_ledger_and_the_rest_goes() {
    let (host, environment) = environment().await;
    FakeControl::of(environment.machine())
        .unwrap()
        .set_fault(FaultAt::Removal, Some(Fault::Fail));
    let teardown = environment.deallocate().await;
    assert!(!teardown.is_clean());
    assert_eq!((host.left(), holdings(&host)), (1, 1));
    host.remove_left();
    let report = crate::common::collect(&host).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((host.left(), holdings(&host)), (0, 0));
}

#[tokio::test]
async fn a_release_that_hangs_is_left_at_its_deadline() {
    let host = TestHost::new();
    let options = AllocateOptions {
        end: EndLimits {
            release: Duration::from_millis(100),
            ..EndLimits::default()
        },
        ..AllocateOptions::default()
    };
    let fake = FakeConfiguration {
        stall: Some(DurationValue(Duration::from_secs(3600))),
        ..host.fake()
    }
    .fault(FaultAt::Release, Fault::Stall);
    let environment = host
        .host
        .allocate(prepared(fake, Vec::new()), options, Stop::new())
        .await
        .unwrap();
    let teardown = environment.deallocate().await;
    let told: Vec<_> = teardown.errors.iter().map(Error::kind).collect();
    assert_eq!(told, [ErrorKind::Timeout]);
    assert_eq!((host.left(), holdings(&host)), (0, 0));
}

#[tokio::test]
async fn beside_handlers_that_run_are_joined_before_the_environment_ends() {
    let (_host, mut environment) = environment().await;
    let context = environment.context("test");
    let done = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (counter, door) = (Arc::clone(&done), Arc::clone(&gate));
    context.subscribe_beside(
        "event",
        crate::common::beside(move |_| {
            let (counter, door) = (Arc::clone(&counter), Arc::clone(&door));
            Box::pin(async move {
                let _pass = door.acquire().await;
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        }),
    );
    environment
        .turn()
        .await
        .unwrap()
        .trigger("event")
        .await
        .unwrap();
    let ending = tokio::spawn(environment.deallocate());
    tokio::task::yield_now().await;
    gate.add_permits(1);
    assert!(ending.await.unwrap().is_clean());
    assert_eq!(done.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_beside_handler_that_does_not_end_is_aborted_at_the_hooks_deadline() {
    let host = TestHost::new();
    let options = AllocateOptions {
        end: EndLimits {
            hook: Duration::from_millis(50),
            ..EndLimits::default()
        },
        ..AllocateOptions::default()
    };
    let mut environment = host
        .host
        .allocate(prepared(host.fake(), Vec::new()), options, Stop::new())
        .await
        .unwrap();
    let context = environment.context("test");
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    context.subscribe_beside(
        "event",
        crate::common::beside(move |_| {
            let held = Arc::clone(&held);
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(held);
                Ok(())
            })
        }),
    );
    environment
        .turn()
        .await
        .unwrap()
        .trigger("event")
        .await
        .unwrap();
    environment.deallocate().await;
    drop(context);
    assert_eq!((Arc::strong_count(&alive), host.left()), (1, 0));
}

#[tokio::test]
async fn what_was_posted_before_the_end_is_still_heard() {
    let (_host, mut environment) = environment().await;
    let context = environment.context("test");
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heard);
    context.subscribe("last", move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    context.post("last").unwrap();
    environment.deallocate().await;
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    assert_eq!(
        context.post("too late").unwrap_err().kind(),
        ErrorKind::Stopped
    );
}
