//! What one principal may hold at a time: open streams, requests that wait for a login, runs under way.
//!
//! In memory and for this process only. A guard gives its place back when it is dropped, however its holder ends. The
//! bounds of what is stored are counted elsewhere, in the store.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Limits;
use crate::crypto::{sha256, to_hex};

/// How much more a whole project, or a whole network, may hold than one of its users or addresses.
pub const GROUP_FACTOR: u64 = 20;

/// A kind of thing that is bounded for each principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    Streams,
    Waiting,
    Runs,
    StoredRuns,
    StoredBytes,
}

impl Bound {
    /// The setting's name below `[limits]`, which is also `error.param`.
    pub fn as_str(self) -> &'static str {
        match self {
            Bound::Streams => "streams_per_principal",
            Bound::Waiting => "waiting_per_principal",
            Bound::Runs => "runs_per_principal",
            Bound::StoredRuns => "stored_runs_per_principal",
            Bound::StoredBytes => "stored_bytes_per_principal",
        }
    }

    /// Whether time alone frees a place.
    pub fn frees_itself(self) -> bool {
        matches!(self, Bound::Streams | Bound::Waiting | Bound::Runs)
    }
}

/// Whose things are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The person at their own machine, who has no bounds.
    Local,
    /// A signed-in person, by the id of their account.
    Person(Arc<str>),
    /// A user of a project, and with it the project. Requests without a user count for the project alone.
    User { namespace: Arc<str>, user: Option<Arc<str>> },
    /// Whoever calls from an address without a key that costs anything, and with it the address's network. Those whose
    /// address is not known count together.
    Stranger(Option<IpAddr>),
}

/// A principal as the store knows it. An empty group is not counted, an empty member has no bound of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderName {
    pub group: String,
    pub member: String,
    /// How many times the bound of one principal the group may hold.
    pub group_factor: u64,
}

impl Principal {
    /// The principal's name in the store.
    pub fn holder_name(&self) -> HolderName {
        let (group, member) = match self {
            Principal::Local => (String::new(), String::new()),
            Principal::Person(account) => (format!("person:{account}"), String::new()),
            Principal::User { namespace, user } => {
                let member = user.as_ref().map(|user| to_hex(&sha256(user.as_bytes())[..16]));
                (namespace.to_string(), member.unwrap_or_default())
            }
            Principal::Stranger(None) => ("network:unknown".to_owned(), String::new()),
            Principal::Stranger(Some(address)) => {
                (format!("network:{}", network_of(*address)), address.to_string())
            }
        };
        HolderName { group, member, group_factor: self.group_factor() }
    }

    fn group_factor(&self) -> u64 {
        match self {
            Principal::Person(_) => 1,
            Principal::Local | Principal::User { .. } | Principal::Stranger(_) => GROUP_FACTOR,
        }
    }

    /// What the member of a group is called in messages.
    fn member_word(&self) -> &'static str {
        match self {
            Principal::Local | Principal::Person(_) | Principal::User { .. } => "this user",
            Principal::Stranger(_) => "your network address",
        }
    }

    fn group_word(&self) -> &'static str {
        match self {
            Principal::Local | Principal::Person(_) => "you",
            Principal::User { .. } => "this project",
            Principal::Stranger(_) => "your network",
        }
    }

    /// The refusal of one more thing of this kind, for the member or for the whole group.
    pub fn limit_reached(&self, bound: Bound, most: u64, scope: BoundScope) -> LimitReached {
        let holder = match scope {
            BoundScope::Member => self.member_word(),
            BoundScope::Group => self.group_word(),
        };
        LimitReached { bound, most, holder }
    }
}

/// Which of a principal's two bounds is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundScope {
    Member,
    Group,
}

/// The network that an address is part of, beyond what one customer of a provider usually has.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() >> 8 << 8)),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 80 << 80)),
    }
}

/// A principal holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReached {
    pub bound: Bound,
    most: u64,
    holder: &'static str,
}

impl std::error::Error for LimitReached {}

