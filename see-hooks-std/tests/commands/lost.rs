//! Agents that are restarted, and connections that are lost: nothing is lost that lives.

use super::*;
use std::io::{Read, Write};

/// A port that outlives the agents behind it, as a virtio-serial one does: the host never sees that one ended.
struct Port {
    agent: Mutex<Option<StdStream>>,
    host: Mutex<Option<StdStream>>,
}

impl Port {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            agent: Mutex::default(),
            host: Mutex::default(),
        })
    }

    /// Passes on what comes, to whoever is at the other end now; what nobody takes is lost.
    fn pass(self: &Arc<Self>, mut from: StdStream, to: fn(&Self) -> &Mutex<Option<StdStream>>) {
        let port = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 1 << 16];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                let other = to(&port).lock().expect("unpoisoned");
                let other = other
                    .as_ref()
                    .map(|other| other.try_clone().expect("a clone"));
                if let Some(mut other) = other {
                    let _ = other.write_all(&buffer[..length]);
                }
            }
        });
    }

    /// Starts another agent in place of the one before, whose programs end with it.
    fn starts(self: &Arc<Self>, agent: &Arc<Agent>) {
        let (ours, theirs) = StdStream::pair().expect("a pair");
        let writer = theirs.try_clone().expect("a clone");
        let agent = Arc::clone(agent);
        thread::spawn(move || serve_connection(&agent, theirs, writer, Trust::Reached));
        self.pass(ours.try_clone().expect("a clone"), |port| &port.host);
        let before = self.agent.lock().expect("unpoisoned").replace(ours);
        if let Some(before) = before {
            before.shutdown(std::net::Shutdown::Both).expect("a line");
        }
    }

    /// The host's end, in place of the one before.
    fn dial(self: &Arc<Self>) -> UnixStream {
        let (ours, theirs) = StdStream::pair().expect("a pair");
        self.pass(theirs.try_clone().expect("a clone"), |port| &port.agent);
        *self.host.lock().expect("unpoisoned") = Some(theirs);
        ours.set_nonblocking(true).expect("non-blocking");
        UnixStream::from_std(ours).expect("a stream")
    }
}

fn echo(word: &str) -> Event {
    Event::new("run_command").with("command", format!("echo {word}"))
}

/// The one `command_finished` of the command that echoes this word.
async fn echoed(world: &World, word: &str) -> Event {
    let command = format!("echo {word}");
    let find = || {
        let all = world.all("command_finished").into_iter();
        all.filter(|event| text(event, "command") == command)
            .collect::<Vec<_>>()
    };
    support::until(&command, || !find().is_empty()).await;
    find().remove(0)
}

#[tokio::test]
async fn an_agent_whose_connection_was_lost_is_found_again() {
    let (mut world, guest) = ready().await;
    guest.hangs_up();
    world.trigger(echo("again")).await;
    let finished = echoed(&world, "again").await;
    assert_eq!(text(&finished, "output"), "again\n", "{finished:?}");
    assert_eq!(world.all("ready").len(), 1, "the guest did not start anew");
    world.end().await;
}

#[tokio::test]
async fn over_tcp_an_agent_that_closed_the_connection_is_found_again() {
    let guest = Guest::new(Some(TOKEN));
    // The first connection is cut; the ones after it go on.
    let inner = guest.listens();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let settings = tcp(listener.local_addr().expect("a port").port(), Some(TOKEN));
    let (cut, cuts) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let host = connection.expect("a connection");
            let agent = std::net::TcpStream::connect(("127.0.0.1", inner)).expect("the agent");
            let clone = |stream: &std::net::TcpStream| stream.try_clone().expect("a clone");
            let (mut up, mut down) = ((clone(&host), clone(&agent)), (clone(&agent), clone(&host)));
            cut.send(host).expect("the test waits");
            thread::spawn(move || std::io::copy(&mut up.0, &mut up.1));
            thread::spawn(move || std::io::copy(&mut down.0, &mut down.1));
        }
    });
    let mut world = World::with(COMMANDS, settings, false)
        .await
        .expect("an environment");
    world.poweron().await;
    let address = Event::new("ip_address").with("address", "127.0.0.1");
    world.trigger(address).await;
    world.event("ready").await;
    let first = cuts.recv().expect("a connection");
    first
        .shutdown(std::net::Shutdown::Both)
        .expect("a connection");
    world.trigger(echo("again")).await;
    let finished = echoed(&world, "again").await;
    assert_eq!(text(&finished, "output"), "again\n", "{finished:?}");
    world.end().await;
}

