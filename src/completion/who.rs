//! For whom a run is: the caller's namespace, and the user that its tools and logins belong to.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::json;

use super::options::Options;
use crate::bounds::Principal;
use crate::clean_json;
use crate::connections::{Application, Owner};
use crate::identity::{Caller, CallerKind};
use crate::openai::{ChatRequest, InvalidField};

/// Longest name of a user, in bytes.
const LONGEST_USER: usize = 512;

/// Who sends a request, as far as a run is concerned.
#[derive(Debug, Clone)]
pub struct Who {
    /// What keeps the caller's things apart from those of others.
    pub namespace: Arc<str>,
    pub users: Users,
    /// What a consent page calls the caller.
    pub application: Application,
}

/// Whose tools a caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// Anybody's whom it names.
    Any,
    /// Anybody's whom it names, and this one's when it names nobody.
    AnyOr(Arc<str>),
    /// Its own.
    Only(Arc<str>),
}

/// The request names a user who is not the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`user` names somebody else: with your own login you use your own tools; leave it out")]
pub struct OtherUser;

/// The user on whose behalf a caller of local mode asks when it names nobody.
const LOCAL_USER: &str = "local";
/// The namespace of local mode, as [`Caller::namespace`] names it.
const LOCAL_NAMESPACE: &str = "local";
/// The namespace of people who signed in.
const PERSON_NAMESPACE: &str = "person";

impl Who {
    /// For whom `caller` may ask.
    pub fn of(caller: &Caller) -> Self {
        let (users, application) = match &caller.kind {
            CallerKind::Local => (
                Users::AnyOr(LOCAL_USER.into()),
                Application { name: "an application on this computer".into(), verified: true, place: None },
            ),
            CallerKind::Project { name, .. } => {
                (Users::Any, Application { name: Arc::clone(name), verified: true, place: None })
            }
            CallerKind::PassThrough => {
                let name = match caller.key_ending.as_str() {
                    "" => "an unverified application".to_owned(),
                    ending => format!("an unverified application with a key ending {ending}"),
                };
                (Users::Any, Application { name: name.into(), verified: false, place: caller.place })
            }
            CallerKind::Person { account } => {
                let name = "the gateway's own pages".into();
                let application = Application { name, verified: true, place: None };
                (Users::Only(Arc::clone(account)), application)
            }
        };
        Who { namespace: Arc::clone(&caller.namespace), users, application }
    }

    /// The user that the request names: `user`, `safety_identifier`, or the header `X-Toolgate-User`.
    ///
    /// # Errors
    /// [`InvalidField`] for names that are none, also in the header when the body names somebody.
    pub fn user(&self, request: &ChatRequest, headers: &HeaderMap) -> Result<Option<Arc<str>>, InvalidField> {
        let mut named = None;
        for field in ["user", "safety_identifier"] {
            named = named.or(request.get::<String>(field, "a text")?.filter(|name| !name.is_empty()));
        }
        let header = user_header(headers)?;
        let named = named.or(header.filter(|name| !name.is_empty()).map(str::to_owned));
        if named.as_ref().is_some_and(|name| name.len() > LONGEST_USER) {
            let message = format!("`user` must have at most {LONGEST_USER} characters");
            return Err(InvalidField::new("user", message));
        }
        Ok(match (&self.users, named) {
            (_, Some(name)) => Some(name.into()),
            (Users::AnyOr(user) | Users::Only(user), None) => Some(Arc::clone(user)),
            (Users::Any, None) => None,
        })
    }

    /// Whose things those of `user` are counted among.
    pub fn principal(&self, user: Option<&Arc<str>>) -> Principal {
        match &self.users {
            Users::Only(account) => Principal::Person(Arc::clone(account)),
            _ if !self.application.verified => Principal::Stranger(self.application.place),
            _ if &*self.namespace == LOCAL_NAMESPACE => Principal::Local,
            Users::Any | Users::AnyOr(_) => {
                Principal::User { namespace: Arc::clone(&self.namespace), user: user.cloned() }
            }
        }
    }

