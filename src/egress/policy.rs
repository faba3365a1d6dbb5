//! What a request may make us call: public hosts by https on 443, this machine in local mode, and what
//! the operator's rules open. Pure; resolving and dialling are `connect`'s.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{is_intranet, non_public_kind};
use super::target::{Host, Target};
use super::{Error, Refusal};
use crate::config::EgressAllow;

pub(super) struct Policy {
    rules: Vec<Rule>,
    local: bool,
}

struct Rule {
    host: Option<HostRule>,
    cidr: Option<IpNet>,
    ports: Vec<u16>,
}

enum HostRule {
    Is(Host),
    /// The name with its leading dot.
    EndsIn(String),
}

impl Policy {
    /// # Errors
    /// [`Error::Settings`] for a rule whose host is none.
    pub fn new(allow: &[EgressAllow], local: bool) -> Result<Policy, Error> {
        let rules = allow.iter().map(Rule::new).collect::<Result<_, _>>()?;
        Ok(Policy { rules, local })
    }

    /// What can be said before the name is resolved.
    pub fn check(&self, target: &Target) -> Result<(), Refusal> {
        match &target.host {
            Host::Ip(ip) => self.check_address(target, *ip),
            Host::Name(_) if self.rules.iter().any(|rule| rule.names(target)) => Ok(()),
            Host::Name(_) if target.names_this_machine() && self.local => Ok(()),
            Host::Name(name) if target.names_this_machine() => {
                Err(Refusal::NotPublic { host: name.clone(), address: "a loopback address".to_owned() })
            }
            Host::Name(_) if target.is_usual() => Ok(()),
            Host::Name(_) => Err(unusual(target)),
        }
    }

    /// Whether `address`, to which `target` was resolved, may be dialled.
    pub fn check_address(&self, target: &Target, address: IpAddr) -> Result<(), Refusal> {
        let kind = non_public_kind(address);
        let allowed = (kind.is_none() && target.is_usual())
            // Only where the address itself says so: a name on the internet that resolves to this
            // machine is an attack, also on a person's own machine.
            || (self.local && target.names_this_machine() && address.is_loopback())
            || self.rules.iter().any(|rule| rule.names(target) && rule.opens(address));
        match kind {
            _ if allowed => Ok(()),
            Some(kind) => Err(Refusal::NotPublic { host: target.host.to_string(), address: kind.to_owned() }),
            None => Err(unusual(target)),
        }
    }
}

fn unusual(target: &Target) -> Refusal {
    let host = target.host.to_string();
    if target.https { Refusal::Port { host, port: target.port } } else { Refusal::PlainHttp(host) }
}

impl Rule {
    fn new(allow: &EgressAllow) -> Result<Rule, Error> {
        let host = allow.host.as_deref().map(HostRule::new).transpose()?;
        Ok(Rule { host, cidr: allow.cidr, ports: allow.ports.clone() })
    }

    fn names(&self, target: &Target) -> bool {
        let host = match (&self.host, &target.host) {
            (None, _) => true,
            (Some(HostRule::Is(host)), given) => host == given,
            (Some(HostRule::EndsIn(end)), Host::Name(name)) => name.ends_with(end.as_str()),
            (Some(HostRule::EndsIn(_)), Host::Ip(_)) => false,
        };
        host && (self.ports.is_empty() || self.ports.contains(&target.port))
    }

    /// A range opens what lies in it. Without one, a host opens public and intranet addresses, and ports
    /// alone open public ones: this machine and link-local addresses are opened by range only.
    fn opens(&self, address: IpAddr) -> bool {
        match (&self.cidr, &self.host) {
            (Some(range), _) => range.contains(&address),
            (None, Some(_)) => non_public_kind(address).is_none() || is_intranet(address),
            (None, None) => non_public_kind(address).is_none(),
        }
    }
}

impl HostRule {
    fn new(text: &str) -> Result<HostRule, Error> {
        let parsed = match text.strip_prefix("*.") {
            Some(rest) => match Host::parse(rest) {
                Some(Host::Name(name)) => Some(HostRule::EndsIn(format!(".{name}"))),
                _ => None,
            },
            // An IPv6 address may stand there without brackets.
            None => match text.parse::<IpAddr>() {
                Ok(ip) => Some(HostRule::Is(Host::Ip(ip))),
                Err(_) => Host::parse(text).map(HostRule::Is),
            },
        };
        parsed.ok_or_else(|| Error::Settings(format!("`{text}` in `egress.allow` is not a host name")))
    }
}