#[tokio::test]
async fn an_agent_that_is_restarted_in_the_middle_of_a_command_costs_that_command_only() {
    let mut world = World::new(COMMANDS).await;
    let (port, guest) = (Port::new(), Guest::new(None));
    port.starts(&guest.agent);
    let theirs = Arc::clone(&port);
    world.control.answer(move || Box::new(theirs.dial()));
    world.poweron().await;
    world.event("ip_address").await;
    let long = Event::new("run_command").with("command", "exec sleep 600");
    world.trigger(long).await;
    world.event("command_started").await;
    let other = Guest::new(None);
    port.starts(&other.agent);
    world.trigger(echo("again")).await;
    let finished = echoed(&world, "again").await;
    assert_eq!(text(&finished, "output"), "again\n", "{finished:?}");
    assert!(!flag(&finished, "agent_lost"), "{finished:?}");
    support::until("both ends", || world.all("command_finished").len() == 2).await;
    let lost = world
        .all("command_finished")
        .into_iter()
        .filter(|event| flag(event, "agent_lost"));
    let lost: Vec<_> = lost.map(|event| text(&event, "command")).collect();
    assert_eq!(lost, ["exec sleep 600"]);
    world.end().await;
}

#[tokio::test]
async fn a_sample_in_the_background_outlives_the_connection() {
    let (mut world, guest) = ready().await;
    let mark = world.file("go on", b"");
    let script = format!(
        "echo begun; while [ -e '{}' ]; do sleep 0.05; done; exit 4",
        mark.display()
    );
    let run = sample(&world, &script).with("async_flag", true);
    world.trigger(run).await;
    world.event("sample_output").await;
    guest.hangs_up();
    std::fs::remove_file(mark).expect("it is there");
    let finished = world.event("sample_finished").await;
    assert_eq!(number(&finished, "exit_code"), Some(4), "{finished:?}");
    assert!(!flag(&finished, "agent_lost"), "{finished:?}");
    let output = std::fs::read_to_string(text(&finished, "stdout")).expect("the file");
    assert_eq!(output, "begun\n");
    world.end().await;
}

#[tokio::test]
async fn of_a_sample_in_the_background_256_kib_of_each_output_are_kept_and_the_rest_is_told() {
    let (mut world, _guest) = ready().await;
    let run = sample(&world, "seq 100000 | head -c 300000").with("async_flag", true);
    world.trigger(run).await;
    let finished = world.event("sample_finished").await;
    let output = std::fs::read(text(&finished, "stdout")).expect("the file");
    assert_eq!(output.len(), 256 << 10);
    assert!(flag(&finished, "truncated"), "{finished:?}");
    assert_eq!(number(&finished, "stdout_bytes"), Some(300_000));
    world.end().await;
}

#[tokio::test]
async fn sixteen_commands_at_once_beside_a_large_upload_all_end_as_they_should() {
    let (mut world, _guest) = ready().await;
    let mut script = b"#!/bin/sh\nexit 7\n".to_vec();
    script.resize(48 << 20, b'#');
    let large = world.file("large", &script);
    world
        .trigger(Event::new("run_sample").with("sample", large))
        .await;
    let command = |number: usize| format!("sleep 1; echo {number}");
    for number in 0..16 {
        let order = Event::new("run_command").with("command", command(number));
        world.trigger(order).await;
    }
    support::until("all ends", || world.all("command_finished").len() == 16).await;
    for event in world.all("command_finished") {
        assert!(!flag(&event, "agent_lost"), "{event:?}");
        let number = text(&event, "output").trim().parse().expect("its number");
        assert_eq!(text(&event, "command"), command(number));
    }
    let finished = world.event("sample_finished").await;
    assert_eq!(number(&finished, "exit_code"), Some(7), "{finished:?}");
    world.end().await;
}