    /// Whose connections are used for `user`; `None` when nobody is named.
    ///
    /// # Errors
    /// [`OtherUser`] when the caller may not act for that user.
    pub fn owner(&self, user: Option<&Arc<str>>, profile: Option<&str>) -> Result<Option<Owner>, OtherUser> {
        match (&self.users, user) {
            (Users::Only(own), Some(named)) if own != named => Err(OtherUser),
            (_, user) => Ok(user.map(|user| Owner {
                project: Arc::clone(&self.namespace),
                user: Arc::clone(user),
                profile: profile.unwrap_or_default().into(),
            })),
        }
    }
}

impl Who {
    /// The user whose connections are listed: `None` is everybody's.
    ///
    /// # Errors
    /// [`OtherUser`] when the caller may not see that user's.
    pub fn may_list(&self, named: Option<String>) -> Result<Option<Arc<str>>, OtherUser> {
        match (&self.users, named) {
            (Users::Only(own), Some(named)) if **own != *named => Err(OtherUser),
            (Users::Only(own), _) => Ok(Some(Arc::clone(own))),
            (Users::Any | Users::AnyOr(_), named) => Ok(named.map(Into::into)),
        }
    }
}

/// Whose things those of a stored run are counted among, as its row says it.
pub fn principal_of_run(namespace: &str, user: &str, application: &Application) -> Principal {
    let user: Option<Arc<str>> = Some(user).filter(|user| !user.is_empty()).map(Into::into);
    match (namespace, user) {
        (LOCAL_NAMESPACE, _) => Principal::Local,
        (PERSON_NAMESPACE, Some(account)) => Principal::Person(account),
        _ if !application.verified => Principal::Stranger(application.place),
        (_, user) => Principal::User { namespace: namespace.into(), user },
    }
}

/// The user that a relayed request names, as far as it does so in a way that the gateway understands.
pub fn named_user(request: Option<&ChatRequest>, headers: &HeaderMap) -> Option<Arc<str>> {
    let field = |field: &str| {
        let name = request?.get::<String>(field, "a text").ok().flatten()?;
        Some(name).filter(|name| !name.is_empty() && name.len() <= LONGEST_USER)
    };
    let named = field("user").or_else(|| field("safety_identifier"));
    let header = || user_header(headers).ok().flatten().filter(|name| !name.is_empty()).map(str::to_owned);
    named.or_else(header).map(Into::into)
}

/// The user that the header names. One that cannot be read must not pass for none: the request would act for somebody
/// else.
fn user_header(headers: &HeaderMap) -> Result<Option<&str>, InvalidField> {
    let wrong = |why: &str| InvalidField::new("X-Toolgate-User", format!("`X-Toolgate-User` {why}"));
    let mut given = headers.get_all("x-toolgate-user").iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(wrong("is there twice; send it once"));
    }
    let text =
        value.to_str().map_err(|_| wrong("must be plain ASCII; send other names in the field `user`"))?;
    Ok(Some(text))
}

/// Whose sessions, caches and hidden turns these are: namespace, user and profile.
pub fn scope(who: &Who, user: Option<&str>, options: &Options) -> Arc<str> {
    scope_of(&who.namespace, user, options.profile.as_deref())
}

/// As [`scope`], from its parts.
pub fn scope_of(namespace: &str, user: Option<&str>, profile: Option<&str>) -> Arc<str> {
    json!([namespace, user.unwrap_or_default(), profile]).to_string().into()
}

/// The namespace and the user in what [`scope`] has made; the user is empty when nobody was named.
pub fn namespace_and_user(scope: &str) -> Option<(String, String)> {
    let (namespace, user, _): (_, _, Option<String>) = clean_json::from_str(scope).ok()?;
    Some((namespace, user))
}
