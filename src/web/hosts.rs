//! Whether two hosts are plainly one site's, as far as their names tell.
//!
//! It decides about a word of warning only: the host where one signs in is always named. So there is no list of all
//! public suffixes here; where a name may be anybody's, the hosts count as two sites.

use std::net::IpAddr;

/// Names below which everybody can have one of their own, at whatever depth: nothing below them is a site but itself.
/// Those of countries are recognised by their form.
const SHARED: &[&str] = &[
    "amazonaws.com",
    "appspot.com",
    "auth0.com",
    "azurecontainerapps.io",
    "azurewebsites.net",
    "cloudapp.net",
    "cloudfront.net",
    "deno.dev",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "hf.space",
    "modal.run",
    "myshopify.com",
    "netlify.app",
    "ngrok-free.app",
    "ngrok.app",
    "ngrok.io",
    "okta.com",
    "on.aws",
    "onrender.com",
    "pages.dev",
    "railway.app",
    "replit.app",
    "run.app",
    "supabase.co",
    "trycloudflare.com",
    "vercel.app",
    "web.app",
    "windows.net",
    "workers.dev",
];

/// Second-level names of countries' registries: `co.uk`, `com.au`.
const OF_COUNTRIES: &[&str] = &[
    "ac", "co", "com", "edu", "go", "gob", "gov", "gouv", "govt", "gv", "mil", "ne", "net", "nom", "or",
    "org",
];

/// Whether two hosts, with or without a port, are one site's.
pub(super) fn are_one_site(one: &str, other: &str) -> bool {
    let (one, other) = (name(one), name(other));
    !one.is_empty() && (one == other || site(&one).is_some_and(|first| Some(first) == site(&other)))
}

fn name(host: &str) -> String {
    let has_port = host.rsplit_once(':').filter(|(before, port)| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && (!before.contains(':') || before.ends_with(']'))
    });
    has_port.map_or(host, |(before, _)| before).trim_end_matches('.').to_ascii_lowercase()
}

/// The part of a name that somebody has registered; `None` for addresses, for what is too short, and where only the whole
/// name says whose it is.
fn site(name: &str) -> Option<&str> {
    if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return None;
    }
    let last = |count: usize| {
        let start = name.rmatch_indices('.').nth(count - 1).map_or(0, |(at, _)| at + 1);
        (name.matches('.').count() + 1 >= count).then(|| &name[start..])
    };
    let two = last(2)?;
    let (second, top) = two.split_once('.')?;
    if SHARED.contains(&two) {
        return None;
    }
    let is_of_country = top.len() == 2 && OF_COUNTRIES.contains(&second);
    if is_of_country { last(3) } else { Some(two) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_one_registered_name_are_one_site() {
        for (one, other) in [
            ("files.example.com", "files.example.com"),
            ("files.example.com", "FILES.example.com.:443"),
            ("mcp.example.com", "login.example.com"),
            ("example.com", "auth.login.example.com"),
            ("mcp.example.co.uk", "example.co.uk"),
            ("b.github.io", "B.github.io:443"),
            ("127.0.0.1:8000", "127.0.0.1:9000"),
            ("[::1]:8000", "[::1]"),
            ("localhost:1", "localhost:2"),
        ] {
            assert!(are_one_site(one, other) && are_one_site(other, one), "{one} {other}");
        }
    }

    #[test]
    fn hosts_that_may_be_anybodys_are_two() {
        for (one, other) in [
            ("files.example.com", "files.example.org"),
            ("files.example.com", "example.com.evil.example"),
            ("notexample.com", "example.com"),
            ("a.github.io", "b.github.io"),
            ("a.b.github.io", "b.github.io"),
            ("files-uc.a.run.app", "login-uc.a.run.app"),
            ("one.execute-api.us-east-1.amazonaws.com", "two.execute-api.us-east-1.amazonaws.com"),
            ("one.lambda-url.us-east-1.on.aws", "two.lambda-url.us-east-1.on.aws"),
            ("one.blue.eastus.azurecontainerapps.io", "two.red.eastus.azurecontainerapps.io"),
            ("one.blob.core.windows.net", "two.blob.core.windows.net"),
            ("one.ngrok-free.app", "two.ngrok-free.app"),
            ("one.trycloudflare.com", "two.trycloudflare.com"),
            ("one.myshopify.com", "two.myshopify.com"),
            ("one.auth0.com", "two.auth0.com"),
            ("one.co.uk", "two.co.uk"),
            ("co.uk", "one.co.uk"),
            ("127.0.0.1", "127.0.0.2"),
            ("10.0.0.1", "192.168.0.1"),
            ("localhost", "127.0.0.1"),
            ("com", "example.com"),
            ("", ""),
        ] {
            assert!(!are_one_site(one, other) && !are_one_site(other, one), "{one} {other}");
        }
    }
}
