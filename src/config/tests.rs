//! What can be written in the file and the environment, and what is said about mistakes.

use std::path::PathBuf;

use super::*;

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// A file with this text, gone when the value is dropped.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(crate::id::random_id("toolgate-config-"));
        std::fs::write(&path, text).expect("the temporary directory is writable");
        File(path)
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Settings, Error> {
    load(Some(&File::new(text).0), &variables.iter().copied().collect(), &[])
}

/// The error and its hint, with the file's name made short.
fn report(text: &str, variables: &[(&str, &str)]) -> String {
    let file = File::new(text);
    let error = load(Some(&file.0), &variables.iter().copied().collect(), &[]).expect_err("they are wrong");
    format!("{error} | {}", error.hint().unwrap_or_default()).replace(&file.name(), "FILE")
}

/// All settings as one comparable text.
fn shown(settings: &Settings) -> String {
    format!("{settings:#?}")
}

/// The example with the marks removed from the lines that are settings, without its sample entries when `plain`.
fn uncommented(plain: bool) -> String {
    let mut sample = false;
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        let setting = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && !rest.is_empty());
        sample = sample && !line.is_empty() || line.starts_with("#[[");
        let has_no_default =
            ["data =", "public_url =", "fast =", "url =", "file =", "client_metadata_url =", "enabled ="]
                .iter()
                .any(|start| setting.is_some_and(|setting| setting.starts_with(start)));
        if !plain || !(sample || has_no_default) {
            text.push_str(setting.unwrap_or(line));
            text.push('\n');
        }
    }
    text
}

#[test]
fn without_anything_the_defaults_hold() {
    let settings = load(None, &Environment::default(), &[]).expect("the defaults are valid");
    assert_eq!(shown(&settings), shown(&Settings::default()));
}

#[test]
fn the_example_shows_the_defaults() {
    let as_it_is = load_text(EXAMPLE, &[]).expect("the example is valid");
    assert_eq!(shown(&as_it_is), shown(&Settings::default()));
    let plain = load_text(&uncommented(true), &[]).expect("the uncommented example is valid");
    assert_eq!(shown(&plain), shown(&Settings::default()));
}

#[test]
fn the_example_shows_every_setting() {
    let text = uncommented(false);
    load_text(&text, &[]).expect("every sample value of the example is valid");
    let root = node::parse_file(std::path::Path::new("example"), &text).expect("the example is TOML");
    // The three ways to give a key exclude each other; the comment shows the other two.
    let shown = |path: &str| {
        let at = path.split('.').try_fold(&root, |node, key| node.entry(key));
        at.is_some() || EXAMPLE.contains(&format!("`{} = ", path.rsplit('.').next().unwrap_or_default()))
    };
    let settings = schema::all();
    assert!(settings.len() > 60 && settings.contains(&"providers.0.quirks.max_tools".to_owned()));
    let missing: Vec<_> = settings.iter().filter(|path| !shown(path)).collect();
    assert!(missing.is_empty(), "config.example.toml does not show {missing:?}");
}

#[test]
fn the_environment_wins_over_the_file_and_options_over_both() {
    let file = File::new("listen = \"127.0.0.1:1\"\n[mcp]\nlist_seconds = 1\n[limits]\nbody_bytes = 7\n");
    let variables =
        [("TOOLGATE__LISTEN", "127.0.0.1:2"), ("TOOLGATE__MCP__LIST_SECONDS", "2"), ("OTHER", "x")];
    let given =
        Override { path: "listen", text: "127.0.0.1:3".to_owned(), origin: Origin::Option("--listen") };
    let settings = load(Some(&file.0), &variables.into_iter().collect(), &[given]).expect("valid");
    assert_eq!(settings.listen.port(), 3);
    assert_eq!(settings.mcp.list_seconds, 2);
    assert_eq!(settings.limits.body_bytes, 7);
}

