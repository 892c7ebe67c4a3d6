//! The bearer keys of call control: the files of a directory, which is a mounted Secret.
//!
//! Every file is one key (its trailing white space doesn't count), so that keys can be handed out and withdrawn one by
//! one. A changed Secret takes effect with the first request after kubelet has updated the directory: it swaps the
//! symbolic link `..data`, which is looked at for each request. Without the directory nobody gets in.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Longest key, bytes; a longer file is no key.
const LONGEST: u64 = 4096;
/// Keys that are read at most.
const MOST: usize = 256;

/// Keys are compared by their hashes, so that neither their content nor their length shows in the time that it takes.
type Hash = [u8; 32];

/// A key, and the name of its file.
type Named = (Hash, Arc<str>);

/// The keys of a directory.
#[derive(Debug)]
pub struct Keys {
    directory: PathBuf,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// Where `..data` pointed when `hashes` were read; `None` in a directory without it, which is read each time.
    version: Option<PathBuf>,
    hashes: Arc<[Named]>,
    /// What was last said about a directory that can't be read, so that it is said once.
    complaint: String,
}

impl Keys {
    /// The keys in `directory`, which need not exist yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), cache: Mutex::default() }
    }

    /// The name of the key that an `Authorization` header carries, if it is one of these.
    pub async fn holder(self: &Arc<Self>, authorization: Option<&HeaderValue>) -> Option<Arc<str>> {
        let key = authorization.and_then(bearer)?;
        let offered: Hash = Sha256::digest(key).into();
        let hashes = match self.cached() {
            Some(hashes) => hashes,
            None => {
                let keys = Arc::clone(self);
                tokio::task::spawn_blocking(move || keys.current()).await.unwrap_or_default()
            }
        };
        // All of them are compared, whichever fits.
        let fitting =
            hashes.iter().fold(
                None,
                |found, (hash, name)| {
                    if bool::from(hash.ct_eq(&offered)) { Some(name) } else { found }
                },
            );
        fitting.cloned()
    }

    /// The keys, if they are those that were read last. A mounted Secret is in memory: one link is read faster than another
    /// thread would be asked.
    fn cached(&self) -> Option<Arc<[Named]>> {
        let version = fs::read_link(self.directory.join("..data")).ok()?;
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        (cache.version.as_ref() == Some(&version)).then(|| Arc::clone(&cache.hashes))
    }

    /// The keys as they are now. Blocks.
    fn current(&self) -> Arc<[Named]> {
        let version = fs::read_link(self.directory.join("..data")).ok();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if version.is_none() || version != cache.version {
            let (hashes, complaint) = match read(&self.directory) {
                Ok(hashes) => (hashes, String::new()),
                Err(error) => (Vec::new(), error.to_string()),
            };
            if !complaint.is_empty() && complaint != cache.complaint {
                let directory = self.directory.display();
                tracing::warn!(
                    "the API keys in {directory} can't be read, so nobody may control calls: {complaint}"
                );
            }
            *cache = Cache { version, hashes: hashes.into(), complaint };
        }
        Arc::clone(&cache.hashes)
    }
}

/// The token of `Bearer <token>` (RFC 6750 §2.1; the scheme in any case).
pub fn bearer(authorization: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = authorization.as_bytes().split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty() { Some(token) } else { None }
}

fn read(directory: &Path) -> io::Result<Vec<Named>> {
    let mut hashes = Vec::new();
    for entry in fs::read_dir(directory)?.take(MOST) {
        let path = entry?.path();
        // Kubelet's own entries begin with two dots.
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || !fs::metadata(&path)?.is_file() {
            continue;
        }
        let mut key = Vec::new();
        fs::File::open(&path)?.take(LONGEST + 1).read_to_end(&mut key)?;
        let trimmed = key.trim_ascii();
        if !trimmed.is_empty() && trimmed.len() as u64 <= LONGEST {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            hashes.push((Sha256::digest(trimmed).into(), name.into()));
        }
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn allowed(keys: &Arc<Keys>, header: &str) -> bool {
        keys.holder(Some(&HeaderValue::from_str(header).unwrap())).await.is_some()
    }

    #[tokio::test]
    async fn every_file_is_a_key_without_its_trailing_newline() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("crm"), "crm-key\n").unwrap();
        fs::write(directory.path().join("desk"), "desk-key").unwrap();
        fs::write(directory.path().join("empty"), "\n").unwrap();
        let keys = Arc::new(Keys::new(directory.path()));
        for (header, allows) in [
            ("Bearer crm-key", true),
            ("bearer desk-key", true),
            ("Bearer  desk-key ", true),
            ("Bearer crm-ke", false),
            ("Bearer crm-key2", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("Basic crm-key", false),
            ("crm-key", false),
        ] {
            assert_eq!(allowed(&keys, header).await, allows, "{header}");
        }
        assert_eq!(keys.holder(None).await, None);
        let desk = HeaderValue::from_static("Bearer desk-key");
        assert_eq!(keys.holder(Some(&desk)).await.as_deref(), Some("desk"), "it is named after its file");
    }

    #[tokio::test]
    async fn without_the_directory_nobody_gets_in() {
        let keys = Arc::new(Keys::new("/nowhere/at/all"));
        assert!(!allowed(&keys, "Bearer anything").await);
    }

    /// As kubelet's atomic writer lays a Secret out.
    fn mount(directory: &Path, version: &str, key: &str) {
        fs::create_dir(directory.join(version)).unwrap();
        fs::write(directory.join(version).join("crm"), key).unwrap();
        let _ = symlink("..data/crm", directory.join("crm"));
        symlink(version, directory.join("..data_tmp")).unwrap();
        fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
    }

    #[tokio::test]
    async fn a_changed_secret_counts_from_the_next_request_on() {
        let directory = tempfile::tempdir().unwrap();
        mount(directory.path(), "..2026_1", "old-key");
        let keys = Arc::new(Keys::new(directory.path()));
        assert!(allowed(&keys, "Bearer old-key").await);
        mount(directory.path(), "..2026_2", "new-key");
        assert!(allowed(&keys, "Bearer new-key").await);
        assert!(!allowed(&keys, "Bearer old-key").await, "a withdrawn key is never taken again");
    }
}
