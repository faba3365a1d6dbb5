//! Every page with the worst that a stranger could write, and, for looking at them, with ordinary texts: with
//! `TOOLGATE_PAGES_DIR` set, the latter are written there.

use super::account::{AccountPage, SessionRow};
use super::connect_page::*;
use super::connections_page::*;
use super::frame::{Frame, SignedIn};
use super::login::{Choice, SignInPage};
use super::message::{Action, Message, Often};
use super::{runs, words};
use askama::Template;

const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)>' \u{202e}{{ 7*7 }}<!--";

fn frame(text: &str) -> Frame {
    Frame { host: text.into(), csrf: text.into(), signed_in: Some(SignedIn { can_sign_out: true }) }
}

fn asked(text: Option<&str>) -> Asked {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    Asked {
        application: or("Acme Desk"),
        application_is_known: true,
        label: or("Files"),
        host: or("files.example.com"),
        resource: or("https://files.example.com/mcp"),
        scopes: words::scopes(&[or("openid"), or("offline_access"), or("files:read")]),
        sign_in: or("login.example.com"),
        sign_in_elsewhere: false,
        user: or("an…@example.com"),
        profile: text.map(str::to_owned),
        why: None,
        since: or("just now"),
        until: or("in 10 minutes"),
    }
}

fn connect(text: Option<&str>, step_to: Next, known: bool) -> String {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    let mut asked = asked(text);
    asked.application_is_known = known;
    if !known && text.is_none() {
        asked.application = "An unverified application with a key ending x7Qk".into();
        asked.label = "files.example.com".into();
        asked.scopes.clear();
        asked.why = Some("For what is asked now, the server wants more rights than you gave before.");
    }
    let signed_in = matches!(step_to, Next::Leave);
    ConnectPage {
        frame: Frame {
            signed_in: signed_in.then_some(SignedIn { can_sign_out: true }),
            ..frame(&or("tools.example.com"))
        },
        asked,
        step: known.then_some(Step { number: 2, of: 3 }),
        person: signed_in.then(|| or("anna@example.com")),
        step_to,
        path: or("/connect/flw_0123456789"),
        flow: or("flow_0123456789"),
        notice: None,
    }
    .render()
    .unwrap()
}

/// Names and scopes of the length that some really have.
fn long(text: Option<&str>) -> String {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    let host = format!("{}.cloud.example.com:8443", ["tenant-4711-production-eu-central-1"; 4].join("."));
    let scopes = [
        "https://www.googleapis.com/auth/calendar.readonly",
        "https://www.googleapis.com/auth/spreadsheets.currentonly.and.everything.below.it",
        "offline_access",
        "read:user",
        "urn:example:permission:files.metadata.read_write.all",
    ];
    let asked = Asked {
        application: or("Quarterly Reporting and Reconciliation Assistant for Finance Teams (staging)"),
        label: or("files-and-folders-of-the-finance-department"),
        resource: or(&format!("https://{host}/organizations/4711/workspaces/finance/servers/files/mcp")),
        host: or(&host),
        scopes: words::scopes(&scopes.map(or)),
        sign_in: or(&format!("login.{host}")),
        sign_in_elsewhere: true,
        profile: Some(or("finance-department")),
        ..asked(text)
    };
    ConnectPage {
        frame: frame(&or("toolgate.platform.internal.example.com:8443")),
        asked,
        step: None,
        person: Some(or("a.rather.long.name.of.a.person@subsidiary.example.com")),
        step_to: Next::Leave,
        path: or("/connect/flw_0123456789"),
        flow: or("flow_0123456789"),
        notice: None,
    }
    .render()
    .unwrap()
}

