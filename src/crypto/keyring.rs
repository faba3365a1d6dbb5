//! The keys that seal what is stored: a set with names, one of them active, and a handle that many share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::constant_time_eq;
use super::seal::{self, OpenError, Place};

/// The start of every key's name.
pub const KEY_ID_PREFIX: &str = "key_";
const LONGEST_ID_BYTES: usize = 64;
const MOST_KEYS: usize = 100;
const KEY_BYTES: usize = 32;

/// Keys by name, of which one is active: it seals, all of them open.
#[derive(Clone)]
pub struct KeySet {
    keys: BTreeMap<String, Zeroizing<[u8; KEY_BYTES]>>,
    active: String,
}

/// A keyring's text that cannot be used. No variant carries a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyring {
    #[error("line {0} is not `name = \"value\"`")]
    Line(usize),
    #[error("line {0}: a key's name is `key_` and letters and digits, {LONGEST_ID_BYTES} characters at most")]
    Name(usize),
    #[error("line {0}: a key is the base64 text of 32 bytes")]
    Key(usize),
    #[error("line {0} gives something a second time")]
    Twice(usize),
    #[error("there are more than {MOST_KEYS} keys")]
    TooMany,
    #[error("there is no `active = \"key_…\"` line")]
    NoActive,
    #[error("the active key `{0}` is not among the keys")]
    ActiveUnknown(String),
}

/// Why a set of keys was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("there is no such key")]
    Unknown,
    #[error("it is the active key")]
    Active,
    #[error("there is a key of this name, or the name is impossible, or there are {MOST_KEYS} keys")]
    NotAdded,
}

impl KeySet {
    /// A set of one key, which is active.
    ///
    /// # Errors
    /// [`KeySetError::NotAdded`] when the name is impossible.
    pub fn of_one(id: &str, key: &[u8; KEY_BYTES]) -> Result<Self, KeySetError> {
        let mut set = KeySet { keys: BTreeMap::new(), active: id.to_owned() };
        set.add(id, key)?;
        Ok(set)
    }

    /// Reads the text form: `key_ID = "base64"` lines and one `active = "key_ID"`. It is TOML; only comments and
    /// such lines may stand in it. `;` ends a line, too, for environments that know no line breaks.
    ///
    /// # Errors
    /// [`BadKeyring`].
    pub fn parse(text: &str) -> Result<Self, BadKeyring> {
        let (mut keys, mut active) = (BTreeMap::new(), None);
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.starts_with('#') {
                continue;
            }
            for entry in line.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
                let (name, value) = entry.split_once('=').ok_or(BadKeyring::Line(number))?;
                let (name, value) = (name.trim(), unquoted(value.trim()).ok_or(BadKeyring::Line(number))?);
                if name == "active" {
                    if active.replace(value.to_owned()).is_some() {
                        return Err(BadKeyring::Twice(number));
                    }
                    continue;
                }
                if !is_key_id(name) {
                    return Err(BadKeyring::Name(number));
                }
                let key = decode(value).ok_or(BadKeyring::Key(number))?;
                if keys.insert(name.to_owned(), key).is_some() {
                    return Err(BadKeyring::Twice(number));
                }
                if keys.len() > MOST_KEYS {
                    return Err(BadKeyring::TooMany);
                }
            }
        }
        let active = active.ok_or(BadKeyring::NoActive)?;
        if !keys.contains_key(&active) {
            // What stands there could be a key that was pasted into the wrong place.
            let shown = if is_key_id(&active) { active } else { "…".to_owned() };
            return Err(BadKeyring::ActiveUnknown(shown));
        }
        Ok(KeySet { keys, active })
    }

    /// The text form, which [`KeySet::parse`] reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Sized for the whole, so that no part is left behind where the text grew.
        let mut text = Zeroizing::new(String::with_capacity(256 + self.keys.len() * 128));
        text.push_str(
            "# The keys that seal what toolgate stores. Keep a copy apart from the database: without\n",
        );
        text.push_str("# them every login is lost, with them and the database every login is open.\n");
        text.push_str(&format!("active = \"{}\"\n", self.active));
        for (id, key) in &self.keys {
            let encoded = Zeroizing::new(STANDARD.encode(key.as_slice()));
            for part in [id.as_str(), " = \"", encoded.as_str(), "\"\n"] {
                text.push_str(part);
            }
        }
        text
    }

    /// The names of the keys, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The name of the key that seals.
    pub fn active_id(&self) -> &str {
        &self.active
    }

    /// Whether there is a key of this name.
    pub fn contains(&self, id: &str) -> bool {
        self.keys.contains_key(id)
    }

    /// Adds a key, not active yet.
    ///
    /// # Errors
    /// [`KeySetError::NotAdded`].
    pub fn add(&mut self, id: &str, key: &[u8; KEY_BYTES]) -> Result<(), KeySetError> {
        if !is_key_id(id) || self.keys.contains_key(id) || self.keys.len() >= MOST_KEYS {
            return Err(KeySetError::NotAdded);
        }
        self.keys.insert(id.to_owned(), Zeroizing::new(*key));
        Ok(())
    }

    /// Makes a key the one that seals.
    ///
    /// # Errors
    /// [`KeySetError::Unknown`].
    pub fn activate(&mut self, id: &str) -> Result<(), KeySetError> {
        if !self.contains(id) {
            return Err(KeySetError::Unknown);
        }
        self.active = id.to_owned();
        Ok(())
    }

    /// Removes a key. Whether something is still sealed with it is the caller's to know.
    ///
    /// # Errors
    /// [`KeySetError::Unknown`], [`KeySetError::Active`].
    pub fn remove(&mut self, id: &str) -> Result<(), KeySetError> {
        if id == self.active {
            return Err(KeySetError::Active);
        }
        self.keys.remove(id).map(|_| ()).ok_or(KeySetError::Unknown)
    }

    /// Whether both have a key of the same name and the same bytes.
    fn has_key_of(&self, other: &KeySet) -> bool {
        let is_same = |(id, key): (&String, &Zeroizing<[u8; KEY_BYTES]>)| {
            other.key(id).is_some_and(|other| constant_time_eq(other, key.as_slice()))
        };
        self.keys.iter().any(is_same)
    }

    fn key(&self, id: &str) -> Option<&[u8; KEY_BYTES]> {
        self.keys.get(id).map(|key| &**key)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}

