//! The disk copy: what a restarted gateway container serves from while the API server can't be reached.
//!
//! ```text
//! <state>/table.json           generation, hash, names of the slices, credentials; replaced by an atomic rename
//! <state>/slices/<hash>.json   a slice, named by its content's hash and never changed
//! ```
//!
//! The directory is an emptyDir of the pod, so the copy lives exactly as long as the pod and nobody else sees it. It holds
//! credentials: files have mode 0600, the directory of the slices 0700. What is read is verified like what is
//! fetched; a copy that can't be read or belongs to another gateway is left aside with a warning, never served.
//!
//! [`Disk::save`] is enough for a container that restarts, and takes no time to speak of; it is done before a table is
//! acknowledged. [`Disk::tidy`] and [`Unsynced::sync`], for a node that loses power, takes tens of milliseconds on a slow disk and comes after that:
//! such a node may find a copy that is damaged, which is refused, or one that is some tables old.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::snapshot::{Credential, Parts, Piece};
use crate::routing::table::CredentialId;

/// The layout above. A gateway that reads another one waits for the API server.
const VERSION: u32 = 1;

/// The disk copy of one gateway pod. Methods block: call them where blocking is allowed.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    /// `namespace/name` of the SipGateway.
    gateway: String,
    /// Hashes of the slices that this process has written: what an earlier one left may be damaged and is written anew.
    written: HashSet<String>,
    /// Files that are written and not on the disk for sure.
    unsynced: Vec<PathBuf>,
}

/// Files and directories that a node which loses power may not have.
#[derive(Debug)]
pub struct Unsynced {
    paths: Vec<PathBuf>,
}

/// Why the copy can't be used or written. Names no content.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not JSON of this layout.
    #[error("{path} can't be read at line {line}, column {column}; the next table replaces it")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Where; what is there may be secret.
        line: usize,
        /// Where.
        column: usize,
    },
    /// Another layout.
    #[error("{path} has layout {found}, this version reads {VERSION}; the next table replaces it")]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// Another gateway's copy.
    #[error(
        "{path} belongs to gateway {found}, not {expected}; give each gateway pod its own VOICEDOCK_STATE"
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    gateway: String,
    generation: i64,
    hash: String,
    slices: Vec<HeadSlice>,
    credentials: BTreeMap<CredentialId, Credential>,
}

#[derive(Serialize, Deserialize)]
struct HeadSlice {
    name: String,
    hash: String,
}

impl Disk {
    /// The copy in `directory` of the gateway `namespace/name`.
    pub fn new(directory: impl Into<PathBuf>, gateway: impl Into<String>) -> Self {
        Self {
            directory: directory.into(),
            gateway: gateway.into(),
            written: HashSet::new(),
            unsynced: Vec::new(),
        }
    }

    /// The copy, not verified yet; `None` if there is none.
    pub fn load(&self) -> Result<Option<Parts>, DiskError> {
        let path = self.head();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DiskError::Io { path, source }),
        };
        let head: Head = serde_json::from_slice(&text).map_err(|error| unreadable(&path, &error))?;
        if head.version != VERSION {
            return Err(DiskError::Version { path, found: head.version });
        }
        if head.gateway != self.gateway {
            return Err(DiskError::Foreign { path, found: head.gateway, expected: self.gateway.clone() });
        }
        let slices = head.slices.into_iter().map(|slice| {
            let path = self.slice(&slice.hash);
            let text =
                fs::read_to_string(&path).map_err(|source| DiskError::Io { path: path.clone(), source })?;
            let content: Box<serde_json::value::RawValue> =
                serde_json::from_str(&text).map_err(|error| unreadable(&path, &error))?;
            Ok(Piece { name: slice.name, hash: slice.hash, content: content.into() })
        });
        Ok(Some(Parts {
            generation: head.generation,
            hash: head.hash,
            slices: slices.collect::<Result<_, DiskError>>()?,
            credentials: head.credentials,
        }))
    }

    /// Replaces the copy: new slices first, then the head.
    pub fn save(&mut self, parts: &Parts) -> Result<(), DiskError> {
        let slices = self.directory.join("slices");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&slices)
            .map_err(|source| DiskError::Io { path: slices.clone(), source })?;
        for piece in &parts.slices {
            if !self.written.contains(&piece.hash) {
                let path = self.slice(&piece.hash);
                replace(&path, piece.content.get().as_bytes())?;
                self.unsynced.push(path);
                self.written.insert(piece.hash.clone());
            }
        }
        let head = Head {
            version: VERSION,
            gateway: self.gateway.clone(),
            generation: parts.generation,
            hash: parts.hash.clone(),
            slices: (parts.slices.iter())
                .map(|piece| HeadSlice { name: piece.name.clone(), hash: piece.hash.clone() })
                .collect(),
            credentials: parts.credentials.clone(),
        };
        let path = self.head();
        let text = serde_json::to_vec(&head).map_err(|error| unreadable(&path, &error))?;
        replace(&path, &text)?;
        self.unsynced.push(path);
        let named: HashSet<&str> = parts.slices.iter().map(|piece| &*piece.hash).collect();
        self.written.retain(|hash| named.contains(&**hash));
        Ok(())
    }

    /// Deletes the slices that the saved head doesn't name; returns what was saved and is not on the disk for sure.
    pub fn tidy(&mut self) -> Result<Unsynced, DiskError> {
        let slices = self.directory.join("slices");
        let named: HashSet<PathBuf> = self.written.iter().map(|hash| self.slice(hash)).collect();
        let io = |source| DiskError::Io { path: slices.clone(), source };
        for entry in fs::read_dir(&slices).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if !named.contains(&path) {
                fs::remove_file(&path).map_err(|source| DiskError::Io { path, source })?;
            }
        }
        let mut paths = std::mem::take(&mut self.unsynced);
        paths.extend([slices, self.directory.clone()]);
        Ok(Unsynced { paths })
    }

    fn head(&self) -> PathBuf {
        self.directory.join("table.json")
    }

    /// Only a hash becomes a file name: a head with anything else in its place leads nowhere.
    fn slice(&self, hash: &str) -> PathBuf {
        let name: String = hash.chars().filter(char::is_ascii_alphanumeric).collect();
        self.directory.join("slices").join(format!("{name}.json"))
    }
}

