//! A sandbox from allocation to release.

use see_core::{ErrorKind, Identifier, SandboxChange, SandboxState};

use crate::support::{LIMIT, Lab, emulator_runs, told};

const PLAIN: &str =
    r#"{"acceleration": "tcg", "memory": "64MiB", "disk": {"image": "base.qcow2"}}"#;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_sandbox_lives_through_every_state_and_leaves_nothing() {
    runtime().block_on(async {
        let lab = Lab::new();
        let before = std::fs::read(lab.image()).unwrap();
        let identifier = Identifier::random();
        let environment = lab.allocate(PLAIN, identifier).await.unwrap();
        let sandbox = environment.sandbox().clone();
        assert_eq!(sandbox.identifier(), identifier);
        assert_eq!(sandbox.state().await.unwrap(), SandboxState::Shutoff);
        assert!(!sandbox.has_network());
        let mut changes = sandbox.watch();

        sandbox.start().await.unwrap();
        assert_eq!(sandbox.state().await.unwrap(), SandboxState::Running);
        told(&mut changes, SandboxChange::State(SandboxState::Running)).await;
        assert!(emulator_runs(identifier));

        let picture = sandbox.screenshot().unwrap().take().await.unwrap();
        assert!(
            picture.bytes.starts_with(b"\x89PNG"),
            "{}",
            picture.mime_type
        );

        let channel = sandbox.guest_channel().unwrap();
        let open = channel.open().await.unwrap();
        let taken = channel.open().await.err().map(|error| error.kind());
        assert_eq!(taken, Some(ErrorKind::Unavailable));
        drop(open);
        channel.open().await.unwrap();

        sandbox.suspend().await.unwrap();
        assert_eq!(sandbox.state().await.unwrap(), SandboxState::Paused);
        told(&mut changes, SandboxChange::State(SandboxState::Paused)).await;
        sandbox.resume().await.unwrap();
        told(&mut changes, SandboxChange::State(SandboxState::Running)).await;
        sandbox.destroy().await.unwrap();
        told(&mut changes, SandboxChange::State(SandboxState::Shutoff)).await;
        sandbox.destroy().await.unwrap();
        assert_eq!(sandbox.state().await.unwrap(), SandboxState::Shutoff);

        sandbox.start().await.unwrap();
        let ended = environment.deallocate().await;
        assert!(ended.errors.is_empty(), "{:?}", ended.errors);
        sandbox.release().await.unwrap();
        lab.assert_nothing_left(identifier);
        assert_eq!(std::fs::read(lab.image()).unwrap(), before);
        lab.host.finish(LIMIT).await.unwrap();
    });
}
