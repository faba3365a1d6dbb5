//! What a person sees of the authorization server: plain HTML, no script, nothing loaded from elsewhere.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use url::Url;

use super::authorize::MAX_NAME;
use super::memory::Asked;

const STYLE: &str = include_str!("../../../static/demo.css");

/// Who asks, and who one wants to be. `note` says why the page is shown again.
pub fn login(status: StatusCode, asked: &Asked, id: &str, note: Option<&str>) -> Response {
    let back = Url::parse(&asked.redirect_uri).ok();
    let origin = back.as_ref().map(|url| url.origin().ascii_serialization());
    let back = back.as_ref().map(host).unwrap_or_default();
    let name = if asked.client.name.is_empty() { "An application" } else { &asked.client.name };
    let vouched = match &asked.client.host {
        Some(host) => format!("That application is known by its address at {}.", escaped(host)),
        None => "The application calls itself so; nobody has checked it.".to_owned(),
    };
    let note = note.map(|note| format!("<p class=\"note\" role=\"alert\">{}</p>", escaped(note)));
    let main = format!(
        "<h1>Who do you want to be here?</h1>\n\
         <p><strong>{name}</strong> asks to use the private tools of this demo in your name.</p>\n\
         {note}\
         <form method=\"post\" action=\"/demo/oauth/authorize\">\n\
         <input type=\"hidden\" name=\"page\" value=\"{id}\">\n\
         <label for=\"name\">Your name</label>\n\
         <input id=\"name\" type=\"text\" name=\"name\" maxlength=\"{MAX_NAME}\" required autofocus \
         autocomplete=\"off\" placeholder=\"any name you like\">\n\
         <div class=\"actions\"><button name=\"answer\" value=\"allow\">Allow</button>\n\
         <button class=\"quiet\" name=\"answer\" value=\"deny\" formnovalidate>Deny</button></div>\n\
         </form>\n\
         <p class=\"soft\">{vouched} Afterwards you go back to <strong>{back}</strong>.</p>",
        name = escaped(name),
        note = note.unwrap_or_default(),
        id = escaped(id),
    );
    let foot = "A real server would ask for your password here. This one believes any name, and forgets it when the \
                program ends.";
    page(status, "Log in to the demo", &main, foot, origin.as_deref())
}

/// Why a login does not go on; `why` is a clause without an end.
pub fn trouble(title: &str, why: &str) -> Response {
    let main = format!(
        "<h1>{}</h1>\n<p>The reason: {}.</p>\n<p>Go back to the application and ask it once more.</p>",
        escaped(title),
        escaped(why)
    );
    page(StatusCode::BAD_REQUEST, title, &main, "", None)
}

/// Why a client's request is refused, with a link `to` it that names where it leads. `why` is a clause without an end.
pub fn refused(why: &str, to: &Url) -> Response {
    let title = "This login cannot begin";
    let main = format!(
        "<h1>{title}</h1>\n<p>The reason: {why}.</p>\n\
         <p>The application that asked wants you back at <strong>{host}</strong>. Nobody has checked that address: go \
         there only if you know it.</p>\n\
         <p><a href=\"{to}\" rel=\"noreferrer\">Go to {host}</a></p>",
        why = escaped(why),
        host = host(to),
        to = escaped(to.as_str()),
    );
    page(StatusCode::BAD_REQUEST, title, &main, "", None)
}

/// Host and port of an address, as HTML.
fn host(url: &Url) -> String {
    escaped(&url[url::Position::BeforeHost..url::Position::AfterPort])
}

/// `GET /demo/oauth/style.css`.
pub fn style() -> Response {
    let mut response = Response::new(Body::from(STYLE));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn page(status: StatusCode, title: &str, main: &str, foot: &str, leads_to: Option<&str>) -> Response {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<link rel=\"stylesheet\" href=\"/demo/oauth/style.css\">\n\
         <link rel=\"icon\" href=\"/static/icon.svg\">\n</head>\n<body>\n\
         <header>toolgate demo <span>a server with a login of its own</span></header>\n\
         <main>\n{main}\n</main>\n\
         <footer>{foot}</footer>\n</body>\n</html>\n",
        escaped(title)
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(&mut response, leads_to);
    response
}

/// Puts on the headers of every page. `leads_to` is the origin that the form's answer redirects to: browsers hold
/// redirects after a form against `form-action` too.
pub fn protect(response: &mut Response, leads_to: Option<&str>) {
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' {}; frame-ancestors 'none'; \
         base-uri 'none'",
        leads_to.unwrap_or_default()
    );
    let headers = response.headers_mut();
    // An origin has no character that ends a directive; what had one gets the stricter policy.
    let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(
        "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    ));
    headers.insert("content-security-policy", policy);
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
        ("x-robots-tag", "noindex, nofollow"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Text that stays text, between tags and in attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
