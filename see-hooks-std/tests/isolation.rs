//! The proof of a closed network before a sample runs: the hook `commands`, a real agent, and walls with and
//! without a hole. What the agent finds is tested beside it.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod world;

use see_agent::server::{Agent, Settings, Trust, serve_connection};
use see_core::config::Configuration;
use see_core::testing::FaultAt;
use see_core::{
    AgentSettings, AgentTransport, Closed, ErrorKind, Event, IsolationVerdict, Protocol, RunLimits,
    RunReport, SandboxState, Target,
};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::thread;
use tempfile::TempDir;
use tokio::net::UnixStream;
use world::{World, number, text};

const COMMANDS: &str = r#"{ "hooks": [
    { "name": "commands", "configuration": { "ready_timeout": "20s" } } ] }"#;
const RUN: &str = r#"[
    { "step": "poweron" },
    { "step": "wait", "for": "ready", "timeout": "30s" },
    { "step": "trigger", "event": "run_command", "attributes": { "command": "true" } },
    { "step": "wait", "for": "command_finished", "timeout": "30s" }]"#;

/// A world whose guest has a network, and a real agent that lives in the folder.
async fn world(agent: AgentSettings) -> (World, TempDir) {
    world_with(COMMANDS, agent).await
}

async fn world_with(hooks: &str, agent: AgentSettings) -> (World, TempDir) {
    let world = World::with(hooks, agent, true);
    let world = world.await.expect("an environment");
    let folder = TempDir::new().expect("a folder");
    let agent = Agent::new(Settings::new(folder.path())).expect("an agent");
    world.control.answer(move || {
        let (ours, theirs) = StdStream::pair().expect("a pair");
        let writer = theirs.try_clone().expect("a clone");
        let agent = Arc::clone(&agent);
        thread::spawn(move || serve_connection(&agent, theirs, writer, Trust::Reached));
        ours.set_nonblocking(true).expect("non-blocking");
        Box::new(UnixStream::from_std(ours).expect("a stream"))
    });
    (world, folder)
}

/// Runs a protocol to its end.
async fn run(world: &mut World, steps: &str) -> RunReport {
    let steps = Configuration::from_str("run.json", steps).expect("JSON");
    let steps = Protocol::from_configuration(&steps).expect("steps");
    let limits = RunLimits::time(world::PATIENCE);
    world.environment.run(&steps, &limits).await.expect("a run")
}

/// A port at which nobody answers, as long as the socket lives.
fn silent() -> (Closed, UdpSocket) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let closed = Closed {
        what: "a deaf service".to_owned(),
        target: Target::Udp(socket.local_addr().expect("an address")),
    };
    (closed, socket)
}

/// A service that takes connections, as long as the listener lives.
fn hole() -> (Closed, SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let closed = Closed {
        what: "the host's secrets".to_owned(),
        target: Target::Tcp(address),
    };
    (closed, address, listener)
}

/// A port that refuses connections: an answer at once.
fn refused() -> Closed {
    let (mut closed, _, listener) = hole();
    drop(listener);
    closed.what = "a refusal".to_owned();
    closed
}

#[tokio::test]
async fn a_guest_that_reaches_nothing_proves_it_before_it_is_ready() {
    let (mut world, _folder) = world(AgentSettings::default()).await;
    let (closed, _socket) = silent();
    world.control.close(vec![closed]);
    let report = run(&mut world, RUN).await;
    assert!(report.failure.is_none(), "{:?}", report.failure);
    assert_eq!(report.isolation, IsolationVerdict::Proven);
    let names = world.names();
    let at = |name: &str| names.iter().position(|found| found == name);
    assert!(at("isolation_proven") < at("ready"), "{names:?}");
    let proven = &world.all("isolation_proven")[0];
    assert_eq!(number(proven, "tried"), Some(1));
    world.end().await;
}

#[tokio::test]
async fn a_hole_ends_the_run_before_anything_runs_and_is_named() {
    let (mut world, _folder) = world(AgentSettings::default()).await;
    let ((closed, _socket), (hole, address, _listener)) = (silent(), hole());
    world.control.close(vec![closed, hole]);
    let report = run(&mut world, RUN).await;
    let (step, error) = report.failure.expect("the run failed");
    assert_eq!(step, "wait for ready");
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    let IsolationVerdict::Broken { why: found, holes } = report.isolation else {
        panic!("{:?}", report.isolation);
    };
    for part in [
        "the host's secrets",
        &address.to_string(),
        "`nat`",
        "verify",
    ] {
        assert!(found.contains(part), "no {part} in {found}");
    }
    assert!(!found.contains("a deaf service"), "{found}");
    assert_eq!(holes.len(), 1, "{holes:?}");
    assert!(
        holes[0].starts_with("the host's secrets (TCP "),
        "{holes:?}"
    );
    assert_eq!(
        world.all("ready").len() + world.all("command_started").len(),
        0
    );
    let state = world.environment.machine().state().await;
    assert_eq!(state.expect("a state"), SandboxState::Shutoff);
    world.end().await;
}

#[tokio::test]
async fn a_guest_with_a_hole_takes_no_orders() {
    let (mut world, _folder) = world(AgentSettings::default()).await;
    let (hole, _, _listener) = hole();
    world.control.close(vec![hole]);
    world.poweron().await;
    let order = Event::new("run_command").with("command", "true");
    world.trigger(order).await;
    let turn = world.environment.turn().await;
    let mut turn = turn.expect("the turn");
    let mut finished = turn.listen("command_finished");
    let finished = turn.wait(&mut finished, world::PATIENCE).await;
    let finished = finished.expect("an order that is refused is answered");
    assert!(
        text(&finished, "error").contains("the host's secrets"),
        "{finished:?}"
    );
    drop(turn);
    let not_ready = world.event("not_ready").await;
    assert_eq!(text(&not_ready, "cause"), "isolation");
    assert_eq!(
        text(&world.event("not_ip_address").await, "cause"),
        "isolation"
    );
    world.end().await;
}