impl Unsynced {
    /// Returns once all of it is on the disk.
    pub fn sync(self) -> Result<(), DiskError> {
        for path in self.paths {
            match File::open(&path).and_then(|file| file.sync_all()) {
                // A slice that is gone again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(DiskError::Io { path, source }),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Writes a file of mode 0600 whole or not at all.
fn replace(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    let new = path.with_extension("new");
    let write = || {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        fs::rename(&new, path)
    };
    write().map_err(|source| DiskError::Io { path: path.to_owned(), source })
}

fn unreadable(path: &Path, error: &serde_json::Error) -> DiskError {
    DiskError::Unreadable { path: path.to_owned(), line: error.line(), column: error.column() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::gateway::snapshot::tests::{parts, parts_with_login};

    fn disk() -> (tempfile::TempDir, Disk) {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path(), "voice/default");
        (directory, disk)
    }

    #[test]
    fn what_was_saved_is_loaded_and_holds() {
        let (_directory, mut disk) = disk();
        assert!(disk.load().unwrap().is_none(), "there is no copy at first");
        let saved = parts_with_login(7, "v1", "secret");
        disk.save(&saved).unwrap();
        disk.tidy().unwrap().sync().unwrap();
        let (_, loaded) = disk.load().unwrap().unwrap().assemble().unwrap();
        let (_, saved) = saved.assemble().unwrap();
        assert_eq!((loaded.generation, &loaded.hash), (7, &saved.hash));
        assert_eq!(loaded.credentials, saved.credentials);
    }

    #[test]
    fn nobody_else_may_read_the_copy() {
        let (directory, mut disk) = disk();
        disk.save(&parts_with_login(1, "v1", "secret")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory.path().join("table.json")), 0o600);
        assert_eq!(mode(&directory.path().join("slices")), 0o700);
        for slice in fs::read_dir(directory.path().join("slices")).unwrap() {
            assert_eq!(mode(&slice.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn slices_and_credentials_that_nothing_names_any_more_go() {
        let (directory, mut disk) = disk();
        disk.save(&parts_with_login(1, "v1", "old-secret")).unwrap();
        let next = parts_with_login(2, "v2", "new-secret");
        disk.save(&next).unwrap();
        disk.tidy().unwrap();
        let kept = fs::read_dir(directory.path().join("slices")).unwrap().count();
        assert_eq!(kept, next.slices.len());
        let text = fs::read_to_string(directory.path().join("table.json")).unwrap();
        assert!(!text.contains("old-secret"), "a revoked credential is not kept");
    }

    #[test]
    fn a_copy_that_was_damaged_is_refused() {
        let (directory, mut disk) = disk();
        disk.save(&parts(1, &["+31201234567"])).unwrap();
        let slice = fs::read_dir(directory.path().join("slices")).unwrap().next().unwrap().unwrap().path();
        fs::write(&slice, "{}").unwrap();
        let error = disk.load().unwrap().unwrap().assemble().unwrap_err();
        assert!(error.to_string().contains("where the head says"), "{error}");
        let mut restarted = Disk::new(directory.path(), "voice/default");
        restarted.save(&parts(1, &["+31201234567"])).unwrap();
        assert!(disk.load().unwrap().unwrap().assemble().is_ok(), "the next table heals it");
        fs::write(directory.path().join("table.json"), r#"{"version":1,"password":"hunter2"#).unwrap();
        let error = disk.load().unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_copy_of_another_gateway_or_layout_is_refused() {
        let (directory, mut disk) = disk();
        disk.save(&parts(1, &["+31201234567"])).unwrap();
        let other = Disk::new(directory.path(), "voice/other");
        assert!(matches!(other.load(), Err(DiskError::Foreign { .. })));
        let path = directory.path().join("table.json");
        let text = fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":99");
        fs::write(&path, text).unwrap();
        assert!(matches!(disk.load(), Err(DiskError::Version { found: 99, .. })));
    }

    #[test]
    fn a_write_that_was_cut_short_leaves_the_old_copy() {
        let (directory, mut disk) = disk();
        disk.save(&parts(1, &["+31201234567"])).unwrap();
        fs::write(directory.path().join("table.new"), "{").unwrap();
        assert_eq!(disk.load().unwrap().unwrap().generation, 1);
        disk.save(&parts(2, &["+31201234567"])).unwrap();
        assert_eq!(disk.load().unwrap().unwrap().generation, 2);
    }
}
