//! Runs a command, shows its output as it comes, and keeps it for counting.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How a command ended, and what it printed on both streams in the order of arrival.
pub struct Finished {
    pub success: bool,
    pub timed_out: bool,
    pub lines: Vec<String>,
}

/// Runs `command` in a process group of its own, which is ended with it: for what starts servers and may forget them.
pub fn run_contained(command: &mut Command, indent: &'static str, limit: Duration) -> Finished {
    run_to_the_end(command.process_group(0), indent, limit, end_group)
}

/// Runs `command` without standard input and shows its lines, each behind `indent`. After `limit` it is ended.
pub fn run(command: &mut Command, indent: &'static str, limit: Duration) -> Finished {
    run_to_the_end(command, indent, limit, |_| {})
}

fn run_to_the_end(
    command: &mut Command,
    indent: &'static str,
    limit: Duration,
    clean_up: impl Fn(u32),
) -> Finished {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let line = format!("cannot start {}: {error}", command.get_program().to_string_lossy());
            println!("{indent}{line}");
            return Finished { success: false, timed_out: false, lines: vec![line] };
        }
    };
    let lines = Arc::new(Mutex::new(Vec::new()));
    let readers = [
        forward(child.stdout.take().expect("it is piped"), indent, &lines),
        forward(child.stderr.take().expect("it is piped"), indent, &lines),
    ];
    let (success, timed_out) = wait(&mut child, limit, clean_up);
    for reader in readers {
        // A panic while printing means that our own stdout is gone; there is nobody left to tell.
        let _ = reader.join();
    }
    let lines = std::mem::take(&mut *lines.lock().expect("no reader is left"));
    Finished { success, timed_out, lines }
}

/// Whether `program arguments…` runs and succeeds; its output is not shown.
pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn forward(
    stream: impl Read + Send + 'static,
    indent: &'static str,
    lines: &Arc<Mutex<Vec<String>>>,
) -> thread::JoinHandle<()> {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            println!("{indent}{line}");
            lines.lock().expect("readers do not panic while they hold it").push(line);
        }
    })
}

fn wait(child: &mut Child, limit: Duration, clean_up: impl Fn(u32)) -> (bool, bool) {
    let started = Instant::now();
    let mut timed_out = false;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                // What the command left behind would hold its pipes open, and us with them.
                clean_up(child.id());
                return (status.success() && !timed_out, timed_out);
            }
            Ok(None) if started.elapsed() > limit && !timed_out => {
                timed_out = true;
                clean_up(child.id());
                // If it is gone already, that is what was wanted.
                let _ = child.kill();
            }
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(_) => return (false, timed_out),
        }
    }
}

/// Ends the process group that `leader` began.
fn end_group(leader: u32) {
    let group = format!("-{leader}");
    if succeeds("kill", &["-TERM", "--", &group]) {
        thread::sleep(Duration::from_millis(500));
        succeeds("kill", &["-KILL", "--", &group]);
    }
}
