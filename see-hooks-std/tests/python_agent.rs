//! The hook `commands` with python-see's original agent, played by a server made from its protocol.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod world;

use see_core::{AgentSettings, Event};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use tempfile::TempDir;
use world::{World, flag, number, text};

/// `GET /?command=…&async=0|1` and `POST /?command=…{sample}…&sample=NAME&async=…` with the file as
/// body; the answer is `{"exit_code", "command_output"}`.
struct PythonAgent {
    folder: TempDir,
    port: u16,
}

impl PythonAgent {
    fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let place = folder.path().to_owned();
        thread::spawn(move || {
            for connection in listener.incoming() {
                serve(&connection.expect("a connection"), &place);
            }
        });
        Self { folder, port }
    }
}

/// Serves one request, as the original does: one connection at a time. One without a request is
/// somebody who looked whether the port is open.
fn serve(connection: &TcpStream, folder: &std::path::Path) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        assert!(
            !header.starts_with("transfer-encoding"),
            "the original knows no chunks"
        );
        if let Some(number) = header.strip_prefix("content-length:") {
            length = number.trim().parse::<usize>().ok();
        }
        if header.is_empty() {
            break;
        }
    }
    let query: HashMap<String, String> = (target.strip_prefix("/?")?.split('&'))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decode(value)))
        .collect();
    let mut command = query["command"].clone();
    if method == "POST" {
        let mut content = vec![0; length.expect("a length")];
        reader.read_exact(&mut content).expect("the sample");
        let path = folder.join(&query["sample"]);
        std::fs::write(&path, content).expect("stored");
        command = command.replace("{sample}", path.to_str().expect("text"));
    }
    let answer = match command.as_str() {
        "redirect" => "HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n".to_owned(),
        "nonsense" => "HTTP/1.0 200 OK\r\n\r\nno json".to_owned(),
        "hang up" => return None,
        _ if query["async"] == "1" => {
            let detached = format!("({command}) >/dev/null 2>&1 &");
            let status = Command::new("sh").arg("-c").arg(detached).status();
            assert!(status.expect("sh").success());
            let json = serde_json::json!({ "exit_code": null, "command_output": "" });
            format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{json}")
        }
        _ => {
            let output = Command::new("sh")
                .arg("-c")
                .arg(&command)
                .output()
                .expect("sh");
            let text = [output.stdout, output.stderr].concat();
            let json = serde_json::json!({
                "exit_code": output.status.code(),
                "command_output": String::from_utf8_lossy(&text),
            });
            format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{json}")
        }
    };
    let mut writer = connection;
    writer.write_all(answer.as_bytes()).ok()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
                let digits = std::str::from_utf8(&digits).expect("digits");
                u8::from_str_radix(digits, 16).expect("digits")
            }
            other => other,
        });
    }
    String::from_utf8(bytes).expect("text")
}

/// An environment whose guest has python-see's agent, and its address from the event.
async fn ready(agent: &PythonAgent) -> World {
    let section = format!(
        r#"{{ "configuration": {{ "results_folder": "RESULTS" }}, "hooks": [
            {{ "name": "plugins.commands.CommandsHook", "configuration": {{ "agent-port": {} }} }} ] }}"#,
        agent.port
    );
    let settings = AgentSettings::default();
    let mut world = World::with(&section, settings, false)
        .await
        .expect("an environment");
    world.poweron().await;
    world
        .trigger(Event::new("ip_address").with("address", "127.0.0.1"))
        .await;
    world.event("ready").await;
    world
}

async fn command(world: &mut World, command: &str) -> Event {
    let before = world.all("command_finished").len();
    world
        .trigger(Event::new("run_command").with("command", command.to_owned()))
        .await;
    loop {
        world.event("command_finished").await;
        if let Some(event) = world.all("command_finished").into_iter().nth(before) {
            return event;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn commands_of_any_characters_are_run() {
    let agent = PythonAgent::start();
    let mut world = ready(&agent).await;
    let finished = command(&mut world, "printf '%s' \"a&b=c+d%20é#?\"; exit 7").await;
    assert_eq!(number(&finished, "exit_code"), Some(7), "{finished:?}");
    assert_eq!(text(&finished, "output"), "a&b=c+d%20é#?");
    world.end().await;
}

#[tokio::test]
async fn a_sample_is_sent_whole_and_run() {
    let agent = PythonAgent::start();
    let mut world = ready(&agent).await;
    let content = [b"exit 3 #".to_vec(), vec![0xA5; 3_000_000]].concat();
    let path = world.file("ä $(sample)", &content);
    let run = Event::new("run_sample")
        .with("sample", path)
        .with("command", "echo got; sh {sample}");
    world.trigger(run).await;
    let finished = world.event("sample_finished").await;
    assert_eq!(number(&finished, "exit_code"), Some(3), "{finished:?}");
    let stored = std::fs::read(agent.folder.path().join("____sample_")).expect("stored");
    assert!(stored == content);
    let output = std::fs::read_to_string(text(&finished, "stdout")).expect("the file");
    assert_eq!(output, "got\n");
    // That agent writes the name into a command: it gets one that needs no quotes, and that is told.
    assert_eq!(text(&finished, "guest_name"), "____sample_");
    let renamed = world.event("sample_renamed").await;
    assert_eq!(text(&renamed, "guest_name"), "____sample_");
    assert!(
        text(&renamed, "message").contains("python-see"),
        "{renamed:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn a_pipe_in_place_of_a_sample_is_refused_and_not_waited_for() {
    let agent = PythonAgent::start();
    let mut world = ready(&agent).await;
    let pipe = world.results().with_file_name("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let run = Event::new("run_sample")
        .with("sample", pipe)
        .with("command", "true");
    world.trigger(run).await;
    let finished = world.event("sample_finished").await;
    let error = text(&finished, "error");
    assert!(error.contains("has to be a file"), "{finished:?}");
    world.end().await;
}

#[tokio::test]
async fn a_command_in_the_background_is_not_waited_for() {
    let agent = PythonAgent::start();
    let mut world = ready(&agent).await;
    let run = Event::new("run_command")
        .with("command", "sleep 1")
        .with("async_flag", true);
    world.trigger(run).await;
    let finished = world.event("command_finished").await;
    assert!(
        finished.get("exit_code").is_some_and(|code| code.is_null()),
        "{finished:?}"
    );
    assert!(
        finished.get("error").is_some_and(|error| error.is_null()),
        "{finished:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn answers_that_are_none_are_told_and_redirections_not_followed() {
    let agent = PythonAgent::start();
    let mut world = ready(&agent).await;
    let redirected = command(&mut world, "redirect").await;
    assert!(text(&redirected, "error").contains("302"), "{redirected:?}");
    let nonsense = command(&mut world, "nonsense").await;
    assert!(
        text(&nonsense, "error").contains("not what it should be"),
        "{nonsense:?}"
    );
    let lost = command(&mut world, "hang up").await;
    assert!(flag(&lost, "agent_lost"), "{lost:?}");
    world.end().await;
}
