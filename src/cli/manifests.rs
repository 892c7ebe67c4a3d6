//! Manifests as they lie in a repository: files, directories and standard input, read into objects with their places.
//!
//! Kinds of others are passed over, apart from Secrets and Namespaces, of which the compiler wants to know. A `List` is what
//! it contains. Nothing is fetched and nothing is rendered: a Helm template is no manifest.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::yaml::{self, Content, Node};

/// What a file must not be longer than, so that a wrong path doesn't fill the memory.
const LONGEST_FILE: u64 = 64 * 1024 * 1024;

/// A document with where it came from.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file as it was named or found.
    pub file: Arc<str>,
    /// What it says.
    pub root: Node,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file; `-` is standard input.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why manifests can't be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    /// A file or directory can't be read.
    #[error("can't read {path}: {source}; name files and directories that are there")]
    Read {
        /// It.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is too long.
    #[error("{path} is longer than 64 MiB, which no manifest is")]
    TooLong {
        /// It.
        path: PathBuf,
    },
    /// There is nothing to look at.
    #[error(
        "there is no manifest in {paths}; name files, or directories with files that end in .yaml, .yml or .json"
    )]
    Nothing {
        /// What was named.
        paths: String,
    },
}

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Documents in the order of the paths.
    pub read: Vec<Manifest>,
    /// Documents that are no YAML, with what is wrong.
    pub broken: Vec<(Place, String)>,
    /// How many files were looked at.
    pub files: usize,
}

/// Reads files, directories (with what is below them) and `-`, standard input.
///
/// # Errors
/// When something can't be read, or is nothing to read.
pub fn read(paths: &[PathBuf]) -> Result<Manifests, ManifestsError> {
    let mut manifests = Manifests::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            let failed = |source| ManifestsError::Read { path: path.clone(), source };
            io::stdin().take(LONGEST_FILE).read_to_string(&mut text).map_err(failed)?;
            manifests.add("-", &text);
            continue;
        }
        let mut files = Vec::new();
        find(path, true, &mut files)?;
        for file in files {
            let failed = |source| ManifestsError::Read { path: file.clone(), source };
            if fs::metadata(&file).map_err(failed)?.len() > LONGEST_FILE {
                return Err(ManifestsError::TooLong { path: file });
            }
            let text = fs::read_to_string(&file).map_err(failed)?;
            manifests.add(&file.display().to_string(), &text);
        }
    }
    if manifests.files == 0 {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(ManifestsError::Nothing { paths: paths.join(", ") });
    }
    Ok(manifests)
}

/// The files of a path, in the order of their names; hidden ones only when they are named.
fn find(path: &Path, is_named: bool, files: &mut Vec<PathBuf>) -> Result<(), ManifestsError> {
    let failed = |source| ManifestsError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        let is_manifest =
            path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if is_named || is_manifest {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // A link to a directory may lead back to where it stands.
        let leads_away = entry.file_type().map_err(failed)?.is_symlink() && entry.path().is_dir();
        if !leads_away && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            entries.push(entry.path());
        }
    }
    entries.sort();
    entries.iter().try_for_each(|entry| find(entry, false, files))
}

impl Manifests {
    /// Adds the documents of a file.
    pub fn add(&mut self, file: &str, text: &str) {
        let file: Arc<str> = file.into();
        self.files += 1;
        for document in yaml::documents(text) {
            match document {
                Ok(root) => self.add_object(&file, root),
                Err(error) => {
                    let place = Place { file: file.clone(), line: error.line };
                    self.broken.push((place, error.message));
                }
            }
        }
    }

    fn add_object(&mut self, file: &Arc<str>, mut root: Node) {
        let is_list = root.text("kind").is_some_and(|kind| kind.ends_with("List"));
        if let (true, Content::Map(fields)) = (is_list, &mut root.content)
            && let Some(items) = fields.iter_mut().find(|(field, _)| field.name == "items")
            && let Content::List(items) = &mut items.1.content
        {
            for item in std::mem::take(items) {
                self.add_object(file, item);
            }
            return;
        }
        self.read.push(Manifest { file: file.clone(), root });
    }
}

impl Manifest {
    /// The line of a field.
    pub fn place<'a>(&self, steps: impl IntoIterator<Item = &'a str>) -> Place {
        Place { file: self.file.clone(), line: self.root.line_of(steps) }
    }
}