fn connection(text: Option<&str>, number: usize) -> ConnectionRow {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    let active = number == 0;
    ConnectionRow {
        id: or("con_0123456789"),
        namespace: or("project:desk"),
        host: or(if active {
            "files.example.com"
        } else {
            "a-rather-long-name-of-a-server.calendar.example.org"
        }),
        resource: or("https://files.example.com/mcp"),
        account: active.then(|| or("anna@example.com")),
        application: or("Acme Desk"),
        project: Some(or("desk")),
        profile: text.map(str::to_owned),
        scopes: words::scopes(&[or("openid"), or("files:read")]),
        account_text: or("ann@example.com"),
        scope_text: or("openid files:read"),
        used: or("2 hours ago"),
        tone: if active { "good" } else { "warn" },
        state: if active { "connected" } else { "needs you" },
        advice: (!active)
            .then(|| or("The server does not accept the login any more. The next request shows you a link.")),
        can_change: true,
    }
}

/// Every page by name. With `text` everywhere that a text from outside can stand.
fn pages(text: Option<&str>) -> Vec<(&'static str, String)> {
    let or = |ordinary: &str| text.unwrap_or(ordinary).to_owned();
    let out = Frame { signed_in: None, ..frame(&or("tools.example.com")) };
    let inside = frame(&or("tools.example.com"));
    let (app, host) = (or("Acme Desk"), or("files.example.com"));
    let post = |words: &str, quiet| Action::Post {
        path: "/logout".into(),
        words: words.into(),
        fields: vec![("return_to", or("/connect/flw_0123456789"))],
        quiet,
    };
    let message = |message: Message| message.template(out.clone()).render().unwrap();
    let batch = |done: usize| BatchPage {
        frame: inside.clone(),
        application: app.clone(),
        application_is_known: true,
        rows: ["files.example.com", "calendar.example.org", "tickets.example.net"]
            .iter()
            .enumerate()
            .map(|(number, host)| BatchRow {
                host: or(host),
                label: or(host),
                tone: if number < done { "good" } else { "" },
                state: if number < done { "connected" } else { "to do" },
            })
            .collect(),
        done,
        all_connected: done == 3,
        total: 3,
        next: (done < 3).then(|| NextServer { host: or("calendar.example.org"), path: or("/connect/flw_1") }),
    };
    let sign_in = |number: usize| SignInPage {
        frame: out.clone(),
        providers: [("google", "Google"), ("github", "GitHub"), ("company", "Company account")][..number]
            .iter()
            .map(|(name, title)| Choice { name: or(name), title: or(title) })
            .collect(),
        return_to: or("/account"),
        another: false,
        why: "Before a server is connected, this gateway must know that it is you.",
    };
    let account = |local: bool| AccountPage {
        frame: Frame { signed_in: Some(SignedIn { can_sign_out: !local }), ..inside.clone() },
        local,
        label: or(if local { "You, on this machine" } else { "anna@example.com" }),
        provider: or("Google"),
        ids: vec![
            or(if local { "local" } else { "acct_0k3v9c2m8r5t1x7z4b6n0q2w5e" }),
            or("google:108439201938475610293"),
        ],
        sessions: vec![
            SessionRow {
                id: or("s1"),
                agent: or("Firefox on Linux"),
                since: or("3 days ago"),
                used: or("just now"),
                is_this: true,
            },
            SessionRow {
                id: or("s2"),
                agent: or("Safari on iPhone"),
                since: or("20 days ago"),
                used: or("9 hours ago"),
                is_this: false,
            },
        ],
    };
    let connections = |count: usize| ConnectionsPage {
        frame: inside.clone(),
        rows: (0..count).map(|number| connection(text, number)).collect(),
        notice: (count > 0).then(|| Notice {
            tone: "good",
            words: or("Disconnected: tickets.example.net has revoked the access."),
        }),
    };
    vec![
        ("connect-sign-in", connect(text, Next::SignIn, true)),
        ("connect", connect(text, Next::Leave, true)),
        ("connect-unverified", connect(text, Next::Leave, false)),
        ("connect-app", connect(text, Next::App, true)),
        ("connect-long", long(text)),
        ("batch", batch(1).render().unwrap()),
        ("batch-done", batch(3).render().unwrap()),
        (
            "leaving",
            super::site::preview_of_leaving(
                inside.clone(),
                &or("login.example.com"),
                &or("https://login.example.com/authorize?x=1"),
            ),
        ),
        ("sign-in", sign_in(3).render().unwrap()),
        ("sign-in-none", sign_in(0).render().unwrap()),
        ("account", account(false).render().unwrap()),
        ("account-local", account(true).render().unwrap()),
        ("connections", connections(2).render().unwrap()),
        ("connections-none", connections(0).render().unwrap()),
        ("connected", message(Message::connected(&app, &host, Some(&or("anna@example.com")), false))),
        ("already-connected", message(Message::already_connected(&app, &host))),
        ("declined", message(Message::declined(&app, &host, false))),
        ("declined-more", message(Message::declined(&app, &host, true))),
        ("too-often", message(Message::too_often(Often::Link, 12))),
        ("not-opened", message(Message::not_opened())),
        ("expired", message(Message::expired(&app, &host))),
        ("unknown-link", message(Message::unknown_link())),
        ("unknown-return", message(Message::unknown_return())),
        (
            "wrong-person",
            message(Message::wrong_person(&host, Some(post("Sign in with another account", true)))),
        ),
        ("not-granted", message(Message::not_granted(&app, &host))),
        (
            "other-account",
            message(
                Message::other_account(&host, &or("anna@example.com"), &or("bob@example.com"))
                    .with(post("Use this account", false))
                    .with(post("Do not use it", true)),
            ),
        ),
        ("no-cookie", message(Message::no_cookie(None))),
        ("not-usable", message(Message::not_usable(&host, Some(post("Start again", false))))),
        (
            "sign-in-again",
            message(Message::sign_in_again("This sign-in was not begun in this browser.", "/account")),
        ),
        ("signed-out", message(Message::signed_out(Some(2)))),
        ("foreign-form", message(Message::foreign_form())),
        ("too-large-form", message(Message::too_large_form())),
        ("unknown-run", message(Message::unknown_run(Some(&or("run_0123456789"))))),
        ("not-your-run", message(Message::not_your_run(&or("run_0123456789")))),
        ("still-running", message(Message::still_running(&or("run_0123456789")))),
        ("unsafe-target", message(Message::unsafe_target())),
        ("broken", message(Message::broken())),
    ]
}