impl std::fmt::Display for LimitReached {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LimitReached { bound, most, holder } = self;
        match bound {
            Bound::Streams => write!(
                out,
                "too many open answers for {holder} (at most {most}): close one, or wait until one ends"
            ),
            Bound::Waiting => write!(
                out,
                "too many requests of {holder} wait for a login (at most {most}): finish a login, or cancel a request"
            ),
            Bound::Runs => write!(
                out,
                "too many runs of {holder} are under way (at most {most}): cancel one, or wait until one ends"
            ),
            Bound::StoredRuns => write!(
                out,
                "too many stored runs of {holder} (at most {most}): delete some, or send the request without `store`"
            ),
            Bound::StoredBytes => write!(
                out,
                "the stored runs of {holder} take too much room (at most {most} bytes): delete some, or send the request without `store`"
            ),
        }
    }
}

/// Counts what principals hold in this process. Cheap to clone.
#[derive(Clone)]
pub struct PrincipalBounds(Arc<BoundsState>);

struct BoundsState {
    streams: u64,
    waiting: u64,
    runs: u64,
    hasher: RandomState,
    /// How many are held, by the kind and a keyed digest of the holder: what is not held takes no memory.
    held: Mutex<HashMap<(Bound, u64), u64>>,
}

/// A place that is held until this is dropped.
#[derive(Default)]
pub struct BoundGuard(Option<HeldPlace>);

struct HeldPlace {
    bounds: PrincipalBounds,
    bound: Bound,
    holders: [Option<u64>; 2],
}

impl PrincipalBounds {
    /// Bounds as the settings say; 0 is none.
    pub fn new(limits: &Limits) -> Self {
        PrincipalBounds(Arc::new(BoundsState {
            streams: limits.streams_per_principal,
            waiting: limits.waiting_per_principal,
            runs: limits.runs_per_principal,
            hasher: RandomState::new(),
            held: Mutex::default(),
        }))
    }

    /// Takes a place for one more thing of this kind.
    ///
    /// # Errors
    /// [`LimitReached`] when there is none.
    pub fn acquire(&self, bound: Bound, principal: &Principal) -> Result<BoundGuard, LimitReached> {
        self.take_place(bound, principal, |held, most, scope| {
            if held < most { Ok(()) } else { Err(principal.limit_reached(bound, most, scope)) }
        })
    }

    /// Takes a place for what goes on in any case, as a run that another process began.
    pub fn acquire_unchecked(&self, bound: Bound, principal: &Principal) -> BoundGuard {
        self.take_place(bound, principal, |_, _, _| Ok(())).unwrap_or_default()
    }

    /// How many things of this kind are held by anybody, for tests.
    pub fn count_held(&self, bound: Bound) -> usize {
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.keys().filter(|(kind, _)| *kind == bound).count()
    }

    fn take_place(
        &self,
        bound: Bound,
        principal: &Principal,
        check: impl Fn(u64, u64, BoundScope) -> Result<(), LimitReached>,
    ) -> Result<BoundGuard, LimitReached> {
        let state = &self.0;
        let most = match bound {
            Bound::Streams => state.streams,
            Bound::Waiting => state.waiting,
            Bound::Runs => state.runs,
            // These are counted in the store.
            Bound::StoredRuns | Bound::StoredBytes => 0,
        };
        let hash = |what: (u8, &str, &str)| state.hasher.hash_one(what);
        let (member, group) = match principal {
            Principal::Local => return Ok(BoundGuard::default()),
            _ if most == 0 => return Ok(BoundGuard::default()),
            Principal::Person(account) => (None, hash((0, account, ""))),
            Principal::User { namespace, user } => {
                (user.as_ref().map(|user| hash((1, namespace, user))), hash((2, namespace, "")))
            }
            Principal::Stranger(address) => (
                address.map(|address| state.hasher.hash_one((3, address))),
                state.hasher.hash_one((4, address.map(network_of))),
            ),
        };
        let mut held = state.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |held: &HashMap<_, u64>, holder: u64| held.get(&(bound, holder)).copied().unwrap_or(0);
        if let Some(member) = member {
            check(count(&held, member), most, BoundScope::Member)?;
        }
        check(count(&held, group), most.saturating_mul(principal.group_factor()), BoundScope::Group)?;
        let holders = [member, Some(group)];
        for holder in holders.iter().flatten() {
            *held.entry((bound, *holder)).or_default() += 1;
        }
        Ok(BoundGuard(Some(HeldPlace { bounds: self.clone(), bound, holders })))
    }
}

