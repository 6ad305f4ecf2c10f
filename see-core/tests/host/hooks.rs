//! Hooks that fail: what they could not do is the run's failure where they are required.

use std::time::Duration;

use async_trait::async_trait;
use see_core::{
    AllocateOptions, Context, Environment, Error, ErrorKind, Hook, MishapKind, PreparedHook,
    Result, Stop,
};

use crate::common::{TestHost, beside, prepared, serial, until};

/// A hook that fails in this way at the event `fail`.
struct Faulty {
    untidy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
enum Way {
    Sync,
    Serial,
    Beside,
    Task,
    Reported,
    Cleanup,
    Attach,
}

fn error() -> Error {
    Error::new(ErrorKind::Hook, "no picture")
}

#[async_trait]
impl Hook for Faulty {
    const NAME: &'static str = "faulty";
    type Configuration = Way;

    async fn attach(way: Way, context: &Context) -> Result<Self> {
        let inner = context.clone();
        match way {
            Way::Sync => drop(context.subscribe("fail", |_| panic!("no picture"))),
            Way::Serial => {
                let fails = serial(|_, _| Box::pin(async { Err(error()) }));
                context.subscribe_serial("fail", fails);
            }
            Way::Beside => {
                let fails = beside(|_| Box::pin(async { Err(error()) }));
                context.subscribe_beside("fail", fails);
            }
            Way::Task => {
                context.subscribe("fail", move |_| {
                    inner.spawn(async { panic!("no picture") });
                });
            }
            Way::Reported => {
                context.subscribe("fail", move |_| inner.report_failure("fail", &error()));
            }
            Way::Cleanup => {}
            Way::Attach => return Err(error()),
        }
        Ok(Self {
            untidy: way == Way::Cleanup,
        })
    }

    async fn cleanup(&self) -> Result<()> {
        match self.untidy {
            true => Err(error()),
            false => Ok(()),
        }
    }
}

async fn with_hook(way: Way, required: bool) -> (TestHost, Environment) {
    let host = TestHost::new();
    let hooks = vec![PreparedHook::new::<Faulty>(way, required)];
    let allocating = host.host.allocate(
        prepared(host.fake(), hooks),
        AllocateOptions::default(),
        Stop::new(),
    );
    let environment = allocating.await.unwrap();
    (host, environment)
}

#[tokio::test]
async fn whatever_fails_in_a_required_hook_is_its_failure_and_in_another_one_only_recorded() {
    for way in [
        Way::Sync,
        Way::Serial,
        Way::Beside,
        Way::Task,
        Way::Reported,
    ] {
        for required in [true, false] {
            let (_host, mut environment) = with_hook(way, required).await;
            let mut turn = environment.turn().await.unwrap();
            turn.trigger("fail").await.unwrap();
            drop(turn);
            let bus = environment.bus();
            until("it is recorded", || !bus.mishaps().0.is_empty()).await;
            let failure = bus.hook_failure();
            assert_eq!(failure.is_some(), required, "{way:?}: {failure:?}");
            if let Some(failure) = failure {
                assert_eq!(failure.owner, "faulty");
                assert!(failure.to_string().contains("no picture"), "{failure}");
            }
            assert!(environment.deallocate().await.is_clean());
        }
    }
}

#[tokio::test]
async fn a_cleanup_that_fails_counts_only_for_a_hook_that_is_required() {
    for required in [true, false] {
        let (_host, mut environment) = with_hook(Way::Cleanup, required).await;
        let watching = environment.context("test");
        let teardown = environment.deallocate().await;
        assert_eq!(teardown.is_clean(), !required, "{teardown:?}");
        let (mishaps, _) = watching.bus().mishaps();
        assert_eq!(mishaps.is_empty(), required, "{mishaps:?}");
    }
}

#[tokio::test]
async fn a_hook_that_is_not_required_and_cannot_be_attached_is_recorded() {
    let (_host, environment) = with_hook(Way::Attach, false).await;
    let (mishaps, _) = environment.bus().mishaps();
    let [mishap] = &mishaps[..] else {
        panic!("{mishaps:?}");
    };
    assert_eq!(
        (mishap.owner.as_str(), mishap.event.as_str()),
        ("faulty", "attach")
    );
    assert!(mishap.to_string().contains("no picture"), "{mishap}");
    assert!(environment.bus().hook_failure().is_none());
    environment.deallocate().await;
}

#[tokio::test]
async fn a_task_that_does_not_yield_holds_no_teardown() {
    let host = TestHost::new();
    let options = AllocateOptions {
        end: see_core::EndLimits {
            hook: Duration::from_millis(100),
            ..see_core::EndLimits::default()
        },
        ..AllocateOptions::default()
    };
    let prepared = prepared(host.fake(), Vec::new());
    let allocating = host.host.allocate(prepared, options, Stop::new());
    let mut environment = allocating.await.unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begins, begun) = std::sync::mpsc::channel::<()>();
    environment.context("stuck").spawn(async move {
        begins.send(()).unwrap();
        // As a hook that blocks where it must not.
        let _ = held.recv();
    });
    begun.recv_timeout(Duration::from_secs(10)).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), environment.deallocate()).await;
    drop(release);
    ended.expect("nobody waits for it");
    assert_eq!(host.left(), 0);
}

#[tokio::test]
async fn what_a_stop_cancelled_is_no_failure_of_a_hook() {
    let (_host, environment) = with_hook(Way::Sync, true).await;
    let (mishaps, _) = environment.bus().mishaps();
    assert!(mishaps.is_empty(), "{mishaps:?}");
    let is_failure = |what| {
        let mishap = see_core::Mishap {
            at: std::time::SystemTime::UNIX_EPOCH,
            event: "fail".to_owned(),
            owner: "faulty".to_owned(),
            what,
        };
        mishap.is_failure()
    };
    assert!(!is_failure(MishapKind::Cancelled));
    assert!(!is_failure(MishapKind::Slow(std::time::Duration::MAX)));
    assert!(is_failure(MishapKind::NoRoom(1)));
    environment.deallocate().await;
}
