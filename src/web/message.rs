//! Pages of a few words: what happened, and what to do next.

use askama::Template;

use super::frame::Frame;
use super::words;
use crate::bounds::LimitReached;

/// What a page says.
#[derive(Debug, Clone)]
pub(super) struct Message {
    title: String,
    /// One or two words above the title; may be empty.
    state: &'static str,
    tone: &'static str,
    paragraphs: Vec<String>,
    actions: Vec<Action>,
}

/// What was done too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Often {
    /// Pages, from one address.
    Pages,
    /// Sign-ins, from one address.
    SignIns,
    /// A link, by anybody.
    Link,
}

/// A button.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Link { path: String, words: String },
    Post { path: String, words: String, fields: Vec<(&'static str, String)>, quiet: bool },
}

#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct MessagePage {
    frame: Frame,
    title: String,
    state: &'static str,
    tone: &'static str,
    paragraphs: Vec<String>,
    actions: Vec<Action>,
}

impl Message {
    pub fn new(title: impl Into<String>, paragraphs: &[&str]) -> Self {
        Message {
            title: title.into(),
            state: "",
            tone: "",
            paragraphs: paragraphs.iter().map(|text| (*text).to_owned()).collect(),
            actions: Vec::new(),
        }
    }

    fn state(mut self, tone: &'static str, state: &'static str) -> Self {
        (self.tone, self.state) = (tone, state);
        self
    }

    pub fn with(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }

    pub fn template(self, frame: Frame) -> MessagePage {
        let Message { title, state, tone, paragraphs, actions } = self;
        MessagePage { frame, title, state, tone, paragraphs, actions }
    }

    // Runs

    /// `sign_in_for`: the run's id, for who may find it after signing in.
    pub fn unknown_run(sign_in_for: Option<&str>) -> Self {
        let words = "It may have been deleted, or it is private.";
        let message = Message::new("There is no such result", &[words]);
        match sign_in_for {
            Some(id) => message.with(Action::Link {
                path: format!("/login?return_to=/{id}"),
                words: "Sign in to see yours".to_owned(),
            }),
            None => message,
        }
    }

    /// A run for whose page there is no memory.
    pub fn run_too_large(id: &str) -> Self {
        let words = "It is large, and the gateway has no memory left for its page. Try again in a moment.";
        Message::new("This result cannot be shown now", &[words])
            .with(Action::Link { path: format!("/{id}.md"), words: "Read the text".to_owned() })
            .state("warn", "not shown")
    }

    pub fn not_your_run(id: &str) -> Self {
        Message::new("This result is not yours", &["You may read it; only its owner may change it."])
            .with(Action::Link { path: format!("/{id}"), words: "Back to the result".to_owned() })
    }

    pub fn still_running(id: &str) -> Self {
        Message::new("It does not stop yet", &["It was told to. Delete it when it has."])
            .with(Action::Link { path: format!("/{id}"), words: "Back to the result".to_owned() })
    }

    pub fn too_slow_form() -> Self {
        Message::new("This took too long", &["The form did not arrive in time. Go back and send it again."])
    }

    pub fn too_large_form() -> Self {
        Message::new(
            "This is too long",
            &["A page takes less text than this. Go back and shorten it, or send it from a program."],
        )
    }

    // Links

    pub fn unknown_link() -> Self {
        Message::new(
            "This link is not known",
            &[
                "It may have been cut off when it was copied, or it is long past.",
                "Go back to your application and ask again: it shows a new link.",
            ],
        )
        .state("warn", "not found")
    }

    /// A way back that is not known (any more): reloading the page after a login leads here, too.
    pub fn unknown_return() -> Self {
        Message::new(
            "This page works only once",
            &[
                "It brings you back from a login. Nothing was changed now.",
                "If you have just connected a server, it is among your connections. If not, go back to your application and ask again: it shows a new link.",
            ],
        )
        .state("warn", "used")
        .with(Action::Link { path: "/connections".to_owned(), words: "Connections".to_owned() })
    }