#[test]
fn every_kind_of_setting_can_stand_in_the_environment() {
    let key_file = File::new("secret of the file\n");
    let key_file = key_file.name();
    let settings = load_text(
        "[[providers]]\nname = \"first\"\napi_key = \"one\"\n",
        &[
            ("TOOLGATE__PASS_THROUGH__ENABLED", "false"),
            ("TOOLGATE__ANY_HOST__MODE", "listed"),
            ("TOOLGATE__ANY_HOST__HOSTS", "[\"a.example\", \"b.example\"]"),
            ("TOOLGATE__EGRESS__ALLOW", "[{ host = \"x\", cidr = \"10.0.0.0/8\", ports = [1] }]"),
            ("TOOLGATE__ALIASES__FAST", "first/model"),
            ("TOOLGATE__UPSTREAM", "{\"max_retries\": 5}"),
            ("TOOLGATE__UPSTREAM__IDLE_SECONDS", "6"),
            ("TOOLGATE__PROVIDERS__0__API_KEY", "12345"),
            ("TOOLGATE__PROVIDERS__0__MODELS", "list"),
            ("TOOLGATE__PROVIDERS__1__NAME", "second"),
            ("TOOLGATE__PROVIDERS__1__API_KEY_FILE", &key_file),
            ("TOOLGATE__PROVIDERS__1__MODELS", "[\"m\"]"),
            ("TOOLGATE__PROVIDERS__1__QUIRKS__MAX_TOOLS", "64"),
            ("TOOLGATE__PROVIDERS__1__QUIRKS__IMAGES", "none"),
            ("TOOLGATE__PUBLIC_URL", ""),
        ],
    )
    .expect("valid");
    assert_eq!(settings.pass_through.enabled, Some(false));
    assert_eq!(settings.any_host.hosts, ["a.example", "b.example"]);
    assert_eq!(settings.egress.allow[0].ports, [1]);
    assert_eq!(settings.aliases["fast"], "first/model");
    assert_eq!((settings.upstream.max_retries, settings.upstream.idle_seconds), (5, 6));
    let [first, second] = &settings.providers[..] else { panic!("two providers") };
    assert_eq!(first.api_key.as_ref().map(Secret::expose), Some("12345"), "a text stays a text");
    assert_eq!(first.models, Some(Models::Ask(AskForModels::List)));
    assert_eq!(second.api_key_file.as_deref(), Some(std::path::Path::new(&key_file)));
    assert_eq!(second.models, Some(Models::These(vec!["m".to_owned()])));
    assert_eq!(second.quirks.max_tools, Some(64));
    assert_eq!(settings.public_url, None, "an empty variable counts as not set");
}

#[test]
fn a_list_from_the_environment_may_have_more_than_ten_items() {
    let variables: Vec<(String, String)> =
        (0..12).map(|n| (format!("TOOLGATE__PROVIDERS__{n}__NAME"), format!("p{n}"))).collect();
    let settings = load(None, &variables.into_iter().collect(), &[]).expect("valid");
    assert_eq!(settings.providers.len(), 12);
    assert_eq!(settings.providers[11].name, "p11");
}

#[test]
fn any_setting_can_be_read_from_a_file_that_a_variable_names() {
    let file = File::new("https://tools.example.com\n");
    let settings = load_text("", &[("TOOLGATE__PUBLIC_URL_FILE", &file.name())]).expect("valid");
    assert_eq!(settings.public_url.as_deref(), Some("https://tools.example.com"));
    assert_eq!(
        report("", &[("TOOLGATE__PUBLIC_URL_FILE", "/nowhere")]),
        "`public_url` cannot be read from `/nowhere`: there is no such file \
         (environment variable `TOOLGATE__PUBLIC_URL_FILE`) | "
    );
}

