//! What people and scripts see of the program: exit code, stdout and stderr.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::support::{Place, Program, free_address, on_postgres};

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
    insta::assert_snapshot!(run(&["--help"], &[("TOOLGATE_LISTEN", "10.0.0.1:1")], ""), @r#"
    0
    -- stdout
    Gives any language model any MCP server

    Usage: toolgate [OPTIONS] [COMMAND]

    Commands:
      serve        Run the gateway (the default)
      demo         Show what the gateway does, on this machine, without any key
      init         Make the data directory, the keyring and the database
      migrate      Bring the database up to date, without running the gateway
      project      The applications that call with keys of their own
      key          Make, list and revoke API keys for your own applications
      keys         The keys that seal what is stored
      connections  Users' logins at the servers they use
      audit        What happened to users' logins, newest first
      doctor       Show what a login at an address would be like, and if there can be none, why
      restore      Interrupt the unfinished runs of a restored database, so that no action is repeated
      version      Print the version

    Options:
          --config <FILE>        Configuration file (TOML) [env: TOOLGATE_CONFIG]
          --listen <ADDR>        Address and port to listen on [env: TOOLGATE_LISTEN] [default: 127.0.0.1:8787]
          --data <DIR>           Directory for data [env: TOOLGATE_DATA] [default: the platform's data directory]
          --public-url <URL>     Address under which others reach this gateway [env: TOOLGATE_PUBLIC_URL]
          --log-format <FORMAT>  How logs are written; RUST_LOG chooses what is logged [possible values: text, json]
      -h, --help                 Print help
      -V, --version              Print version

    Without a command, `serve` is run. Every setting of the configuration file can also be given in the
    environment: `limits.body_bytes` is TOOLGATE__LIMITS__BODY_BYTES.
    -- stderr

    "#);
}

#[test]
fn the_help_of_a_command_says_what_it_reads_and_prints() {
    insta::assert_snapshot!(run(&["key", "hash", "--help"], &[], ""), @r#"
    0
    -- stdout
    Print the hash of a key for the configuration

    A key that is piped in is hashed. Without input, a new key is made and printed once, before its hash.

    Usage: toolgate key hash

    Options:
      -h, --help
              Print help (see a summary with '-h')
    -- stderr

    "#);
}

#[test]
fn both_ways_to_ask_for_the_version_answer_alike() {
    insta::assert_snapshot!(run(&["version"], &[], ""), @r#"
    0
    -- stdout
    toolgate VERSION
    -- stderr

    "#);
    assert_eq!(run(&["version"], &[], ""), run(&["--version"], &[], ""));
}

#[test]
fn a_key_is_hashed_from_standard_input() {
    insta::assert_snapshot!(run(&["key", "hash"], &[], "tgk_0123456789abcdefghij\n"), @r#"
    0
    -- stdout
    sha256:b666fec556df05dc77dc0b7099e5f6d38dc40d56872e35d902ab31b6861b8cd0
    -- stderr
    For the configuration:

    [[api_keys]]
    name = "my-app"
    hash = "sha256:b666fec556df05dc77dc0b7099e5f6d38dc40d56872e35d902ab31b6861b8cd0"
    "#);
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
        (
            &["--lisen", "x"][..],
            "unexpected argument `--lisen` found",
            "a similar argument exists: `--listen`",
        ),
        (&["migrat"], "unrecognized subcommand `migrat`", "a similar subcommand exists: `migrate`"),
        (
            &["--log-format", "xml"],
            "invalid value `xml` for `--log-format <FORMAT>`",
            "it is one of text, json",
        ),
        (&["key"], "a command is missing", "`--help` after what you wrote shows the commands"),
        (&["serve", "x"], "unexpected argument `x` found", "`toolgate --help` shows every option"),
        (
            &["--listen", "127.0.0.1:1", "version"],
            "these options belong to `toolgate serve`",
            "leave them out, or write the command's own options after it",
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
    insta::assert_snapshot!(run(&[], &[("TOOLGATE_LISTEN", "8787")], ""), @r#"
    2
    -- stdout

    -- stderr
    error: `listen` cannot be used: invalid socket address syntax (environment variable `TOOLGATE_LISTEN`)
    hint: give an address and a port, such as `127.0.0.1:8787`
    "#);
    insta::assert_snapshot!(run(&[], &[("TOOLGATE__LIMTS__BODY_BYTES", "1")], ""), @r#"
    2
    -- stdout

    -- stderr
    error: unknown setting `limts.body_bytes` (environment variable `TOOLGATE__LIMTS__BODY_BYTES`)
    hint: did you mean `limits.body_bytes`?
    "#);
    insta::assert_snapshot!(run(&[], &[("TOOLGATE_CONFIG", "/nowhere.toml")], ""), @r#"
    2
    -- stdout

    -- stderr
    error: cannot read the configuration `/nowhere.toml`: there is no such file
    hint: give a readable TOML file with `--config FILE`
    "#);
    insta::assert_snapshot!(run(&[], &[("RUST_LOG", "toolgate=loud")], ""), @r#"
    2
    -- stdout

    -- stderr
    error: `RUST_LOG` is not a log filter: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
    hint: such as `RUST_LOG=info,toolgate=debug`
    "#);
}

#[test]
fn a_taken_port_is_one_line_and_a_hint() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let next = format!("127.0.0.1:{}", taken.local_addr().expect("it is bound").port().saturating_add(1));
    let said =
        run(&["serve", "--listen", &address], &[], "").replace(&next, "NEXT").replace(&address, "ADDR");
    insta::assert_snapshot!(said, @r#"
    2
    -- stdout

    -- stderr
    error: ADDR is already in use
    hint: stop what listens there, or choose another port with `--listen NEXT`
    "#);
}

/// The first `number` lines on stderr of a gateway that is started and then ended.
fn greeting(arguments: &[&str], number: usize) -> Vec<String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_toolgate"))
        .args(arguments)
        .env_clear()
        .env("TOOLGATE_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let lines = stderr.lines().take(number).map(|line| line.expect("stderr is text")).collect();
    child.kill().expect("it runs until it is told to stop");
    child.wait().expect("it ends");
    lines
}

#[test]
fn the_first_lines_say_where_it_listens_and_what_to_try() {
    let lines = greeting(&[], 10);
    let port = lines[0].rsplit(':').next().unwrap_or_default();
    assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{lines:?}");
    assert!(lines[0].contains(" listens on http://127.0.0.1:"), "{lines:?}");
    assert!(lines[1].starts_with("local mode: ") && lines[2].starts_with("providers: "), "{lines:?}");
    for (line, server) in [(5, "demo/mcp"), (9, "demo/private/mcp")] {
        let start = format!("curl -N http://127.0.0.1:{port}/v1/chat/completions ");
        let named = format!("\"server_url\":\"http://127.0.0.1:{port}/{server}\"");
        assert!(lines[line].starts_with(&start) && lines[line].contains(&named), "{lines:?}");
    }
}

#[test]
fn the_tour_needs_nobody_to_log_in() {
    let said = run(&["demo"], &[], "");
    assert!(said.starts_with("0\n-- stdout\n") && said.ends_with("-- stderr\n"), "{said}");
    assert!(said.contains("You are a guest") && said.contains("That was the tour"), "{said}");
}

#[test]
fn with_json_logs_every_line_is_an_object() {
    for line in greeting(&["serve", "--log-format", "json"], 5) {
        let object: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
        assert_eq!(object["level"], "INFO", "{line}");
    }
}

#[tokio::test]
async fn a_second_process_on_one_directory_is_refused_and_told_who_has_it() {
    let place = Place::new().await;
    let program = Program::at(&place);
    let address = free_address();
    let mut running = program.serve(&place, address, "").await;
    let beside = program.run(&["key", "list"]).await;
    assert_eq!(beside.code, 0, "commands go beside it: {}", beside.stderr);
    if on_postgres() {
        return;
    }
    let second = program.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(second.code, 2);
    assert!(second.stderr.contains(&format!("the gateway at {address} (process ")), "{}", second.stderr);
    assert!(second.stderr.contains("--data DIR") && second.stderr.contains("store.url"), "{}", second.stderr);
    // A crash frees it, and so does the end of the one before, which is waited for.
    running.kill();
    let next = program.serve(&place, free_address(), "").await;
    assert_eq!(next.client.get("/readyz").await.status, 200);
    let waiting = program.serve(&place, free_address(), "");
    next.terminate();
    assert_eq!(waiting.await.client.get("/readyz").await.status, 200);
}
