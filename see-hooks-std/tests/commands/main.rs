//! The hook `commands` with real agents: over the guest channel, and over TCP.

mod agent;
mod hostile;
mod lost;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;
#[path = "../world/mod.rs"]
mod world;

use see_agent::server::{Agent, Settings, Token, Trust, serve_connection, serve_tcp};
use see_core::{AgentSettings, AgentTransport, Event, SandboxState, Secret};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::UnixStream;
use world::{World, flag, number, text};

const COMMANDS: &str = r#"{ "configuration": { "results_folder": "RESULTS" },
    "hooks": [ { "name": "commands", "configuration": { "ready_timeout": "20s" } } ] }"#;
const TOKEN: &str = "a token for the tests";

/// The guest's end: an agent, the folder of its uploads, and its line for cutting it.
struct Guest {
    agent: Arc<Agent>,
    folder: TempDir,
    line: Mutex<Option<StdStream>>,
}

impl Guest {
    fn new(token: Option<&str>) -> Arc<Self> {
        let folder = TempDir::new().expect("a folder");
        let mut settings = Settings::new(folder.path().join("uploads"));
        settings.token = token.and_then(|token| Token::new(token.as_bytes()));
        let agent = Agent::new(settings).expect("an agent");
        Arc::new(Self {
            agent,
            folder,
            line: Mutex::new(None),
        })
    }

    /// A new line to the agent.
    fn dial(&self) -> UnixStream {
        let (ours, theirs) = StdStream::pair().expect("a pair");
        let writer = theirs.try_clone().expect("a clone");
        let line = theirs.try_clone().expect("a clone");
        *self.line.lock().expect("unpoisoned") = Some(line);
        let agent = Arc::clone(&self.agent);
        thread::spawn(move || serve_connection(&agent, theirs, writer, Trust::Reached));
        ours.set_nonblocking(true).expect("non-blocking");
        UnixStream::from_std(ours).expect("a stream")
    }

    /// The agent is gone.
    fn hangs_up(&self) {
        let line = self
            .line
            .lock()
            .expect("unpoisoned")
            .take()
            .expect("a line");
        line.shutdown(std::net::Shutdown::Both).expect("a line");
    }

    /// Listens for TCP; gives the port.
    fn listens(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let agent = Arc::clone(&self.agent);
        thread::spawn(move || serve_tcp(&agent, &listener, &AtomicBool::new(false)));
        port
    }
}

/// An environment that is ready, over the guest channel.
async fn ready() -> (World, Arc<Guest>) {
    let mut world = World::new(COMMANDS).await;
    let guest = Guest::new(None);
    let theirs = Arc::clone(&guest);
    world.control.answer(move || Box::new(theirs.dial()));
    world.poweron().await;
    world.event("ip_address").await;
    (world, guest)
}

fn tcp(port: u16, token: Option<&str>) -> AgentSettings {
    AgentSettings {
        transport: AgentTransport::Tcp,
        port,
        token: token.map(Secret::new),
    }
}

fn sample(world: &World, script: &str) -> Event {
    let path = world.file("my sample.sh", format!("#!/bin/sh\n{script}\n").as_bytes());
    Event::new("run_sample").with("sample", path)
}

#[tokio::test]
async fn a_machine_without_a_network_is_ready_and_has_no_address() {
    let (world, _guest) = ready().await;
    let names = world.names();
    let at = |name: &str| names.iter().position(|found| found == name);
    assert!(
        at("post_poweron") < at("ready") && at("ready") < at("ip_address"),
        "{names:?}"
    );
    assert!(world.all("ip_address")[0].get("address").is_none());
    world.end().await;
}

#[tokio::test]
async fn on_a_network_the_address_comes_with_its_event() {
    let settings = AgentSettings::default();
    let mut world = World::with(COMMANDS, settings, true)
        .await
        .expect("an environment");
    let guest = Guest::new(None);
    world.control.answer(move || Box::new(guest.dial()));
    world.poweron().await;
    assert_eq!(
        text(&world.event("ip_address").await, "address"),
        "192.0.2.1"
    );
    world.end().await;
}

