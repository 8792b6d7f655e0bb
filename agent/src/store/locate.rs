use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use sparkherd_checkpoint::gguf_file_name;
use thiserror::Error;

/// Files of one directory that are looked at; a checkpoint has a few hundred at most.
const FILES_MAX: usize = 4096;

/// Why a source is not a directory of weights on this node.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LocateError {
    #[error("{url:?} is not served: this version serves file:/// sources only")]
    Scheme { url: String },
    #[error("{url:?} is not file:// with an absolute path without '..'")]
    Malformed { url: String },
    #[error("{path} is not below an allowed root of this node; allowed: {roots}")]
    OutsideRoots { path: String, roots: String },
    #[error("{path} leads out of the allowed root {root}")]
    Escapes { path: String, root: String },
    #[error("cannot read {path}: {reason}")]
    Unreadable { path: String, reason: String },
    #[error("{path} is neither a directory nor a .gguf file")]
    NotADirectory { path: String },
    #[error("{path} has more than {FILES_MAX} files")]
    TooManyFiles { path: String },
}

/// Names, lengths and modification times of a directory's files: differs when anything in it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(Vec<(String, u64, u128)>);

/// A directory of weights that may be read, or a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Without symbolic links.
    pub directory: PathBuf,
    /// The allowed root it lies below, without symbolic links.
    pub root: PathBuf,
    pub fingerprint: Fingerprint,
}

/// The directories an admin allowed.
#[derive(Clone, Debug)]
pub struct Roots(Vec<PathBuf>);

impl Roots {
    pub const fn new(roots: Vec<PathBuf>) -> Self {
        Self(roots)
    }

    /// Finds the source's directory. What lies outside the roots is not touched, so nobody learns what is there.
    pub fn locate(&self, source: &str) -> Result<Located, LocateError> {
        let path = parse(source)?;
        let outside = || LocateError::OutsideRoots { path: path.display().to_string(), roots: self.list() };
        let root = self.0.iter().find(|root| path.starts_with(root)).ok_or_else(outside)?;
        let canonical_root = canonical(root)?;
        let directory = canonical(&path)?;
        within(&directory, &canonical_root, &path)?;
        let fingerprint = fingerprint(&directory, &canonical_root)?;
        Ok(Located { directory, root: canonical_root, fingerprint })
    }

    fn list(&self) -> String {
        let shown: Vec<String> = self.0.iter().map(|root| root.display().to_string()).collect();
        if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
    }
}

fn parse(source: &str) -> Result<PathBuf, LocateError> {
    let url = || source.to_owned();
    let path = source.strip_prefix("file://").ok_or_else(|| LocateError::Scheme { url: url() })?;
    let path = PathBuf::from(path);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain { Ok(path) } else { Err(LocateError::Malformed { url: url() }) }
}

fn canonical(path: &Path) -> Result<PathBuf, LocateError> {
    path.canonicalize().map_err(|error| unreadable(path, &error))
}

fn within(canonical: &Path, root: &Path, shown: &Path) -> Result<(), LocateError> {
    if canonical.starts_with(root) {
        return Ok(());
    }
    Err(LocateError::Escapes { path: shown.display().to_string(), root: root.display().to_string() })
}

fn fingerprint(directory: &Path, root: &Path) -> Result<Fingerprint, LocateError> {
    let shown = || directory.display().to_string();
    let entries = if directory.is_dir() {
        let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    } else if directory.is_file() && gguf_file_name(directory).is_some() {
        Ok(vec![directory.to_owned()])
    } else {
        return Err(LocateError::NotADirectory { path: shown() });
    };
    let mut files = Vec::new();
    for path in entries.map_err(|error| unreadable(directory, &error))? {
        // Follows links: what is read is what they lead to, and that too must lie below the root.
        within(&canonical(&path)?, root, &path)?;
        let metadata = fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
        if !metadata.is_file() {
            continue;
        }
        if files.len() == FILES_MAX {
            return Err(LocateError::TooManyFiles { path: shown() });
        }
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.push((name, metadata.len(), modified.unwrap_or_default().as_nanos()));
    }
    files.sort();
    Ok(Fingerprint(files))
}

fn unreadable(path: &Path, error: &io::Error) -> LocateError {
    LocateError::Unreadable { path: path.display().to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{LocateError, Roots};

    #[test]
    fn finds_a_directory_below_a_root_and_sees_it_change() {
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("tiny");
        fs::create_dir(&model).unwrap();
        fs::write(model.join("config.json"), "{}").unwrap();
        let roots = Roots::new(vec![root.path().to_owned()]);
        let source = format!("file://{}", model.display());
        let first = roots.locate(&source).unwrap();
        assert_eq!(first.directory, model.canonicalize().unwrap());
        assert_eq!(roots.locate(&source).unwrap(), first);
        fs::write(model.join("config.json"), "{ }").unwrap();
        assert_ne!(roots.locate(&source).unwrap().fingerprint, first.fingerprint);
    }

    #[test]
    fn a_gguf_file_stands_for_itself() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("model.gguf");
        fs::write(&file, "GGUF").unwrap();
        let roots = Roots::new(vec![root.path().to_owned()]);
        let locate = || roots.locate(&format!("file://{}", file.display())).unwrap();
        let first = locate();
        assert_eq!(first.directory, file.canonicalize().unwrap());
        fs::write(root.path().join("other.gguf"), "GGUF").unwrap();
        assert_eq!(locate(), first, "what lies beside it does not count");
        fs::write(&file, "GGUF!").unwrap();
        assert_ne!(locate().fingerprint, first.fingerprint);
    }

    #[test]
    fn refuses_what_is_outside_by_name_or_by_link() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("secret"), "x").unwrap();
        symlink(other.path(), root.path().join("way-out")).unwrap();
        let model = root.path().join("model");
        fs::create_dir(&model).unwrap();
        symlink(other.path().join("secret"), model.join("weights")).unwrap();
        let roots = Roots::new(vec![root.path().to_owned()]);
        let locate = |path: String| roots.locate(&format!("file://{path}"));
        let below = |name: &str| format!("{}/{name}", root.path().display());
        assert!(matches!(locate(below("way-out")), Err(LocateError::Escapes { .. })));
        assert!(matches!(locate(below("model")), Err(LocateError::Escapes { .. })));
        assert!(matches!(locate(below("../x")), Err(LocateError::Malformed { .. })));
        assert!(matches!(locate("relative".to_owned()), Err(LocateError::Malformed { .. })));
        let Err(LocateError::OutsideRoots { roots: named, .. }) = locate("/etc".to_owned()) else {
            panic!("found")
        };
        assert_eq!(named, root.path().display().to_string());
        // A sibling whose name begins with the root's name is not below it.
        let sibling = format!("{}-twin", root.path().display());
        assert!(matches!(locate(sibling), Err(LocateError::OutsideRoots { .. })));
    }

    #[test]
    fn says_what_is_missing_and_what_is_not_served() {
        let root = tempfile::tempdir().unwrap();
        let roots = Roots::new(vec![root.path().to_owned()]);
        let source = |name: &str| format!("file://{}/{name}", root.path().display());
        assert!(matches!(roots.locate(&source("gone")), Err(LocateError::Unreadable { .. })));
        fs::write(root.path().join("file"), "").unwrap();
        assert!(matches!(roots.locate(&source("file")), Err(LocateError::NotADirectory { .. })));
        for url in ["hf://org/name", "https://host/m/", "/plain"] {
            assert!(matches!(roots.locate(url), Err(LocateError::Scheme { .. })), "{url}");
        }
    }
}
