//! A bounded place for things that end by themselves.

use std::collections::VecDeque;

/// What things are found by: a SHA-256, so that neither a look into memory nor the time of a look-up gives away what
/// opens something.
pub type Digest = [u8; 32];

struct Entry<T> {
    key: Digest,
    ends_at: i64,
    value: T,
}

/// At most so many things; the oldest make place for new ones. Times are seconds since 1970.
pub struct Shelf<T> {
    most: usize,
    entries: VecDeque<Entry<T>>,
}

impl<T> Shelf<T> {
    pub fn new(most: usize) -> Shelf<T> {
        Shelf { most, entries: VecDeque::new() }
    }

    pub fn put(&mut self, now: i64, seconds: i64, key: Digest, value: T) {
        self.entries.retain(|entry| entry.ends_at > now && entry.key != key);
        if self.entries.len() >= self.most {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { key, ends_at: now + seconds, value });
    }

    pub fn find(&mut self, now: i64, key: &Digest) -> Option<&mut T> {
        let entry = self.entries.iter_mut().find(|entry| entry.key == *key && entry.ends_at > now)?;
        Some(&mut entry.value)
    }

    pub fn take(&mut self, now: i64, key: &Digest) -> Option<T> {
        let at = self.entries.iter().position(|entry| entry.key == *key && entry.ends_at > now)?;
        self.entries.remove(at).map(|entry| entry.value)
    }

    pub fn delete(&mut self, key: &Digest) {
        self.entries.retain(|entry| entry.key != *key);
    }

    pub fn delete_where(&mut self, is_gone: impl Fn(&T) -> bool) {
        self.entries.retain(|entry| !is_gone(&entry.value));
    }
}
