//! What people and scripts see of the program: exit code, stdout and stderr.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// Exit code, stdout and stderr of one run, in one text.
fn run(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_toolgate"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that does not read its input closes the pipe early.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    format!(
        "{}\n-- stdout\n{}\n-- stderr\n{}",
        output.status.code().expect("it was not killed"),
        text(&output.stdout),
        text(&output.stderr)
    )
    .replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn the_help_is_short() {
    insta::assert_snapshot!(run(&["--help"], &[("TOOLGATE_LISTEN", "10.0.0.1:1")], ""), @"");
}

#[test]
fn the_help_of_a_command_says_what_it_reads_and_prints() {
    insta::assert_snapshot!(run(&["key", "hash", "--help"], &[], ""), @"");
}

#[test]
fn both_ways_to_ask_for_the_version_answer_alike() {
    insta::assert_snapshot!(run(&["version"], &[], ""), @"");
    assert_eq!(run(&["version"], &[], ""), run(&["--version"], &[], ""));
}

#[test]
fn a_key_is_hashed_from_standard_input() {
    insta::assert_snapshot!(run(&["key", "hash"], &[], "tgk_0123456789abcdefghij\n"), @"");
}

#[test]
fn without_input_a_new_key_is_made_whose_hash_fits() {
    let made = run(&["key", "hash"], &[], "");
    let lines: Vec<&str> = made.lines().collect();
    let (key, hash) = (lines[2], lines[3]);
    assert!(key.starts_with("tgk_") && key.len() == 30, "{made}");
    assert!(run(&["key", "hash"], &[], key).contains(&format!("-- stdout\n{hash}\n-- stderr")), "{made}");
}

#[test]
fn mistakes_on_the_command_line_get_one_line_and_a_hint() {
    for (arguments, message, hint) in [
        (&["--lisen", "x"][..], "unexpected argument `--lisen` found", "a similar argument exists: `--listen`"),
        (&["sevre"], "unrecognized subcommand `sevre`", "a similar subcommand exists: `serve`"),
        (&["--log-format", "xml"], "invalid value `xml` for `--log-format <FORMAT>`", "it is one of text, json"),
        (&["key"], "a command is missing", "`--help` after what you wrote shows the commands"),
        (&["serve", "x"], "unexpected argument `x` found", "`toolgate --help` shows every option"),
        (
            &["--listen", "127.0.0.1:1", "version"],
            "these options belong to `toolgate serve`",
            "leave them out, or leave the command out",
        ),
        (
            &["--listen", "here"],
            "`listen` cannot be used: invalid socket address syntax (option `--listen`)",
            "give an address and a port, such as `127.0.0.1:8787`",
        ),
        (
            &["--config", "/nowhere.toml"],
            "cannot read the configuration `/nowhere.toml`: there is no such file",
            "give a readable TOML file with `--config FILE`",
        ),
    ] {
        let expect = format!("2\n-- stdout\n\n-- stderr\nerror: {message}\nhint: {hint}");
        assert_eq!(run(arguments, &[], ""), expect, "{arguments:?}");
    }
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    insta::assert_snapshot!(run(&[], &[("TOOLGATE_LISTEN", "8787")], ""), @"");
    insta::assert_snapshot!(run(&[], &[("TOOLGATE__LIMTS__BODY_BYTES", "1")], ""), @"");
    insta::assert_snapshot!(run(&[], &[("TOOLGATE_CONFIG", "/nowhere.toml")], ""), @"");
    insta::assert_snapshot!(run(&[], &[("RUST_LOG", "toolgate=loud")], ""), @"");
}

#[test]
fn a_taken_port_is_one_line_and_a_hint() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let next = format!("127.0.0.1:{}", taken.local_addr().expect("it is bound").port().saturating_add(1));
    let said = run(&["serve", "--listen", &address], &[], "").replace(&next, "NEXT").replace(&address, "ADDR");
    insta::assert_snapshot!(said, @"");
}
