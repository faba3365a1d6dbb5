//! Measures the gateway: a load generator, a fast mock provider, a fast mock MCP server, and a bare proxy to compare
//! with. `cargo xtask bench` starts it; nothing there is a test, and no test here looks at a clock. `cargo xtask soak`
//! starts the other half, which breaks what it can and counts what was lost.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measuring tool talks to its terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "the gateway's rules on clocks and connections are not for its tools"
)]

mod browser;
mod load;
mod machine;
mod measures;
mod peers;
mod process;
mod report;
mod soak;
mod stand;

use std::process::ExitCode;

const HELP: &str = "\
toolgate-bench run [NAME…] --toolgate PROGRAM [--report FILE] [--postgres URL] [--quick] [--references-only]
toolgate-bench soak [MINUTES] --toolgate PROGRAM [--postgres URL]
toolgate-bench provider PORT | mcp PORT | protected PORT | proxy PORT PROVIDER_PORT";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["run", rest @ ..] => measures::Options::read(rest).and_then(|options| measures::run(&options)),
        ["soak", rest @ ..] => soak::Options::read(rest).and_then(|options| soak::run(&options)),
        ["provider", port] => number(port).and_then(peers::provider::serve),
        ["mcp", port] => number(port).and_then(peers::mcp::serve),
        ["protected", port] => number(port).and_then(peers::protected::serve),
        ["proxy", port, provider] => {
            number(port).and_then(|port| peers::proxy::serve(port, number(provider)?))
        }
        _ => Err(HELP.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` is no port"))
}
