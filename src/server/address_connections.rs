//! How many connections one network address may hold. Idle ones cost little, but there is an end of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::identity::Peer;

type OpenConnections = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// The connections that are open now, by the address they come from. What may be a proxy is not counted.
pub(super) struct AddressConnections {
    most: usize,
    open: OpenConnections,
}

/// One of them, until it is dropped.
pub(super) struct ConnectionSeat(Option<(OpenConnections, IpAddr)>);

impl AddressConnections {
    /// At most so many from one address; 0 is no limit.
    pub fn new(most: usize) -> Self {
        AddressConnections { most, open: Arc::default() }
    }

    /// Counts a connection from `address`, or returns `None` when there are as many as there may be.
    pub fn enter(&self, address: IpAddr) -> Option<ConnectionSeat> {
        if self.most == 0 || Peer(address).may_be_proxy() {
            return Some(ConnectionSeat(None));
        }
        let address = Peer(address).network();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(ConnectionSeat(Some((Arc::clone(&self.open), address))))
    }
}

impl Drop for ConnectionSeat {
    fn drop(&mut self) {
        let Some((open, address)) = &self.0 else { return };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                open.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_number_and_gets_it_back() {
        let connections = AddressConnections::new(2);
        let enter = |address: &str| connections.enter(address.parse().unwrap());
        let (one, two) = (enter("203.0.113.7").unwrap(), enter("::ffff:203.0.113.7").unwrap());
        assert!(enter("203.0.113.7").is_none());
        let other = enter("203.0.113.8").unwrap();
        drop(one);
        let three = enter("203.0.113.7").unwrap();
        assert!(enter("203.0.113.7").is_none());
        drop(two);
        let networks = (enter("2001:db8:1:2::1").unwrap(), enter("2001:db8:1:2:ffff::").unwrap());
        assert!(enter("2001:db8:1:2:3::").is_none(), "64 bits are one network");
        drop(networks);
        // What may stand for many people is not counted, nor is anything where there is no limit.
        let near: Vec<_> = ["127.0.0.1", "10.0.0.2", "fd00::2"].repeat(3).into_iter().map(enter).collect();
        assert!(near.iter().all(Option::is_some));
        let free = AddressConnections::new(0);
        assert!((0..9).all(|_| free.enter("203.0.113.7".parse().unwrap()).is_some()));
        drop((other, three));
        assert!(connections.open.lock().unwrap().is_empty());
    }
}