#[tokio::test]
async fn a_sample_runs_and_everything_about_it_is_told() {
    let (mut world, guest) = ready().await;
    // Its errors come once its output has been shown.
    let shown = guest.folder.path().join("shown");
    let script = format!(
        "echo out; until [ -e '{}' ]; do sleep 0.01; done; echo err >&2; exit 3",
        shown.display()
    );
    let run = sample(&world, &script);
    world.trigger(run).await;
    world.event("sample_output").await;
    std::fs::write(&shown, "").expect("the guest's folder is writable");
    let finished = world.event("sample_finished").await;
    assert_eq!(number(&finished, "exit_code"), Some(3), "{finished:?}");
    assert!(finished.get("signal").is_some_and(|value| value.is_null()));
    assert!(
        finished.get("error").is_some_and(|value| value.is_null()),
        "{finished:?}"
    );
    for name in ["timed_out", "truncated", "agent_lost"] {
        assert!(!flag(&finished, name), "{name}");
    }
    assert_eq!(
        (
            number(&finished, "stdout_bytes"),
            number(&finished, "stderr_bytes")
        ),
        (Some(4), Some(4))
    );
    assert_eq!(text(&finished, "command"), "{sample}");
    let results = world.results();
    for (stream, content) in [("stdout", "out\n"), ("stderr", "err\n")] {
        let path = results.join(format!("my_sample.sh.{stream}"));
        assert_eq!(text(&finished, stream), path.display().to_string());
        assert_eq!(std::fs::read_to_string(path).expect("the file"), content);
    }
    let started = world.all("sample_started").remove(0);
    assert!(number(&started, "pid").is_some_and(|pid| pid > 1));
    let shown: Vec<(String, String)> = (world.all("sample_output").iter())
        .map(|event| (text(event, "stream"), text(event, "text")))
        .collect();
    let told = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
    assert_eq!(shown, [told("stdout", "out\n"), told("stderr", "err\n")]);
    world.end().await;
}

#[tokio::test]
async fn a_sample_runs_as_the_user_of_its_event() {
    if !std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        // Only root runs programs as somebody else.
        return;
    }
    let (mut world, guest) = ready().await;
    let passed = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(guest.folder.path(), passed).expect("it is ours");
    let run = sample(&world, "id -u").with("user", "nobody");
    world.trigger(run).await;
    let finished = world.event("sample_finished").await;
    assert_eq!(number(&finished, "exit_code"), Some(0), "{finished:?}");
    let output = std::fs::read_to_string(text(&finished, "stdout")).expect("the file");
    assert_eq!(output, "65534\n");
    world.end().await;
}

#[tokio::test]
async fn a_command_with_the_sample_in_it_goes_to_a_shell_whole() {
    let (mut world, guest) = ready().await;
    let run =
        sample(&world, "echo \"$#: $1\"").with("command", "cd /; sh {sample} 'a b' | tr a-z A-Z");
    world.trigger(run).await;
    let finished = world.event("sample_finished").await;
    assert_eq!(number(&finished, "exit_code"), Some(0), "{finished:?}");
    let output = std::fs::read_to_string(text(&finished, "stdout")).expect("the file");
    assert_eq!(output, "1: A B\n");
    assert!(guest.folder.path().join("uploads/my sample.sh").is_file());
    world.end().await;
}

#[tokio::test]
async fn a_sample_that_never_ends_is_killed_at_its_deadline() {
    let (mut world, _guest) = ready().await;
    let run = sample(&world, "echo begun; exec sleep 600").with("deadline", "700ms");
    world.trigger(run).await;
    let finished = world.event("sample_finished").await;
    assert!(
        flag(&finished, "timed_out") && !flag(&finished, "agent_lost"),
        "{finished:?}"
    );
    assert_eq!(number(&finished, "signal"), Some(9));
    let output = std::fs::read_to_string(text(&finished, "stdout")).expect("the file");
    assert_eq!(output, "begun\n", "what it wrote before is kept");
    world.end().await;
}

#[tokio::test]
async fn a_flood_is_cut_at_the_limit_and_the_events_stay_few() {
    let section = COMMANDS.replace("\"20s\"", "\"20s\", \"output_limit\": \"1MiB\"");
    let mut world = World::new(&section).await;
    let guest = Guest::new(None);
    world.control.answer(move || Box::new(guest.dial()));
    world.poweron().await;
    let run = sample(&world, "head -c 50000000 /dev/zero; exit 0");
    world.trigger(run).await;
    let finished = world.event("sample_finished").await;
    assert!(flag(&finished, "truncated"), "{finished:?}");
    assert_eq!(number(&finished, "stdout_bytes"), Some(50_000_000));
    let kept = std::fs::metadata(text(&finished, "stdout"))
        .expect("the file")
        .len();
    assert_eq!(kept, 1 << 20);
    let shown = world.all("sample_output");
    let length: usize = shown.iter().map(|event| text(event, "text").len()).sum();
    assert!(
        shown.len() <= 256 && length <= 64 << 10,
        "{} events, {length} bytes",
        shown.len()
    );
    assert!(flag(shown.last().expect("some"), "elided"));
    world.end().await;
}

#[tokio::test]
async fn an_agent_that_is_killed_is_told_apart() {
    let (mut world, guest) = ready().await;
    let run = sample(&world, "echo begun; exec sleep 600");
    world.trigger(run).await;
    world.event("sample_output").await;
    guest.hangs_up();
    let finished = world.event("sample_finished").await;
    assert!(
        flag(&finished, "agent_lost") && !flag(&finished, "timed_out"),
        "{finished:?}"
    );
    let output = std::fs::read_to_string(text(&finished, "stdout")).expect("the file");
    assert_eq!(output, "begun\n", "what it wrote before is kept");
    world.end().await;
}

