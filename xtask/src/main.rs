//! The project's own commands: `cargo xtask test`, `setup`, `bench`, `soak`. The standard library only, so that it builds in
//! seconds and needs nothing that it would have to install first.

#![expect(clippy::print_stdout, reason = "a developer's tool talks to its terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "the gateway's rules on environment and clock are not for its tools"
)]

mod bench;
mod count;
mod place;
mod postgres;
mod process;
mod setup;
mod soak;
mod stages;
mod suites;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask test         everything that must hold; installs what is missing and says so
cargo xtask test fast    formatting, lints, unit and integration tests
cargo xtask test postgres
                         only the integration tests on PostgreSQL
cargo xtask test attack  only the attacks: small sizes of what `cargo xtask soak` does for long
cargo xtask setup        only install what the tests need
cargo xtask bench [NAME…] [--quick]
                         measure against nginx and write docs/operations/performance.md
cargo xtask soak [MINUTES]
                         kill, stop, fill the disk, take the database away and flood, for 20 minutes or so many in
                         all, on both databases; fails when a run is lost, a tool runs twice or memory grows";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["test"] => stages::everything(),
        ["test", "fast"] => stages::fast(),
        ["test", "postgres"] => stages::postgres(),
        ["test", "attack"] => stages::attack(),
        ["setup"] => setup::only(),
        ["bench", rest @ ..] => bench::run(rest),
        ["soak"] => soak::run(20),
        ["soak", minutes] if minutes.parse().is_ok_and(|minutes: u64| minutes > 0) => {
            soak::run(minutes.parse().unwrap_or(20))
        }
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            println!("error: unknown command `{}`\n\n{HELP}", arguments.join(" "));
            ExitCode::from(2)
        }
    }
}