#[test]
fn unknown_settings_are_named_with_the_nearest_one() {
    for (text, variables, expect) in [
        (
            "\n[limts]\nbody_bytes = 1",
            &[][..],
            "unknown setting `limts.body_bytes` (FILE, line 2) | did you mean `limits.body_bytes`?",
        ),
        (
            "[limits]\n\nbody_byte = 1",
            &[],
            "unknown setting `limits.body_byte` (FILE, line 3) | did you mean `limits.body_bytes`?",
        ),
        ("max_turns = 1", &[], "unknown setting `max_turns` (FILE, line 1) | did you mean `run.max_turns`?"),
        (
            "[[providers]]\nname = \"a\"\n[[providers]]\nname = \"b\"\napi_kye = \"secret\"",
            &[],
            "unknown setting `providers.1.api_kye` (FILE, line 5) | did you mean `providers.1.api_key`?",
        ),
        (
            "",
            &[("TOOLGATE__MCP__LIST_SECOND", "1")],
            "unknown setting `mcp.list_second` (environment variable `TOOLGATE__MCP__LIST_SECOND`) | \
             did you mean `mcp.list_seconds`?",
        ),
        ("[log]\ncolour = 1", &[], "unknown setting `log.colour` (FILE, line 2) | there is `format`"),
    ] {
        assert_eq!(report(text, variables), expect);
    }
}