#[tokio::test]
async fn a_guest_whose_agent_cannot_prove_its_network_is_not_started_and_what_to_do_is_said() {
    let none = AgentSettings {
        transport: AgentTransport::None,
        ..AgentSettings::default()
    };
    let python_see = COMMANDS.replace("\"20s\"", "\"20s\", \"agent-port\": 8080");
    for (hooks, agent) in [
        (COMMANDS, none.clone()),
        (python_see.as_str(), AgentSettings::default()),
        (r#"{ "hooks": [] }"#, none),
    ] {
        let (mut world, _folder) = world_with(hooks, agent).await;
        let (hole, _, _listener) = hole();
        world.control.close(vec![hole]);
        let report = run(&mut world, RUN).await;
        let (step, error) = report.failure.expect("the run failed");
        assert_eq!(step, "poweron");
        assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
        let IsolationVerdict::Unproven { why } = report.isolation else {
            panic!("{:?}", report.isolation);
        };
        for part in ["`commands`", "python-see", "`\"verify\": false`"] {
            assert!(why.contains(part), "no {part} in {why}");
            assert!(error.to_string().contains(part), "no {part} in {error}");
        }
        assert!(!world.control.calls().contains(&FaultAt::Start));
        world.end().await;
    }
}

#[tokio::test]
async fn a_guest_in_which_nobody_answers_proves_nothing_and_runs_nothing() {
    let hooks = COMMANDS.replace("20s", "300ms");
    let (mut world, _folder) = world_with(&hooks, AgentSettings::default()).await;
    world.control.answer(|| Box::new(tokio::io::empty()));
    let (closed, _socket) = silent();
    world.control.close(vec![closed]);
    let steps = r#"[
        { "step": "poweron" },
        { "step": "trigger", "event": "run_command", "attributes": { "command": "true" } }]"#;
    let report = run(&mut world, steps).await;
    let (step, error) = report.failure.expect("the run failed");
    assert_eq!(step, "trigger run_command");
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    assert!(
        matches!(report.isolation, IsolationVerdict::Unproven { .. }),
        "{:?}",
        report.isolation
    );
    assert_eq!(world.all("run_command").len(), 0);
    world.end().await;
}

#[tokio::test]
async fn targets_that_are_too_many_or_cannot_be_sent_to_are_not_taken_for_closed() {
    let (closed, _socket) = silent();
    let nowhere = Closed {
        what: "the host".to_owned(),
        // Nobody can send to it.
        target: Target::Udp(([0, 0, 0, 0], 0).into()),
    };
    let many = vec![closed.clone(); 2049];
    for (closed, why) in [(many, "2049"), (vec![closed, nowhere], "the host (UDP")] {
        let (mut world, _folder) = world(AgentSettings::default()).await;
        world.control.close(closed);
        let report = run(&mut world, RUN).await;
        let (_, error) = report.failure.expect("the run failed");
        assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
        assert!(error.to_string().contains(why), "no {why} in {error}");
        assert_eq!(
            world.all("ready").len() + world.all("command_started").len(),
            0
        );
        world.end().await;
    }
}

#[tokio::test]
async fn as_many_targets_as_are_allowed_are_all_tried() {
    let (mut world, _folder) = world(AgentSettings::default()).await;
    // The last of all is the only one that answers.
    let ((hole, ..), refused) = (hole(), refused());
    let mut closed = vec![refused; 2047];
    closed.push(hole);
    world.control.close(closed);
    let report = run(&mut world, RUN).await;
    let IsolationVerdict::Broken { holes, .. } = report.isolation else {
        panic!("{:?}", report.isolation);
    };
    assert_eq!(holes.len(), 2048);
    assert!(
        holes[2047].starts_with("the host's secrets"),
        "{}",
        holes[2047]
    );
    world.end().await;
}

#[tokio::test]
async fn a_guest_that_had_a_hole_is_not_ready_after_it_boots_again() {
    let (mut world, _folder) = world(AgentSettings::default()).await;
    let (hole, _, listener) = hole();
    world.control.close(vec![hole]);
    world.poweron().await;
    world.event("not_ready").await;
    // The hole is closed meanwhile: whoever got through it may have left something in the guest.
    drop(listener);
    let (closed, _socket) = silent();
    world.control.close(vec![closed]);
    world.control.guest_reboots();
    let again = async {
        while world.all("not_ready").len() < 2 && world.all("ready").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let again = tokio::time::timeout(world::PATIENCE, again).await;
    again.unwrap_or_else(|_| panic!("it says nothing: {:?}", world.names()));
    assert_eq!(world.all("ready").len(), 0);
    assert_eq!(world.all("isolation_proven").len(), 0);
    world.end().await;
}

#[tokio::test]
async fn a_guest_that_boots_again_is_not_believed_again() {
    let (mut world, _folder) = world(AgentSettings::default()).await;
    let (closed, _socket) = silent();
    world.control.close(vec![closed]);
    world.poweron().await;
    let ready = r#"[{ "step": "wait", "for": "ready", "timeout": "30s" }]"#;
    assert!(run(&mut world, ready).await.failure.is_none());
    world.control.guest_reboots();
    assert!(run(&mut world, ready).await.failure.is_none());
    assert_eq!(world.all("ready").len(), 2);
    assert_eq!(world.all("isolation_proven").len(), 1);
    world.end().await;
}