impl BoundGuard {
    /// Whether nothing is counted, as in local mode.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Drop for HeldPlace {
    fn drop(&mut self) {
        let mut held = self.bounds.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        for holder in self.holders.iter().flatten() {
            let key = (self.bound, *holder);
            match held.get_mut(&key) {
                Some(number) if *number > 1 => *number -= 1,
                _ => drop(held.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(most: u64) -> PrincipalBounds {
        PrincipalBounds::new(&Limits {
            streams_per_principal: most,
            waiting_per_principal: most,
            runs_per_principal: most,
            ..Limits::default()
        })
    }

    fn user(name: &str) -> Principal {
        let user = Some(name).filter(|name| !name.is_empty()).map(Into::into);
        Principal::User { namespace: "project:shop".into(), user }
    }

    #[test]
    fn a_user_has_a_bound_and_the_project_twenty_times_that() {
        let bounds = bounds(2);
        let mut guards: Vec<BoundGuard> =
            (0..2).map(|_| bounds.acquire(Bound::Runs, &user("ann")).unwrap()).collect();
        let refused = bounds.acquire(Bound::Runs, &user("ann")).err().unwrap();
        assert_eq!(
            refused.to_string(),
            "too many runs of this user are under way (at most 2): cancel one, or wait until one ends"
        );
        assert!(bounds.acquire(Bound::Streams, &user("ann")).is_ok(), "kinds are counted apart");
        guards.extend((0..38).map(|number| bounds.acquire(Bound::Runs, &user(&number.to_string())).unwrap()));
        let refused = bounds.acquire(Bound::Runs, &user("")).err().unwrap();
        assert!(
            refused.to_string().contains("this project") && refused.to_string().contains("40"),
            "{refused}"
        );
        guards.pop();
        assert!(bounds.acquire(Bound::Runs, &user("")).is_ok());
        drop(guards);
        assert_eq!(bounds.count_held(Bound::Runs), 0, "nothing is left in memory");
    }

    #[test]
    fn strangers_are_counted_by_address_and_network_whatever_key_they_make_up() {
        let bounds = bounds(1);
        let from = |address: &str| Principal::Stranger(Some(address.parse().unwrap()));
        let _first = bounds.acquire(Bound::Streams, &from("203.0.113.7")).unwrap();
        assert!(bounds.acquire(Bound::Streams, &from("203.0.113.7")).is_err());
        let _others: Vec<BoundGuard> = (20..39)
            .map(|last| bounds.acquire(Bound::Streams, &from(&format!("203.0.113.{last}"))).unwrap())
            .collect();
        assert!(bounds.acquire(Bound::Streams, &from("203.0.113.99")).is_err(), "its network is full");
        assert!(bounds.acquire(Bound::Streams, &from("198.51.100.7")).is_ok(), "others are not held up");
        let name = from("2001:db8:1:2::").holder_name();
        assert_eq!((name.group.as_str(), name.member.as_str()), ("network:2001:db8:1::", "2001:db8:1:2::"));
    }

    #[test]
    fn nobody_is_counted_in_local_mode_or_without_a_bound() {
        let (one, none) = (bounds(1), bounds(0));
        let _guards: Vec<BoundGuard> = (0..100)
            .flat_map(|_| {
                [one.acquire(Bound::Runs, &Principal::Local), none.acquire(Bound::Runs, &user("ann"))]
            })
            .map(Result::unwrap)
            .collect();
        assert_eq!(one.count_held(Bound::Runs) + none.count_held(Bound::Runs), 0);
        assert_eq!(Principal::Local.holder_name().group, "");
    }

    #[test]
    fn a_person_has_one_bound_and_what_goes_on_in_any_case_counts_too() {
        let bounds = bounds(2);
        let person = Principal::Person("acct_1".into());
        let _resumed: Vec<BoundGuard> =
            (0..3).map(|_| bounds.acquire_unchecked(Bound::Runs, &person)).collect();
        assert!(bounds.acquire(Bound::Runs, &person).is_err());
    }
}