    pub fn expired(app: &str, host: &str) -> Self {
        Message::new(
            "This link has expired",
            &[
                &format!(
                    "Links to connect {} work for ten minutes. Nothing was connected.",
                    words::address(host)
                ),
                &format!("Go back to {} and ask again: it shows a new link.", words::line(app)),
            ],
        )
        .state("warn", "expired")
    }

    pub fn connected(app: &str, host: &str, account: Option<&str>, goes_on: bool) -> Self {
        let mut message = Message::new(
            format!("You have authorised {} for {}", words::address(host), words::line(app)),
            &[if goes_on { "The next server follows." } else { "You can close this page." }],
        )
        .state("good", "connected");
        if let Some(account) = account {
            message.paragraphs.insert(0, format!("Connected as {}.", words::line(account)));
        }
        message
    }

    pub fn already_connected(app: &str, host: &str) -> Self {
        Message::new(
            format!("{} is connected for {}", words::address(host), words::line(app)),
            &["This link has done its work and cannot be used again. You can close this page."],
        )
        .state("good", "used")
    }

    /// `had_it`: it was to do more than it could before.
    pub fn declined(app: &str, host: &str, had_it: bool) -> Self {
        let (host, app) = (words::address(host), words::sentence(app));
        let (title, so) = if had_it {
            (format!("Nothing was changed for {host}"), format!("{app} can do what it could before."))
        } else {
            (format!("{host} was not connected"), format!("{app} cannot use it in your name."))
        };
        Message::new(
            title,
            &[
                &format!("You declined. {so}"),
                "If that was a mistake, go back to the application and ask again: it shows a new link.",
            ],
        )
        .state("warn", "declined")
    }

    /// For who said no without having shown that it is theirs to say.
    pub fn left_alone(app: &str, host: &str, until: &str) -> Self {
        let (host, app) = (words::address(host), words::line(app));
        Message::new(
            format!("{host} was not connected"),
            &[
                &format!("You did not go on, so {app} got nothing from you. You can close this page."),
                &format!("This browser has not shown whose link it is. So the link stays for its owner, and ends {until}."),
            ],
        )
        .state("warn", "left")
    }

    pub fn being_connected(host: &str) -> Self {
        Message::new(
            format!("{} is being connected", words::address(host)),
            &["Somebody came back from it just now. Open this link again in a moment to see what came of it."],
        )
        .state("warn", "not finished")
    }

    pub fn wrong_person(host: &str, switch: Option<Action>) -> Self {
        let message = Message::new(
            "This link is not for you",
            &[
                &format!("It was made for somebody else, so {} was not connected.", words::address(host)),
                "If somebody sent it to you, tell them that such links cannot be passed on. If you have another account, sign in with that one.",
            ],
        )
        .state("bad", "refused");
        match switch {
            Some(action) => message.with(action),
            None => message,
        }
    }

    pub fn not_granted(app: &str, host: &str) -> Self {
        Message::new(
            format!("{} was not connected", words::address(host)),
            &[
                "You said no there, or the server does not grant this to you. Nothing was stored.",
                &format!("If you want to try again, go back to {}: it shows a new link.", words::line(app)),
            ],
        )
        .state("warn", "not granted")
    }

    pub fn no_cookie(again: Option<Action>) -> Self {
        let message = Message::new(
            "Please start again",
            &[
                "You came back in another browser than the one you left in, or your browser kept no cookie. Nothing was connected.",
                "Open the link from your application again, in one browser, with cookies allowed.",
            ],
        )
        .state("warn", "not finished");
        match again {
            Some(action) => message.with(action),
            None => message,
        }
    }