#[tokio::test]
async fn a_command_whose_end_is_not_known_is_the_hooks_failure_unless_the_guest_went_off() {
    for goes_off in [false, true] {
        let (mut world, guest) = ready().await;
        let order = Event::new("run_command").with("command", "exec sleep 600");
        world.trigger(order).await;
        world.event("command_started").await;
        match goes_off {
            true => world.control.guest_becomes(SandboxState::Shutoff),
            false => guest.hangs_up(),
        }
        let finished = world.event("command_finished").await;
        assert!(flag(&finished, "agent_lost"), "{finished:?}");
        let failure = world.environment.bus().hook_failure();
        assert_eq!(failure.is_none(), goes_off, "{failure:?}");
        world.end().await;
    }
}

#[tokio::test]
async fn a_command_that_restarts_its_guest_is_no_failure_of_the_hook() {
    let (mut world, guest) = ready().await;
    let order = Event::new("run_command").with("command", "exec sleep 600");
    world.trigger(order).await;
    world.event("command_started").await;
    // The agent is gone before the machine is.
    guest.hangs_up();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.control.guest_reboots();
    let finished = world.event("command_finished").await;
    assert!(flag(&finished, "agent_lost"), "{finished:?}");
    let failure = world.environment.bus().hook_failure();
    assert!(failure.is_none(), "{failure:?}");
    world.end().await;
}

#[tokio::test]
async fn a_machine_that_goes_off_ends_the_sample() {
    let (mut world, _guest) = ready().await;
    let run = sample(&world, "exec sleep 600");
    world.trigger(run).await;
    world.event("sample_started").await;
    world.control.guest_becomes(SandboxState::Shutoff);
    let finished = world.event("sample_finished").await;
    assert!(flag(&finished, "agent_lost"), "{finished:?}");
    assert!(
        text(&finished, "error").contains("the machine is shut off"),
        "{finished:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn a_command_tells_its_output_and_leaves_no_files() {
    let (mut world, _guest) = ready().await;
    world
        .trigger(Event::new("run_command").with("command", "echo $((40 + 2)); exit 1"))
        .await;
    let finished = world.event("command_finished").await;
    assert_eq!(
        (number(&finished, "exit_code"), text(&finished, "output")),
        (Some(1), "42\n".to_owned())
    );
    assert!(!world.results().exists());
    world.end().await;
}

#[tokio::test]
async fn a_command_has_the_folder_and_the_variables_of_its_event() {
    let (mut world, _guest) = ready().await;
    let variables = serde_json::json!({ "WORD": "a b" });
    let run = Event::new("run_command").with("command", "pwd; echo \"$WORD\"");
    let run = run.with("folder", "/proc").with("environment", variables);
    world.trigger(run).await;
    let finished = world.event("command_finished").await;
    assert_eq!(text(&finished, "output"), "/proc\na b\n", "{finished:?}");
    world.end().await;
}

#[tokio::test]
async fn a_sample_in_the_background_is_followed_to_its_end() {
    let (mut world, _guest) = ready().await;
    let run = sample(&world, "echo out; echo err >&2; exit 4").with("async_flag", true);
    world.trigger(run).await;
    let finished = world.event("sample_finished").await;
    assert_eq!(number(&finished, "exit_code"), Some(4), "{finished:?}");
    let output = std::fs::read_to_string(text(&finished, "stderr")).expect("the file");
    assert_eq!(output, "err\n");
    world.end().await;
}

#[tokio::test]
async fn orders_that_cannot_be_carried_out_are_finished_with_the_reason() {
    let (mut world, _guest) = ready().await;
    let broken = world.file("broken", b"\x7fELF");
    for (run, told) in [
        (Event::new("run_sample"), "`sample`"),
        (
            Event::new("run_sample").with("sample", "/no/such/sample"),
            "/no/such/sample",
        ),
        (
            Event::new("run_sample").with("sample", "/"),
            "has to be a file",
        ),
        (
            Event::new("run_sample").with("sample", broken),
            "Exec format error",
        ),
    ] {
        let before = world.all("sample_finished").len();
        world.trigger(run).await;
        support::until("the end", || world.all("sample_finished").len() > before).await;
        let finished = world.all("sample_finished").pop().expect("just seen");
        let error = text(&finished, "error");
        assert!(error.contains(told), "{error} does not tell of {told}");
        assert!(!flag(&finished, "agent_lost"), "{finished:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn an_end_in_the_middle_of_a_sample_leaves_nothing() {
    let (mut world, _guest) = ready().await;
    let run = sample(&world, "exec sleep 600");
    world.trigger(run).await;
    let started = world.event("sample_started").await;
    let stat = format!("/proc/{}/stat", number(&started, "pid").expect("a number"));
    let before = Instant::now();
    world.end().await;
    assert!(before.elapsed() < Duration::from_secs(10));
    support::until("the sample's end", || std::fs::metadata(&stat).is_err()).await;
}