#[test]
fn wrong_values_are_named_without_being_repeated() {
    for (text, variables, expect) in [
        (
            "listen = 8787",
            &[][..],
            "`listen` must be an address and a port, not a number (FILE, line 1) | \
             give an address and a port, such as `127.0.0.1:8787`",
        ),
        (
            "[[providers]]\nname = \"a\"\napi_key = 123456",
            &[],
            "`providers.0.api_key` must be a text, not a number (FILE, line 3) | ",
        ),
        (
            "[limits]\nbody_bytes = -1",
            &[],
            "`limits.body_bytes` must be a whole number, zero or more (FILE, line 2) | ",
        ),
        (
            "",
            &[("TOOLGATE__PASS_THROUGH__ENABLED", "maybe")],
            "`pass_through.enabled` must be true or false, not a text \
             (environment variable `TOOLGATE__PASS_THROUGH__ENABLED`) | ",
        ),
        (
            "",
            &[("TOOLGATE__ANY_HOST__HOSTS", "a.example,b.example")],
            "`any_host.hosts` must be a list, not a text (environment variable `TOOLGATE__ANY_HOST__HOSTS`) | \
             write a list as `[\"a\", \"b\"]`",
        ),
        (
            "[log]\nformat = \"xml\"",
            &[],
            "`log.format` cannot be `xml` (FILE, line 2) | it is one of `text` or `json`",
        ),
        ("[[api_keys]]\nname = \"a\"", &[], "`api_keys.0.hash` is missing (FILE, line 1) | "),
        (
            "[[providers]]\nname = \"a\"\nmodels = \"lst\"",
            &[],
            "`providers.0.models` cannot be used: it must be `list` or a list of model names (FILE, line 3) | ",
        ),
        (
            "",
            &[("TOOLGATE__PROVIDERS__1__NAME", "x")],
            "`providers.1.name` leaves a gap: there is no item 0 \
             (environment variable `TOOLGATE__PROVIDERS__1__NAME`) | items of a list are numbered from 0 without gaps",
        ),
        (
            "a = 1\nb = [",
            &[],
            "FILE, line 2, column 6: unclosed array, expected `]` | \
             the file must be TOML; `config.example.toml` shows every setting",
        ),
    ] {
        assert_eq!(report(text, variables), expect);
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let zeros = "0".repeat(64);
    let twice = format!("[[api_keys]]\nname = \"a\"\nhash = \"sha256:{zeros}\"\n");
    let twice = format!("{twice}{}", twice.replace("\"a\"", "\"b\""));
    for (text, path) in [
        ("public_url = \"http://tools.example.com\"", "`public_url` must begin with https://"),
        ("public_url = \"tools.example.com\"", "`public_url` is not an address"),
        ("public_url = \"https://a:b@example.com\"", "`public_url` must not carry"),
        ("public_url = \"https://example.com/x\"", "`public_url` must have no path"),
        ("[[providers]]\nname = \"a/b\"", "`providers.0.name` must be"),
        ("[[providers]]\napi_key = \"a\"", "`providers.0.name` is missing"),
        (
            "[[providers]]\nname = \"a\"\n[[providers]]\nname = \"a\"",
            "`providers.1.name` `a` is given to two",
        ),
        ("[[providers]]\nname = \"a\"\nbase_url = \"ftp://x\"", "`providers.0.base_url` must begin"),
        (
            "[[providers]]\nname = \"a\"\nbase_url = \"http://x/v1/chat/completions\"",
            "`providers.0.base_url` must end",
        ),
        (
            "[[providers]]\nname = \"a\"\napi_key = \"a\"\napi_key_env = \"B\"",
            "`providers.0.api_key_env` contradicts",
        ),
        ("[[providers]]\nname = \"a\"\napi_key = \"a b\"", "`providers.0.api_key` must be one line"),
        ("[[api_keys]]\nname = \"a\"\nhash = \"tgk_secret\"", "`api_keys.0.hash` must begin with `sha256:`"),
        (&twice, "`api_keys.1.hash` is the same"),
        ("[any_host]\nhosts = [\"a.example\"]", "`any_host.hosts` has no effect"),
        (
            "[any_host]\nmode = \"listed\"\nhosts = [\"https://a.example\"]",
            "`any_host.hosts.0` must be a host",
        ),
        ("[[egress.allow]]\nports = [80]", "`egress.allow.0` would allow every address"),
        ("[aliases]\nfast = \"\"", "`aliases.fast` must name another"),
        ("[run]\nmax_turns = 0", "`run.max_turns` must be at least 1"),
        ("[limits]\nmemory_bytes = 1", "`limits.memory_bytes` must be 0 (no limit) or at least 4194304"),
        ("[run]\nmax_turns = 200", "`run.max_turns` must be at most `run.max_turns_cap`"),
        ("[run]\nmax_seconds = 99999999999", "`run.max_seconds` must be at most a year"),
        ("[upstream]\nretry_budget_percent = 101", "`upstream.retry_budget_percent` must be at most 100"),
        (
            "[store]\nurl = \"mysql://u:secret@h/d\"",
            "`store.url` must be an address that begins with postgres://",
        ),
        (
            "[[sign_in]]\nname = \"forum\"\nissuer = \"https://f.example\"\nclient_id = \"a\"\noauth2.token_endpoint = \"https://f.example/t\"",
            "`sign_in.0.oauth2.authorization_endpoint` is missing",
        ),
        (
            "[[sign_in]]\nname = \"github\"\nclient_id = \"a\"\noauth2.subject = \"id\"",
            "`sign_in.0.oauth2` contradicts the name",
        ),
        ("[[oauth_clients]]\nclient_id = \"a\"", "`oauth_clients.0.issuer` is missing"),
        (
            "[[oauth_clients]]\nissuer = \"http://idp.example\"",
            "`oauth_clients.0.issuer` must begin with https://",
        ),
        ("[[oauth_clients]]\nissuer = \"https://idp.example\"", "`oauth_clients.0.client_id` is missing"),
        (
            "[[oauth_clients]]\nissuer = \"https://idp.example\"\nclient_id = \"a\\r\\nb\"",
            "`oauth_clients.0.client_id` must be one line",
        ),
        (
            "[[oauth_clients]]\nissuer = \"https://idp.example\"\nclient_id = \"a\"",
            "`oauth_clients.0.resources` is missing",
        ),
        (
            "[[oauth_clients]]\nissuer = \"https://idp.example\"\nclient_id = \"a\"\nresources = [\"*\"]",
            "`oauth_clients.0.resources.0` must be a host name alone",
        ),
        (
            "[[oauth_clients]]\nissuer = \"https://a.example\"\nclient_id = \"a\"\nresources = [\"a.example\"]\n[[oauth_clients]]\nissuer = \"https://a.example\"\nclient_id = \"b\"\nresources = [\"a.example\"]",
            "`oauth_clients.1.issuer` is given to two",
        ),
        ("[[oauth_quirks]]\nassume_s256 = true", "`oauth_quirks.0` applies to no server"),
        ("[[oauth_quirks]]\nissuers = [\"https://a.example\"]", "`oauth_quirks.0.issuers.0` must be a host"),
        ("[[oauth_quirks]]\nresources = [\"*\"]", "`oauth_quirks.0.resources.0` must be a host"),
        (
            "[[oauth_quirks]]\nissuers = [\"a.example\"]\nendpoints.authorization = \"javascript:x\"",
            "`oauth_quirks.0.endpoints.authorization` must begin",
        ),
        (
            "[connections]\nclient_metadata_url = \"http://a.example/x\"",
            "`connections.client_metadata_url` must begin with https://",
        ),
        ("[[api_keys]]\nname = \"a\"\nscopes = [\"all\"]", "`api_keys.0.scopes.0` cannot be `all`"),
    ] {
        let report = report(text, &[]);
        assert!(report.starts_with(path) && report.contains("(FILE, line "), "{text}\n{report}");
        assert!(!report.contains("secret"), "{report}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let missing =
        load(Some(std::path::Path::new("/nowhere.toml")), &Environment::default(), &[]).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read the configuration `/nowhere.toml`: there is no such file");
    let directory = load(Some(&std::env::temp_dir()), &Environment::default(), &[]).unwrap_err();
    assert!(directory.to_string().ends_with("it is a directory"), "{directory}");
    let huge = load_text(&"#".repeat(5 << 20), &[]).unwrap_err();
    assert!(huge.to_string().contains("larger than"), "{huge}");
}

#[test]
fn a_public_address_ends_local_mode() {
    for (text, local) in [
        ("", true),
        ("public_url = \"http://localhost:9\"", true),
        ("public_url = \"http://[::1]:9\"", true),
        ("public_url = \"https://tools.example.com\"", false),
        ("listen = \"0.0.0.0:80\"", false),
    ] {
        assert_eq!(load_text(text, &[]).expect("valid").is_local(), local, "{text}");
    }
}

#[test]
fn secrets_and_the_environment_are_not_shown() {
    let environment: Environment = [("OPENAI_API_KEY", "sk-secret")].into_iter().collect();
    assert_eq!(format!("{environment:?}"), "Environment(1 variables)");
    let settings = load_text("[[providers]]\nname = \"a\"\napi_key = \"sk-secret\"", &[]).expect("valid");
    assert!(!shown(&settings).contains("sk-secret"));
}

#[test]
fn data_is_kept_where_the_platform_keeps_it() {
    let home: Environment = [("HOME", "/home/me"), ("LOCALAPPDATA", "/home/me")].into_iter().collect();
    let found = Settings::default().data_directory(&home).expect("there is a home");
    assert!(found.starts_with("/home/me") && found.ends_with("toolgate"), "{}", found.display());
    let given = load_text("data = \"/srv/x\"", &[]).expect("valid");
    assert_eq!(given.data_directory(&home), Some(PathBuf::from("/srv/x")));
    assert_eq!(Settings::default().data_directory(&Environment::default()), None);
}

#[test]
fn a_client_has_one_secret_and_has_it_where_it_needs_it() {
    for (text, path) in [
        (
            "[[oauth_clients]]\nissuer = \"https://idp.example\"\nclient_id = \"a\"\nresources = [\"a.example\"]\nauth_method = \"client_secret_post\"",
            "`oauth_clients.0.auth_method` needs a secret",
        ),
        (
            "[[oauth_clients]]\nissuer = \"https://idp.example\"\nclient_id = \"a\"\nresources = [\"a.example\"]\nclient_secret = \"s\"\nclient_secret_env = \"S\"",
            "`oauth_clients.0.client_secret_env` contradicts",
        ),
    ] {
        let report = report(text, &[]);
        assert!(report.starts_with(path) && report.contains("(FILE, line "), "{text}\n{report}");
    }
}
