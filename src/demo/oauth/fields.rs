//! Parameters of a query or a form.

use axum::extract::Request;
use http::header;

use super::error::Refusal;

const MAX_FORM_BYTES: usize = 16 << 10;
const MAX_FIELDS: usize = 40;

/// Named values. What is empty counts as missing (RFC 6749 §3.1).
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `a=b&c=d`.
    ///
    /// # Errors
    /// When a name is there twice (RFC 6749 §3.1, §3.2) or there are too many.
    pub fn read(text: &[u8]) -> Result<Fields, Refusal> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(Refusal::invalid_request("a parameter is there twice"));
            }
            if fields.len() == MAX_FIELDS {
                return Err(Refusal::invalid_request("there are too many parameters"));
            }
            fields.push((name.into_owned(), value.into_owned()));
        }
        Ok(Fields(fields))
    }

    /// Reads the body of a form.
    ///
    /// # Errors
    /// When it is none, or larger than 16 KiB; and as [`Fields::read`].
    pub async fn of_form(request: Request) -> Result<Fields, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::invalid_request("the body must be application/x-www-form-urlencoded"));
        }
        let body = axum::body::to_bytes(request.into_body(), MAX_FORM_BYTES).await;
        Fields::read(&body.map_err(|_| Refusal::invalid_request("the body is too large or broke off"))?)
    }

    pub fn find(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// # Errors
    /// `missing` when it is.
    pub fn get(&self, name: &str, missing: &'static str) -> Result<&str, Refusal> {
        self.find(name).ok_or(Refusal::invalid_request(missing))
    }
}