    pub fn other_account(host: &str, before: &str, now: &str) -> Self {
        Message::new(
            "Is this the right account?",
            &[
                &format!(
                    "Until now {} was connected as {}. You have just signed in there as {}.",
                    words::address(host),
                    words::line(before),
                    words::line(now)
                ),
                "Nothing is changed until you say so.",
            ],
        )
        .state("warn", "another account")
    }

    pub fn not_usable(host: &str, again: Option<Action>) -> Self {
        let message = Message::new(
            format!("{} cannot be connected now", words::address(host)),
            &["It gave no answer that can be trusted. Nothing was stored. Try again in a minute; if that does not help, tell whoever runs the gateway."],
        )
        .state("bad", "failed");
        match again {
            Some(action) => message.with(action),
            None => message,
        }
    }

    pub fn not_changed(host: &str) -> Self {
        Message::new(
            format!("{} cannot be reached now", words::line(host)),
            &["It gave no usable answer, so nothing was changed: your connection is as it was. Try again in a minute."],
        )
        .state("bad", "failed")
    }

    pub fn no_login(host: &str) -> Self {
        Message::new(
            format!("{} offers no such login", words::line(host)),
            &["So what it may do cannot be changed like that. Your connection is as it was: you can keep it, or disconnect it."],
        )
        .state("bad", "failed")
    }

    pub fn too_many_logins(host: &str) -> Self {
        Message::new(
            format!("Too many logins for {} are open", words::line(host)),
            &["Nothing was changed. Finish one of them, or wait ten minutes, then try again."],
        )
        .state("warn", "too many")
    }

    // Signing in

    pub fn sign_in_again(words: &str, return_to: &str) -> Self {
        Message::new("You are not signed in", &[words]).state("warn", "not signed in").with(Action::Link {
            path: format!("/login?return_to={return_to}"),
            words: "Try again".to_owned(),
        })
    }

    pub fn signed_out(everywhere: Option<u64>) -> Self {
        let words = match everywhere {
            Some(1) => "One session was ended. Your connections stay.".to_owned(),
            Some(count) => format!("{count} sessions were ended. Your connections stay."),
            None => "Your connections stay.".to_owned(),
        };
        Message::new("You are signed out", &[&words])
            .with(Action::Link { path: "/login".to_owned(), words: "Sign in".to_owned() })
    }

    // Everything else

    pub fn foreign_form() -> Self {
        Message::new(
            "Please go back and try again",
            &["What was sent did not come from a page that this browser got here, so nothing was done. Cookies must be allowed.", "If you have signed in or out since the page was loaded, reload it first."],
        )
        .state("bad", "refused")
    }

    pub fn unsafe_target() -> Self {
        Message::new(
            "This server cannot be connected",
            &["The address to go to is not a safe one (https). Tell whoever runs the server."],
        )
        .state("bad", "refused")
    }

    pub fn too_often(often: Often, seconds: u64) -> Self {
        let what = match often {
            Often::Pages => "Pages of this gateway were opened too often from your network.",
            Often::SignIns => "Too many sign-ins were begun from your network.",
            Often::Link => "This link was opened too often.",
        };
        let plural = if seconds == 1 { "" } else { "s" };
        Message::new(
            "Please wait a moment",
            &[what, &format!("Nothing was changed. Try again in {seconds} second{plural}.")],
        )
        .state("warn", "too often")
    }

    /// The page for a reader who holds as much as it may.
    pub fn limit_reached(reached: &LimitReached) -> Self {
        Message::new("Too much at once", &[&format!("There are {reached}.")]).state("warn", "too much")
    }

    /// For who looks without opening.
    pub fn not_opened() -> Self {
        Message::new(
            "This page was not opened yet",
            &["Something looked at it in advance, so nothing was done. Reload this page to go on."],
        )
        .state("warn", "not opened")
    }

    pub fn broken() -> Self {
        Message::new(
            "This did not work",
            &["The gateway cannot reach its own database. Try again in a minute."],
        )
        .state("bad", "failed")
    }
}
