//! What a person sees of a run: on terminals of several widths, and in a pipe.

use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::exit;
use crate::support::{Ended, Place, RUN};

/// As many lines as any of these terminals has: nothing scrolls away.
const ROWS: u16 = 60;

/// Starts a program on a terminal of its own, whose user's side is given back.
pub(crate) fn on_terminal(program: &Command, columns: u16) -> (OwnedFd, Child) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let user = openpt(flags).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let size = Winsize {
        ws_row: ROWS,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&user, size).unwrap();
    let path = ptsname(&user, Vec::new()).unwrap();
    let open = || -> Stdio {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let side = rustix::fs::open(path.as_c_str(), flags, Mode::empty());
        side.unwrap().into()
    };
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "--wait"])
        .arg(program.get_program())
        .args(program.get_args())
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .current_dir(program.get_current_dir().unwrap())
        .stdin(open())
        .stdout(open())
        .stderr(open());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    (user, command.spawn().unwrap())
}

fn size(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).unwrap()
}

/// A terminal as its user sees it.
struct Seen {
    user: OwnedFd,
    child: Child,
    screen: vt100::Parser,
}

impl Seen {
    fn start<'a>(place: &Place, columns: u16, words: impl IntoIterator<Item = &'a str>) -> Self {
        let (user, child) = on_terminal(&place.seectl(words), columns);
        Self {
            user,
            child,
            screen: vt100::Parser::new(size(ROWS), size(columns), 0),
        }
    }

    /// Takes what was written; `false` where the terminal is closed.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match rustix::io::read(&self.user, &mut bytes) {
            Ok(count @ 1..) => {
                self.screen.process(&bytes[..count]);
                true
            }
            // Nobody has the other side open any more.
            _ => false,
        }
    }

    fn text(&self) -> String {
        let text = self.screen.screen().contents();
        text.lines()
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect()
    }

    /// Waits until the screen shows this.
    fn wait_for(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(self.read(), "no {text:?}: {}", self.text());
        }
    }

    /// The last screen, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        while self.read() {}
        let code = self.child.wait().unwrap().code();
        (self.text(), code)
    }
}

/// The text with everything replaced that is another in each run.
fn steady(text: &str) -> String {
    let is_hexadecimal = |word: &str| word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let units = ["ms", "s"];
    let lines = text.lines().map(|line| {
        let mut words: Vec<String> = Vec::new();
        for word in line.split(' ') {
            let bare = word.trim_end_matches([',', ':', ')']);
            let tail = &word[bare.len()..];
            let number = words
                .last()
                .is_some_and(|before| before.trim_start_matches(['(', '<']).parse::<f64>().is_ok());
            match bare {
                bare if units.contains(&bare) && number => {
                    let before = words.pop().unwrap_or_default();
                    let open = if before.starts_with('(') { "(" } else { "" };
                    // Right-aligned times have another number of spaces each.
                    while words.last().is_some_and(String::is_empty) {
                        words.pop();
                    }
                    words.push(format!("{open}TIME{tail}"));
                }
                bare if bare.len() == 8 && is_hexadecimal(bare) => words.push(format!("ID{tail}")),
                _ => words.push(word.to_owned()),
            }
        }
        words.join(" ") + "\n"
    });
    lines.collect()
}

/// A run whose sample prints more than is shown.
fn talkative() -> Place {
    let place = Place::new();
    let prints = "hello from a guest whose lines are longer than a narrow terminal is wide\none\ttab\n\u{1b}[31mred\n4\n5\n6\n7\n8\n";
    place.run_file(
        json!({}),
        json!({ "finishes": { "exit_code": 3, "seconds": 12.4 }, "prints": prints }),
    );
    place
}

/// The screen of a place's only run, with everything replaced that is another in each run.
fn shown(place: &Place, text: &str) -> String {
    let folder = place.results().pop().unwrap();
    let identifier = folder.file_name().unwrap().to_str().unwrap();
    let text = text.replace(identifier, "RUN");
    // On a narrow terminal it is broken over two lines.
    let lines = text.lines().map(|line| {
        let is_part = |length: &usize| {
            let (begin, end) = identifier.split_at(*length);
            line.ends_with(begin) || line.trim_start().starts_with(end)
        };
        match (6..30).rev().find(is_part) {
            Some(length) => {
                let (begin, end) = identifier.split_at(length);
                line.replace(begin, "RUN-BEGIN").replace(end, "RUN-END") + "\n"
            }
            None => line.to_owned() + "\n",
        }
    });
    steady(&lines.collect::<String>())
}