/// Gives the present set of keys, when it can be had.
type Source = Box<dyn Fn() -> Option<KeySet> + Send + Sync>;

/// The keys in use. Cheap to clone; clones see the same keys, also after they were exchanged.
#[derive(Clone)]
pub struct Keyring(Arc<Shared>);

struct Shared {
    set: RwLock<Arc<KeySet>>,
    source: Source,
}

impl Keyring {
    /// These keys, and no others until [`Keyring::replace`].
    pub fn new(set: KeySet) -> Self {
        Self::with_source(set, || None)
    }

    /// These keys; a value sealed with an unknown one makes it ask `source` for the present ones.
    pub fn with_source(set: KeySet, source: impl Fn() -> Option<KeySet> + Send + Sync + 'static) -> Self {
        Keyring(Arc::new(Shared { set: RwLock::new(Arc::new(set)), source: Box::new(source) }))
    }

    /// Reads the text form, see [`KeySet::parse`].
    ///
    /// # Errors
    /// [`BadKeyring`].
    pub fn parse(text: &str) -> Result<Self, BadKeyring> {
        KeySet::parse(text).map(Self::new)
    }

    /// The present keys.
    pub fn keys(&self) -> Arc<KeySet> {
        // A set is exchanged whole, so one that a panicking thread left is as good as any.
        Arc::clone(&self.0.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Exchanges the keys, unless the new ones have none in common with the present ones: those belong to another
    /// database, and what they would seal here nobody could open. Says whether they were exchanged.
    pub fn replace(&self, set: KeySet) -> bool {
        if !self.keys().has_key_of(&set) {
            return false;
        }
        *self.0.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        true
    }

    /// The name of the key that seals.
    pub fn active_id(&self) -> String {
        self.keys().active.clone()
    }

    /// Seals `plaintext` with the active key, so that it opens at `place` only. `nonce` must be random and new.
    pub fn seal(&self, nonce: [u8; seal::NONCE_BYTES], place: &Place<'_>, plaintext: &[u8]) -> Vec<u8> {
        let keys = self.keys();
        let key = keys.key(&keys.active).expect("a set holds its active key");
        seal::seal(key, &keys.active, nonce, place, plaintext)
    }

    /// Opens what was sealed at `place` with any of the keys.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let id = key_id_of(sealed).ok_or(OpenError::Malformed)?;
        let mut keys = self.keys();
        if !keys.contains(id)
            && let Some(set) = (self.0.source)()
        {
            self.replace(set);
            keys = self.keys();
        }
        let key = keys.key(id).ok_or_else(|| OpenError::UnknownKey(id.to_owned()))?;
        seal::open(key, place, sealed)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.keys().keys.len())
    }
}

/// The name of the key that sealed these bytes, when they have the form of a sealed value.
pub fn key_id_of(sealed: &[u8]) -> Option<&str> {
    seal::key_id(sealed).filter(|id| is_key_id(id))
}

