//! The program that runs in the guest: [`see_agent::server`] with a command line around it.

#![forbid(unsafe_code)]

use see_agent::protocol::CHANNEL;
use see_agent::server::{Agent, Settings, Token, Trust, serve_connection, serve_port, serve_tcp};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

/// The exit code of wrong arguments.
const USAGE: u8 = 2;

const HELP: &str = "\
see-agent: the guest agent of SEE

  --serial PATH        serve this virtio-serial port, for ever
  --tcp ADDRESS:PORT   listen there; port 0 takes a free one and tells it
  --token-file FILE    the token that TCP needs, 16 to 256 bytes; without it the
                       host has to hand one over the serial port first
  --stdio              serve standard input and output, until they end
  --folder FOLDER      where uploads go [default: see-agent in the system's
                       folder for temporary files]
  --version, --help

At least one of --serial, --tcp and --stdio is needed; they go together.
";

#[derive(Debug, Default)]
struct Arguments {
    serial: Vec<PathBuf>,
    tcp: Vec<String>,
    token_file: Option<PathBuf>,
    stdio: bool,
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            say(&message);
            return ExitCode::from(USAGE);
        }
    };
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}

/// The arguments; nothing when they only asked for a text, which is printed.
fn parse(given: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments::default();
    let mut given = given;
    while let Some(option) = given.next() {
        let name = option.to_string_lossy().into_owned();
        let mut value = || given.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--serial" => arguments.serial.push(value()?.into()),
            "--tcp" => arguments.tcp.push(value()?.to_string_lossy().into_owned()),
            "--token-file" => arguments.token_file = Some(value()?.into()),
            "--stdio" => arguments.stdio = true,
            "--folder" => arguments.folder = Some(value()?.into()),
            "--help" => return print(HELP),
            "--version" => return print(concat!("see-agent ", env!("CARGO_PKG_VERSION"), "\n")),
            _ => return Err(format!("{name:?} is not an option; --help lists them")),
        }
    }
    if arguments.serial.is_empty() && arguments.tcp.is_empty() && !arguments.stdio {
        return Err(format!(
            "nothing to serve: give --serial /dev/virtio-ports/{CHANNEL}, --tcp or --stdio"
        ));
    }
    Ok(Some(arguments))
}

fn print(text: &str) -> Result<Option<Arguments>, String> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("writing the text: {error}"))?;
    Ok(None)
}

fn serve(arguments: Arguments) -> Result<(), String> {
    see_agent::server::resist_memory_pressure();
    let folder = arguments
        .folder
        .unwrap_or_else(|| std::env::temp_dir().join("see-agent"));
    let mut settings = Settings::new(&folder);
    settings.control_groups = true;
    if let Some(path) = arguments.token_file {
        let bytes = fs::read(&path).map_err(|error| format!("reading {path:?}: {error}"))?;
        let token = Token::new(&bytes);
        settings.token =
            Some(token.ok_or_else(|| format!("{path:?} has to hold a token of 16 to 256 bytes"))?);
    }
    let agent =
        Agent::new(settings).map_err(|error| format!("making the folder {folder:?}: {error}"))?;
    let mut running = Vec::new();
    for path in arguments.serial {
        let agent = Arc::clone(&agent);
        running.push(start(move || {
            let open = || {
                let port = OpenOptions::new().read(true).write(true).open(&path)?;
                Ok((port.try_clone()?, port))
            };
            serve_port(&agent, open, &AtomicBool::new(false))
        })?);
    }
    for address in arguments.tcp {
        let listener = TcpListener::bind(&address)
            .map_err(|error| format!("listening on {address}: {error}"))?;
        if let Ok(address) = listener.local_addr() {
            say(&format!("listening on {address}"));
        }
        let agent = Arc::clone(&agent);
        running.push(start(move || {
            serve_tcp(&agent, &listener, &AtomicBool::new(false));
            Ok(())
        })?);
    }
    if arguments.stdio {
        running.push(start(move || {
            serve_connection(&agent, io::stdin(), io::stdout(), Trust::Reached)
        })?);
    }
    for thread in running {
        match thread.join() {
            Ok(result) => result.map_err(|error| format!("serving: {error}"))?,
            Err(_) => return Err("a transport's thread failed; please report it".to_owned()),
        }
    }
    Ok(())
}

fn start(
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<JoinHandle<io::Result<()>>, String> {
    thread::Builder::new()
        .spawn(work)
        .map_err(|error| format!("starting a thread: {error}"))
}

/// Tells whoever started the agent. Nobody listening is no reason to end.
fn say(message: &str) {
    drop(writeln!(io::stderr(), "see-agent: {message}"));
}