/// Those of runs too, whose script is the only thing they load besides.
fn all(text: Option<&str>) -> Vec<(&'static str, String)> {
    let frame = frame(text.unwrap_or("tools.example.com"));
    pages(text).into_iter().chain(runs::preview::pages(text, &frame)).collect()
}

fn without_own_scripts(page: &str) -> String {
    ["/static/run.js", "/static/try.js"].iter().fold(page.to_owned(), |page, script| {
        page.replace(&format!("<script src=\"{script}\" defer></script>"), "")
    })
}

#[test]
fn nothing_that_a_stranger_writes_becomes_markup() {
    for (name, page) in all(Some(HOSTILE)) {
        let page = without_own_scripts(&page).to_ascii_lowercase();
        assert!(page.starts_with("<!doctype html>"), "{name}");
        assert!(
            !page.contains("<script") && !page.contains("<img") && !page.contains("<!--"),
            "{name}: {page}"
        );
        // What a quote would end: every attribute is in double quotes, and none of ours holds a raw one.
        assert!(!page.contains("onerror=alert(1)>'"), "{name}");
    }
}

#[test]
fn pages_need_no_scripts_and_load_nothing_from_elsewhere() {
    let directory = crate::config::Environment::of_process();
    let directory = directory.get("TOOLGATE_PAGES_DIR").map(std::path::PathBuf::from);
    for (name, whole) in all(None) {
        let page = without_own_scripts(&whole);
        assert!(
            !page.contains("<script") && !page.contains("javascript:") && !page.contains(" style="),
            "{name}"
        );
        assert!(!page.contains(" onclick") && !page.contains(" onload"), "{name}");
        for source in
            page.split("src=\"").skip(1).chain(page.split("<link rel=\"stylesheet\" href=\"").skip(1))
        {
            assert!(source.starts_with("/static/"), "{name}");
        }
        assert_eq!(page.matches("<h1").count(), 1, "{name} has one heading");
        if let Some(directory) = &directory {
            std::fs::write(directory.join(format!("{name}.html")), whole).unwrap();
        }
    }
}