fn is_key_id(text: &str) -> bool {
    text.strip_prefix(KEY_ID_PREFIX).is_some_and(|rest| {
        !rest.is_empty()
            && text.len() <= LONGEST_ID_BYTES
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// A value in double quotes, or without any.
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').filter(|inner| !inner.contains('"')),
        None => Some(value).filter(|value| !value.is_empty() && !value.contains('"')),
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if bytes.len() != KEY_BYTES {
        return None;
    }
    key.copy_from_slice(&bytes);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> KeySet {
        let mut set = KeySet::of_one("key_one", &[1; 32]).unwrap();
        set.add("key_two", &[2; 32]).unwrap();
        set
    }

    #[test]
    fn a_written_keyring_is_read_back() {
        let read = KeySet::parse(&set().to_text()).unwrap();
        assert_eq!(read.ids().collect::<Vec<_>>(), ["key_one", "key_two"]);
        assert_eq!(read.active_id(), "key_one");
        assert_eq!(read.key("key_two"), Some(&[2; 32]));
        let in_one_line =
            set().to_text().lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("; ");
        assert_eq!(KeySet::parse(&in_one_line).unwrap().key("key_one"), Some(&[1; 32]));
    }

    #[test]
    fn a_bad_keyring_is_refused_and_not_repeated() {
        let key = STANDARD.encode([7; 32]);
        let short = STANDARD.encode([7; 31]);
        for (text, error) in [
            (String::new(), BadKeyring::NoActive),
            (format!("key_a = \"{key}\""), BadKeyring::NoActive),
            (format!("active = \"key_b\"\nkey_a = \"{key}\""), BadKeyring::ActiveUnknown("key_b".into())),
            (format!("active = \"{key}\"\nkey_a = \"{key}\""), BadKeyring::ActiveUnknown("…".into())),
            ("nonsense".into(), BadKeyring::Line(1)),
            ("\nactive = \"key_a".into(), BadKeyring::Line(2)),
            ("key_a =".into(), BadKeyring::Line(1)),
            (format!("other = \"{key}\""), BadKeyring::Name(1)),
            (format!("key_ = \"{key}\""), BadKeyring::Name(1)),
            (format!("key_{} = \"{key}\"", "a".repeat(61)), BadKeyring::Name(1)),
            (format!("key_a = \"{short}\""), BadKeyring::Key(1)),
            ("key_a = \"?\"".into(), BadKeyring::Key(1)),
            (format!("key_a = \"{key}\"\nkey_a = \"{key}\""), BadKeyring::Twice(2)),
            ("active = \"key_a\"\nactive = \"key_a\"".into(), BadKeyring::Twice(2)),
        ] {
            let found = KeySet::parse(&text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains(&key));
        }
    }

    #[test]
    fn the_active_key_cannot_be_removed_and_an_unknown_one_not_activated() {
        let mut set = set();
        assert_eq!(set.remove("key_one"), Err(KeySetError::Active));
        assert_eq!(set.remove("key_three"), Err(KeySetError::Unknown));
        assert_eq!(set.activate("key_three"), Err(KeySetError::Unknown));
        assert_eq!(set.add("key_two", &[3; 32]), Err(KeySetError::NotAdded));
        assert_eq!(set.add("two", &[3; 32]), Err(KeySetError::NotAdded));
        set.activate("key_two").unwrap();
        set.remove("key_one").unwrap();
        assert_eq!(set.ids().collect::<Vec<_>>(), ["key_two"]);
    }

    #[test]
    fn an_unknown_key_makes_the_keyring_ask_its_source() {
        let place = Place { table: "t", column: "c", row: "r", project: "p", user: "u" };
        let sealed = {
            let mut newer = set();
            newer.activate("key_two").unwrap();
            Keyring::new(newer).seal([0; 24], &place, b"secret")
        };
        let old = || KeySet::of_one("key_one", &[1; 32]).unwrap();
        let error = Keyring::new(old()).open(&place, &sealed).unwrap_err();
        assert_eq!(error, OpenError::UnknownKey("key_two".into()));
        let asking = Keyring::with_source(old(), || Some(set()));
        let clone = asking.clone();
        assert_eq!(asking.open(&place, &sealed).unwrap().as_slice(), b"secret");
        assert!(clone.keys().contains("key_two"), "clones see the exchanged keys");
    }

    #[test]
    fn foreign_keys_do_not_take_the_place_of_the_present_ones() {
        let keyring = Keyring::new(set());
        for foreign in
            [KeySet::of_one("key_one", &[9; 32]).unwrap(), KeySet::of_one("key_new", &[9; 32]).unwrap()]
        {
            assert!(!keyring.replace(foreign));
        }
        assert_eq!(keyring.active_id(), "key_one");
        assert!(keyring.replace(KeySet::of_one("key_two", &[2; 32]).unwrap()));
        assert_eq!(keyring.active_id(), "key_two");
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?} {:?}", set(), Keyring::new(set()));
        assert_eq!(shown, "KeySet(2 keys) Keyring(2 keys)");
    }
}
