//! Programs of the guest: their input, signals, users and shells.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::{Exit, FailureCode, Placement, Program, Run, Stream};
use see_hooks_std::client::{Client, ClientError, Progress};
use support::{PATIENCE, agent, collect, shell, until};

async fn client(test: &str) -> (Client, support::Folder) {
    let (stream, folder) = agent(test);
    let client = Client::connect(stream, b"", PATIENCE).await;
    (client.expect("a session"), folder)
}

fn with_input(script: &str) -> Run {
    Run {
        placement: Placement::Foreground { input: true },
        ..shell(script)
    }
}

#[tokio::test]
async fn what_is_written_to_a_program_comes_back_while_it_reads_on() {
    let (client, _folder) = client("input").await;
    let mut run = with_input("exec cat");
    run.stdout_limit = u64::MAX;
    let execution = client.run(run, PATIENCE).await.expect("started");
    let input = execution.input();
    let writing = async {
        // Many times what may be under way at once.
        for number in 0..100_u8 {
            input.write(vec![number; 40_000]).await.expect("written");
        }
        input.close().await.expect("closed");
    };
    let ((), (stdout, _, outcome)) = tokio::join!(writing, collect(execution));
    assert_eq!(outcome.exit, Exit::Code(0));
    let expected: Vec<u8> = (0..100_u8)
        .flat_map(|number| vec![number; 40_000])
        .collect();
    assert!(stdout == expected);
}

#[tokio::test]
async fn writing_to_a_program_that_has_ended_fails_instead_of_waiting() {
    let (client, _folder) = client("ended").await;
    let execution = client
        .run(with_input("exit 5"), PATIENCE)
        .await
        .expect("started");
    let input = execution.input();
    let (_, _, outcome) = collect(execution).await;
    assert_eq!(outcome.exit, Exit::Code(5));
    let written = tokio::time::timeout(PATIENCE, input.write(vec![0; 1000])).await;
    assert!(
        matches!(written, Ok(Err(ClientError::Ended))),
        "{written:?}"
    );
    client.ping(PATIENCE).await.expect("the session goes on");
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group_and_a_program_may_handle_it() {
    let (client, _folder) = client("signal").await;
    let script = "trap 'echo caught; exit 9' TERM; echo ready; sleep 600 & wait; wait";
    let mut execution = client.run(shell(script), PATIENCE).await.expect("started");
    let first = execution.next().await.expect("progress");
    let ready = Progress::Output {
        stream: Stream::Stdout,
        bytes: b"ready\n".to_vec(),
    };
    assert_eq!(first, ready);
    execution.signal(15).await.expect("sent");
    let (stdout, _, outcome) = collect(execution).await;
    assert_eq!((outcome.exit, outcome.killed), (Exit::Code(9), false));
    assert_eq!(stdout, b"caught\n");
    assert!(!outcome.output_held, "the child of the group ended, too");
}

#[tokio::test]
async fn a_program_runs_as_the_user_that_is_named_with_its_home() {
    let (client, _folder) = client("user").await;
    let as_user = |user: &str| {
        let mut run = shell("id -u; id -g; id -G; echo $HOME $USER");
        run.program.user = user.to_owned();
        run.program.folder = b"/".to_vec();
        run
    };
    // As root, as the tests of real machines run; somebody else may only become who he is.
    for user in ["root", "0"] {
        let execution = client.run(as_user(user), PATIENCE).await;
        let Ok(execution) = execution else {
            return;
        };
        let (stdout, _, _) = collect(execution).await;
        assert!(stdout.ends_with(b"/root root\n"), "{stdout:?}");
    }
    let execution = client
        .run(as_user("nobody"), PATIENCE)
        .await
        .expect("started");
    let (stdout, _, outcome) = collect(execution).await;
    let text = String::from_utf8(stdout).expect("text");
    assert_eq!(outcome.exit, Exit::Code(0));
    assert!(text.starts_with("65534\n65534\n65534\n"), "{text}");
    let refused = client.run(as_user("no-such-user"), PATIENCE).await;
    let Err(ClientError::Refused { code, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(code, FailureCode::NotFound);
}

#[tokio::test]
async fn text_for_the_shell_is_run_by_it_and_never_beside_arguments() {
    let (client, _folder) = client("shell").await;
    let mut run = shell("");
    run.program = Program {
        shell: b"for word in a 'b c'; do echo \"<$word>\"; done".to_vec(),
        ..Program::default()
    };
    let execution = client.run(run.clone(), PATIENCE).await.expect("started");
    let (stdout, _, _) = collect(execution).await;
    assert_eq!(stdout, b"<a>\n<b c>\n");
    run.program.arguments = vec![b"true".to_vec()];
    let refused = client.run(run, PATIENCE).await;
    let Err(ClientError::Refused { code, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(code, FailureCode::BadRequest);
}

#[tokio::test]
async fn a_killed_program_takes_its_children_with_it_also_in_the_middle_of_a_fork_bomb() {
    let (client, _folder) = client("bomb").await;
    let script =
        "bomb() { sleep 600 & sleep 600 & echo $!; }; for n in 1 2 3 4 5; do bomb; done; wait";
    let mut execution = client.run(shell(script), PATIENCE).await.expect("started");
    let mut pids = String::new();
    while pids.lines().count() < 5 {
        if let Progress::Output { bytes, .. } = execution.next().await.expect("progress") {
            pids.push_str(&String::from_utf8(bytes).expect("text"));
        }
    }
    drop(execution);
    let runs = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    until("their end", || !pids.lines().any(runs)).await;
}