pub(crate) fn widths() {
    for columns in [40, 80, 200] {
        let place = talkative();
        let (text, code) = Seen::start(&place, columns, RUN).end();
        assert_eq!(code, Some(1), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= 25, "{} lines: {text}", lines.len());
        let wide = |line: &&&str| line.chars().count() > usize::from(columns);
        assert_eq!(lines.iter().find(wide), None);
        assert!(!text.contains('⠋'), "{text}");
        insta::assert_snapshot!(format!("columns_{columns}"), shown(&place, &text));
    }
}

fn piped(place: &Place, words: impl IntoIterator<Item = &'static str>) -> Ended {
    let ended = place.output(words);
    let strange = |c: char| c != '\n' && c.is_control();
    assert!(!ended.stdout.contains(strange), "{}", ended.stdout);
    ended
}

pub(crate) fn pipe() {
    let place = talkative();
    let ended = piped(&place, RUN);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stderr, "");
    insta::assert_snapshot!("pipe", shown(&place, &ended.stdout));
    assert!(ended.stdout.lines().count() <= 25, "{}", ended.stdout);
    // With every step and event, and times that never go back.
    let ended = piped(&talkative(), RUN.into_iter().chain(["-v"]));
    let times = ended.stdout.lines().filter_map(|line| {
        let (time, rest) = line.trim_start().split_once(' ')?;
        let time: f64 = time.trim_start_matches('<').parse().ok()?;
        match rest.split_once(' ')?.0 {
            "ms" => Some(time / 1000.0),
            "s" => Some(time),
            _ => None,
        }
    });
    let times: Vec<f64> = times.collect();
    assert!(times.len() > 10, "{}", ended.stdout);
    assert!(times.is_sorted(), "{}", ended.stdout);
}

pub(crate) fn interrupted() {
    let place = Place::new();
    place.run_file(json!({}), json!({}));
    let samples = place.path().join("samples");
    std::fs::create_dir(&samples).unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(samples.join(name), name).unwrap();
    }
    let mut seen = Seen::start(&place, 80, ["run", "run.json", "--sample", "samples"]);
    seen.wait_for("1 of 3: running the sample");
    // What the terminal makes of Ctrl-C.
    rustix::io::write(&seen.user, b"\x03").unwrap();
    let (text, code) = seen.end();
    assert_eq!(code, Some(130), "{text}");
    assert!(!text.contains("running the sample"), "{text}");
    assert!(text.contains("2 samples were not run: b, c\n"), "{text}");
    assert!(text.contains(" a: interrupted"), "{text}");
    assert_eq!(place.made(), 0);
}

pub(crate) fn silent() {
    let place = Place::new();
    let path = place.run_file(json!({}), json!({ "silent": true }));
    let run = std::fs::read_to_string(&path).unwrap();
    let mut run: serde_json::Value = serde_json::from_str(&run).unwrap();
    run["protocol"] = json!([
        { "step": "poweron" }, { "step": "wait", "for": "ready", "timeout": "100ms" },
    ]);
    std::fs::write(&path, run.to_string()).unwrap();
    let ended = piped(&place, ["run", "run.json"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(ended.stdout.matches("wait for ready").count(), 1);
    let told = "waited 100.0ms for the event ready";
    assert_eq!(ended.stdout.matches(told).count(), 1, "{}", ended.stdout);
    for told in [
        "  last screen  results/",
        "  try          does the image boot by BIOS?",
    ] {
        assert!(ended.stdout.contains(told), "{}", ended.stdout);
    }
    let kept = std::fs::read(place.results()[0].join("last-screen.png")).unwrap();
    assert_eq!(kept, b"No bootable device");
}

pub(crate) fn folder() {
    let place = Place::new();
    place.run_file(json!({}), exit(0));
    let samples = place.path().join("samples");
    std::fs::create_dir(&samples).unwrap();
    for name in ["a", "b"] {
        std::fs::write(samples.join(name), name).unwrap();
    }
    let ended = piped(&place, ["run", "run.json", "--sample", "samples"]);
    insta::assert_snapshot!("folder", steady(&ended.stdout));
}
