//! Whether people could complete the login links that a gateway with these settings gives out, and who may sign in.

use super::{Settings, SignInKind};

/// Why nobody could complete a login link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkObstacle {
    /// It would lead nowhere: others reach the gateway, and it does not know at which address.
    NoPublicUrl,
    /// Its user would have to sign in to the gateway, and nobody can.
    NoSignIn,
}

impl LinkObstacle {
    /// What is wrong, as a sentence without its full stop.
    pub fn reason(self) -> &'static str {
        match self {
            LinkObstacle::NoPublicUrl => "nobody could open the login link, because `public_url` is not set",
            LinkObstacle::NoSignIn => {
                "nobody could complete the login, because nobody can sign in to this gateway"
            }
        }
    }

    /// What its operator can do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            LinkObstacle::NoPublicUrl => {
                "set `public_url` to the https address at which people reach the gateway"
            }
            LinkObstacle::NoSignIn => {
                "add a `[[sign_in]]` provider to the configuration, or let the application prove its users with `--proof app --verifier-url URL`"
            }
        }
    }
}

impl Settings {
    /// Why no login link of this gateway can be opened, whatever proves its users.
    pub fn link_obstacle(&self) -> Option<LinkObstacle> {
        let is_unknown = self.public_url.is_none() && !self.listen.ip().is_loopback();
        is_unknown.then_some(LinkObstacle::NoPublicUrl)
    }

    /// Why nobody can complete a login for which they must sign in to this gateway.
    pub fn gateway_proof_obstacle(&self) -> Option<LinkObstacle> {
        let nobody = self.sign_in.is_empty().then_some(LinkObstacle::NoSignIn);
        nobody.or(self.link_obstacle())
    }

    /// Who of the people who have signed in may still do so.
    pub fn admission(&self) -> Admission {
        let rules = self.sign_in.iter().map(|entry| {
            let (kind, issuer) = entry.kind();
            let issuer = issuer.filter(|_| kind != SignInKind::Microsoft).map(str::to_owned);
            AdmissionRule { provider: entry.name.clone(), issuer, domains: entry.allowed_domains.clone() }
        });
        Admission(rules.collect())
    }
}

/// Which people a gateway lets in, by the providers at which they sign in.
#[derive(Debug, Clone, Default)]
pub struct Admission(Vec<AdmissionRule>);

#[derive(Debug, Clone)]
struct AdmissionRule {
    provider: String,
    /// Where a provider is one issuer. A person whose provider has become another issuer is not who the name now says.
    issuer: Option<String>,
    /// Empty: everybody.
    domains: Vec<String>,
}

impl Admission {
    /// Whether somebody who signed in at `provider`, at this issuer, with a verified e-mail address in `domain` (empty:
    /// none) is let in.
    pub fn admits(&self, provider: &str, issuer: &str, domain: &str) -> bool {
        self.0.iter().any(|rule| {
            rule.provider == provider
                && rule.issuer.as_ref().is_none_or(|own| own == issuer)
                && (rule.domains.is_empty()
                    || rule.domains.iter().any(|own| own.eq_ignore_ascii_case(domain)))
        })
    }

    /// Whether somebody who has signed in may be turned away now.
    pub fn is_selective(&self) -> bool {
        self.0.iter().any(|rule| !rule.domains.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SignIn;

    #[test]
    fn a_link_is_given_where_somebody_could_complete_it() {
        let sign_in = vec![SignIn { name: "google".into(), ..SignIn::default() }];
        let of = |listen: &str, public_url: Option<&str>, sign_in: &[SignIn]| {
            let settings = Settings {
                listen: listen.parse().unwrap(),
                public_url: public_url.map(str::to_owned),
                sign_in: sign_in.to_vec(),
                ..Settings::default()
            };
            (settings.link_obstacle(), settings.gateway_proof_obstacle())
        };
        let url = Some("https://tools.example.com");
        assert_eq!(of("0.0.0.0:80", url, &sign_in), (None, None));
        assert_eq!(of("0.0.0.0:80", url, &[]), (None, Some(LinkObstacle::NoSignIn)));
        let unknown = Some(LinkObstacle::NoPublicUrl);
        assert_eq!(of("0.0.0.0:80", None, &sign_in), (unknown, unknown));
        assert_eq!(of("127.0.0.1:80", None, &sign_in), (None, None));
    }

    #[test]
    fn who_is_let_in_follows_the_settings_of_now() {
        let entry = |domains: &[&str]| SignIn {
            name: "google".into(),
            allowed_domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            ..SignIn::default()
        };
        let admits = |domains: &[&str], issuer: &str, domain: &str| {
            let settings = Settings { sign_in: vec![entry(domains)], ..Settings::default() };
            settings.admission().admits("google", issuer, domain)
        };
        let google = "https://accounts.google.com";
        assert!(admits(&[], google, ""));
        assert!(admits(&["example.com"], google, "Example.COM"));
        assert!(!admits(&["example.com"], google, ""));
        assert!(!admits(&["example.com"], google, "evil-example.com"));
        assert!(!admits(&["example.com"], "https://other.example", "example.com"));
        assert!(!Settings::default().admission().admits("google", google, "example.com"));
    }
}
