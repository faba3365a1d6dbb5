//! As much of a person with a browser as it takes to follow a login link: cookies, forms, redirects.

use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// No login takes more pages.
const MOST_PAGES: usize = 20;

/// Follows `link` to its end, agreeing to everything.
pub async fn log_in(link: &str) -> Result<(), String> {
    let mut cookies: BTreeMap<(String, String), String> = BTreeMap::new();
    let (mut address, mut form): (String, Option<String>) = (link.to_owned(), None);
    for _ in 0..MOST_PAGES {
        let page = fetch(&address, form.take(), &mut cookies).await?;
        let origin = origin(&address)?.to_owned();
        if let Some(location) = page.location {
            address = if location.starts_with('/') { format!("{origin}{location}") } else { location };
        } else if let Some((action, fields)) = first_form(&page.text) {
            address = format!("{origin}{action}");
            form = Some(fields);
        } else if let Some(target) = leaving(&page.text) {
            address = target;
        } else {
            return Ok(());
        }
    }
    Err(format!("the login does not end: {address}"))
}

struct Page {
    location: Option<String>,
    text: String,
}

async fn fetch(
    address: &str,
    form: Option<String>,
    cookies: &mut BTreeMap<(String, String), String>,
) -> Result<Page, String> {
    let origin = origin(address)?;
    let authority = origin.trim_start_matches("http://");
    let stream = TcpStream::connect(authority).await.map_err(|error| format!("{authority}: {error}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::task::spawn_local(connection);
    let sent: Vec<String> = cookies
        .iter()
        .filter(|((at, _), _)| at == origin)
        .map(|((_, name), value)| format!("{name}={value}"))
        .collect();
    let path = Some(&address[origin.len()..]).filter(|path| !path.is_empty()).unwrap_or("/");
    let mut request = Request::builder().uri(path).header("host", authority).header("accept", "text/html");
    if !sent.is_empty() {
        request = request.header("cookie", sent.join("; "));
    }
    let body = match form {
        Some(fields) => {
            request = request
                .method("POST")
                .header("origin", origin)
                .header("content-type", "application/x-www-form-urlencoded");
            Bytes::from(fields)
        }
        None => Bytes::new(),
    };
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    for value in response.headers().get_all("set-cookie") {
        let cookie = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        if let Some((name, value)) = cookie.split_once('=') {
            cookies.insert((origin.to_owned(), name.to_owned()), value.to_owned());
        }
    }
    let status = response.status();
    let location =
        response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_client_error() || status.is_server_error() {
        return Err(format!("{address}: status {status}: {}", text.chars().take(300).collect::<String>()));
    }
    Ok(Page { location, text })
}

fn origin(address: &str) -> Result<&str, String> {
    let rest = address.strip_prefix("http://").ok_or(format!("`{address}` is not on this machine"))?;
    let end = rest.find('/').unwrap_or(rest.len());
    Ok(&address[..address.len() - rest.len() + end])
}

/// Action and fields of the first form that is posted to the connect page; its first button is the one that agrees.
fn first_form(text: &str) -> Option<(String, String)> {
    let form =
        text.split("<form").find(|form| form.contains("\"/connect/") && form.contains("method=\"post\""))?;
    let form = form.split("</form>").next()?;
    let mut fields = Vec::new();
    for tag in form.split('<').filter(|tag| tag.starts_with("input") || tag.starts_with("button")) {
        if let (Some(name), Some(value)) = (attribute(tag, "name"), attribute(tag, "value")) {
            fields.push(format!("{name}={}", escaped(&value)));
        }
    }
    Some((attribute(form, "action")?, fields.join("&")))
}

/// The address that an intermediate page leads to.
fn leaving(text: &str) -> Option<String> {
    text.split("<a ").find_map(|tag| attribute(tag, "href").filter(|href| href.contains("/authorize?")))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let from = tag.find(&format!("{name}=\""))? + name.len() + 2;
    let value = tag[from..].split('"').next()?;
    Some(value.replace("&#38;", "&").replace("&amp;", "&").replace("&#61;", "="))
}

fn escaped(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
