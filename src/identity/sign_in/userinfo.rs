//! Who somebody is by the API of a provider that has OAuth 2 but no ID tokens.

use serde_json::Value;

use super::claims::is_subject;
use crate::config::SignInOauth2;

/// Who signed in, as the provider says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    pub issuer: String,
    pub subject: String,
    /// What people recognise themselves by.
    pub label: String,
    pub verified_email: Option<String>,
}

/// Reads GitHub's `GET /user`: `id` stays when `login` changes.
pub(super) fn github(issuer: &str, answer: &Value) -> Option<Who> {
    who(issuer, &answer["id"], answer["login"].as_str())
}

/// Reads X's `GET /2/users/me`: `data.id` stays when `username` changes.
pub(super) fn x(issuer: &str, answer: &Value) -> Option<Who> {
    let data = &answer["data"];
    who(issuer, &data["id"], data["username"].as_str())
}

/// Reads what the operator says to read.
pub(super) fn named(issuer: &str, oauth2: &SignInOauth2, answer: &Value) -> Option<Who> {
    let at = |path: &str| path.split('.').try_fold(answer, |value, name| value.get(name));
    let mut who = who(issuer, at(&oauth2.subject)?, None)?;
    if let Some(label) = oauth2.label.as_deref().and_then(at).and_then(Value::as_str) {
        label.clone_into(&mut who.label);
    }
    Some(who)
}

fn who(issuer: &str, id: &Value, name: Option<&str>) -> Option<Who> {
    let subject = match id {
        Value::Number(number) => number.as_u64().filter(|id| *id > 0)?.to_string(),
        Value::String(text) if is_subject(text) => text.clone(),
        _ => return None,
    };
    let label = name.map_or_else(|| subject.clone(), |name| format!("@{name}"));
    Some(Who { issuer: issuer.to_owned(), subject, label, verified_email: None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_that_stay_are_the_subject() {
        let who = github("https://github.com", &json!({ "id": 583_231, "login": "octocat" })).unwrap();
        assert_eq!((who.subject.as_str(), who.label.as_str()), ("583231", "@octocat"));
        let who = x("https://x.com", &json!({ "data": { "id": "2244994945", "username": "dev" } })).unwrap();
        assert_eq!((who.subject.as_str(), who.label.as_str()), ("2244994945", "@dev"));
        let oauth2 = SignInOauth2 {
            subject: "user.id".into(),
            label: Some("user.name".into()),
            ..SignInOauth2::default()
        };
        let who = named("https://forum.example", &oauth2, &json!({ "user": { "id": 7, "name": "anna" } }));
        let who = who.unwrap();
        assert_eq!((who.subject.as_str(), who.label.as_str()), ("7", "anna"));
        for answer in [json!({ "id": 7 }), json!({ "user": 7 }), json!({ "user": { "id": {} } }), json!([])] {
            assert_eq!(named("i", &oauth2, &answer), None, "{answer}");
        }
        for answer in [
            json!({}),
            json!({ "id": null }),
            json!({ "id": 0 }),
            json!({ "id": -1 }),
            json!({ "id": "" }),
            json!({ "id": [1] }),
            json!([]),
        ] {
            assert_eq!(github("i", &answer), None, "{answer}");
        }
    }
}
