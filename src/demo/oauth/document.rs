//! Client id metadata documents: an application whose id is the https address of a document about itself.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use url::Url;

use super::client::{Client, check_redirects};
use crate::clean_json;
use crate::egress::{self, Egress, Reach, parse_uri};
use crate::tools::text;

const MAX_BYTES: usize = 5 << 10;
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_NAME: usize = 60;

#[derive(Deserialize)]
struct Document {
    client_id: String,
    #[serde(default)]
    client_name: String,
    redirect_uris: Vec<String>,
    token_endpoint_auth_method: Option<String>,
    client_secret: Option<serde::de::IgnoredAny>,
}

/// Reads the document at `id`: public addresses and this machine only, no redirects, at most 5 KiB.
///
/// # Errors
/// Why there is no client; for the person who was sent here.
pub async fn fetch(egress: &Egress, id: &str) -> Result<Client, &'static str> {
    let no_address = "the application's client id is no address that a document could stand at";
    let url = Url::parse(id).map_err(|_| no_address)?;
    // Equal once more when written anew: no dot segments, no second spelling. And not just a host.
    if url.as_str() != id || url.path() == "/" || url.fragment().is_some() {
        return Err(no_address);
    }
    let uri = parse_uri(id).map_err(|_| no_address)?;
    let mut request = Request::new(egress::full(""));
    *request.uri_mut() = uri;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    let reading = async {
        let response = egress
            .send(Reach::Requested, request, PATIENCE)
            .await
            .map_err(|_| "the document at the application's client id cannot be reached")?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_json =
            kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
        if response.status() != StatusCode::OK || !is_json {
            return Err("there is no document at the application's client id");
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        Ok(body
            .map_err(|_| "the document at the application's client id is too large or broke off")?
            .to_bytes())
    };
    let body = tokio::time::timeout(PATIENCE, reading)
        .await
        .map_err(|_| "the document at the application's client id took too long")??;
    let document: Document = clean_json::from_slice(&body)
        .map_err(|_| "the document at the application's client id describes no client")?;
    if document.client_id != id {
        return Err("the document at the application's client id is another client's");
    }
    if document.client_secret.is_some()
        || document.token_endpoint_auth_method.is_some_and(|method| method != "none")
    {
        return Err("the document at the application's client id wants a secret, and this server knows none");
    }
    check_redirects(&document.redirect_uris).map_err(
        |_| "the redirect addresses in the document at the application's client id cannot be used",
    )?;
    Ok(Client {
        id: id.to_owned(),
        name: text::one_line(&document.client_name, MAX_NAME),
        redirect_uris: document.redirect_uris,
        host: url.host_str().map(str::to_owned),
    })
}
