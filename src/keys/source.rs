//! Where the keyring is: a file only its owner can read, a variable, or nowhere but in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Error;
use crate::config::{Environment, Secret, Settings};
use crate::crypto::{KEY_ID_PREFIX, KeySet};
use crate::id::{random_bytes, random_id};

/// The keyring's name in the data directory.
pub const KEYRING_FILE: &str = "keyring.toml";
const VARIABLE: &str = "TOOLGATE_KEYRING";
const LARGEST_FILE_BYTES: u64 = 64 << 10;

/// Where the keys are.
#[derive(Debug, Clone)]
pub enum Source {
    File(PathBuf),
    Variable(Secret),
    /// There is no place for files: keys end with the process, like the store in memory.
    Memory,
}

impl Source {
    /// Where the settings and the environment say it is.
    ///
    /// # Errors
    /// [`Error::TwoSources`].
    pub fn of(settings: &Settings, environment: &Environment) -> Result<Self, Error> {
        match (&settings.keys.file, environment.get(VARIABLE)) {
            (Some(_), Some(_)) => Err(Error::TwoSources),
            (Some(file), None) => Ok(Source::File(file.clone())),
            (None, Some(text)) => Ok(Source::Variable(Secret::new(text))),
            (None, None) => Ok(settings
                .data_directory(environment)
                .map_or(Source::Memory, |folder| Source::File(folder.join(KEYRING_FILE)))),
        }
    }

    /// The keys that are there.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Missing`] when there is no file, [`Error::Nowhere`] in memory.
    pub fn read(&self) -> Result<KeySet, Error> {
        match self {
            Source::File(path) => read(path),
            Source::Variable(text) => KeySet::parse(text.expose())
                .map_err(|problem| Error::Bad { place: VARIABLE.to_owned(), problem }),
            Source::Memory => Err(Error::Nowhere),
        }
    }

    /// The keys that are there, made first where there are none. Of several processes that do this at once, one makes
    /// them, and all get the same.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read_or_create(&self) -> Result<KeySet, Error> {
        match self {
            Source::Memory => Ok(new_set()),
            Source::Variable(_) => self.read(),
            Source::File(path) => match read(path) {
                Err(Error::Missing(_)) => {
                    write(path, &new_set(), Replace::Never)?;
                    read(path)
                }
                other => other,
            },
        }
    }

    /// Changes the keys in the file. What another process writes meanwhile waits for it.
    ///
    /// # Errors
    /// See [`Error`]; then nothing was changed.
    pub fn change<T>(&self, change: impl FnOnce(&mut KeySet) -> Result<T, Error>) -> Result<T, Error> {
        let path = match self {
            Source::File(path) => path,
            Source::Variable(_) => return Err(Error::InVariable),
            Source::Memory => return Err(Error::Nowhere),
        };
        // A file of its own, since the keyring itself is replaced by another file.
        let lock = path.with_extension("lock");
        let held = private(OpenOptions::new().create(true).truncate(false).write(true))
            .open(&lock)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|error| Error::file(&lock, &error))?;
        let mut set = read(path)?;
        let result = change(&mut set)?;
        write(path, &set, Replace::Present)?;
        drop(held);
        Ok(result)
    }
}

/// One new key.
fn new_set() -> KeySet {
    let key = Zeroizing::new(random_bytes::<32>());
    KeySet::of_one(&random_id(KEY_ID_PREFIX), &key).expect("a random id is a possible name")
}

fn read(path: &Path) -> Result<KeySet, Error> {
    let file = File::open(path).map_err(|error| Error::file(path, &error))?;
    if is_open_to_others(&file).map_err(|error| Error::file(path, &error))? {
        return Err(Error::TooOpen(path.to_owned()));
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(LARGEST_FILE_BYTES).read_to_string(&mut text).map_err(|error| Error::file(path, &error))?;
    KeySet::parse(&text).map_err(|problem| Error::Bad { place: format!("`{}`", path.display()), problem })
}

/// What to do with a file that is there.
#[derive(PartialEq, Eq)]
enum Replace {
    Never,
    Present,
}

/// Writes the whole file aside first, so that nobody ever reads half of it, and waits for the disk.
fn write(path: &Path, set: &KeySet, replace: Replace) -> Result<(), Error> {
    let aside = path.with_extension(random_id("new-"));
    let write_aside = || {
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(&aside)?;
        file.write_all(set.to_text().as_bytes())?;
        file.sync_all()
    };
    let put_in_place = || match replace {
        Replace::Present => fs::rename(&aside, path),
        Replace::Never => match fs::hard_link(&aside, path) {
            // Somebody else was faster; theirs counts.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        },
    };
    let done = write_aside().and_then(|()| put_in_place());
    // After a rename it is gone; otherwise it holds keys and must not stay.
    let _ = fs::remove_file(&aside);
    done.map_err(|error| Error::file(path, &error))
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(unix)]
fn is_open_to_others(file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_file: &File) -> std::io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(random_id("toolgate-keys-"));
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn a_made_keyring_is_private_and_made_once() {
        let folder = folder();
        let source = Source::File(folder.join(KEYRING_FILE));
        assert!(matches!(source.read(), Err(Error::Missing(_))));
        let sets: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| source.read_or_create().unwrap().active_id().to_owned()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(sets.iter().all(|id| *id == sets[0]), "{sets:?}");
        let file = folder.join(KEYRING_FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
        for mode in [0o640, 0o604, 0o644] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = source.read().unwrap_err();
            assert!(matches!(error, Error::TooOpen(_)) && error.hint().unwrap().contains("chmod 600"));
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn changes_made_at_once_are_all_kept() {
        let folder = folder();
        let source = Source::File(folder.join(KEYRING_FILE));
        source.read_or_create().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let source = &source;
                scope.spawn(move || {
                    source.change(|set| Ok(set.add(&format!("key_{number}"), &[number; 32])?)).unwrap();
                });
            }
        });
        assert_eq!(source.read().unwrap().ids().count(), 9);
        let refused = source.change(|set| Ok(set.activate("key_absent")?));
        assert!(matches!(refused, Err(Error::Unchanged(_))));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_file_the_variable_and_the_directory_are_places() {
        let with = |file: Option<&str>, data: Option<&str>, variable: &str| {
            let mut settings = Settings { data: data.map(PathBuf::from), ..Settings::default() };
            settings.keys.file = file.map(PathBuf::from);
            match Source::of(&settings, &[(VARIABLE, variable)].into_iter().collect()) {
                Ok(Source::File(path)) => path.display().to_string(),
                Ok(Source::Variable(_)) => "variable".to_owned(),
                Ok(Source::Memory) => "memory".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(with(Some("/k"), Some("/d"), ""), "/k");
        assert_eq!(with(None, Some("/d"), "x"), "variable");
        assert_eq!(with(None, Some("/d"), ""), "/d/keyring.toml");
        assert_eq!(with(None, None, ""), "memory");
        assert_eq!(with(Some("/k"), None, "x"), "both `keys.file` and TOOLGATE_KEYRING give a keyring");
    }
}
