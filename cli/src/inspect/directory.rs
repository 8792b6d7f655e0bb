use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use sparkherd_checkpoint::{Files, gguf_file_name};

/// Most entries of a checkpoint's directory; 1024 shards and their companions fit twice.
const ENTRIES_MAX: usize = 4096;

/// A checkpoint's directory, or its one GGUF file. Nothing is opened outside `root`, whatever symbolic links say, even if they change while we
/// read: the kernel resolves every path beneath the open root.
#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
    /// From the root.
    path: PathBuf,
    resolve: ResolveFlags,
    /// The one file that counts.
    only: Option<String>,
}

impl Directory {
    /// `directory` itself may be a link, as long as it leads to somewhere beneath `root`.
    pub(crate) fn beneath(root: &Path, directory: &Path) -> io::Result<Self> {
        let (root_path, _) = directory_and_file(&root.canonicalize()?);
        let (directory, only) = directory_and_file(&directory.canonicalize()?);
        let outside = || io::Error::other("the directory lies outside the allowed root");
        let path = directory.strip_prefix(&root_path).map_err(|_| outside())?;
        // No component at all is the root itself.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        Ok(Self { root: open_root(&root_path)?, path: path.to_owned(), resolve, only })
    }

    /// Without a root: the reader's own rights are the limit.
    pub(crate) fn unrestricted(directory: &Path) -> io::Result<Self> {
        let (directory, only) = directory_and_file(directory);
        let root = open_root(&directory)?;
        Ok(Self { root, path: PathBuf::from("."), resolve: ResolveFlags::empty(), only })
    }

    /// The open root: all that a sandbox has to leave readable.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), self.resolve).map_err(|errno| match errno {
            Errno::XDEV => io::Error::other("a symbolic link leads out of the allowed root"),
            Errno::NOSYS => io::Error::other("the kernel has no openat2; Linux 5.6 or later is needed"),
            other => other.into(),
        })
    }

    /// A pipe or a device in the place of a file would block or never end, so only regular files are opened.
    fn file(&self, name: &str) -> io::Result<(File, u64)> {
        let file = self.open(&self.path.join(name), OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("not a regular file"));
        }
        let bytes = u64::try_from(stat.st_size).map_err(io::Error::other)?;
        Ok((File::from(file), bytes))
    }
}

fn directory_and_file(path: &Path) -> (PathBuf, Option<String>) {
    let Some(file) = gguf_file_name(path).filter(|_| path.is_file()) else { return (path.to_owned(), None) };
    // A bare name lies in the working directory.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (directory.to_owned(), Some(file.to_owned()))
}

fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

impl Files for Directory {
    fn names(&self) -> io::Result<BTreeSet<String>> {
        if let Some(file) = &self.only {
            return Ok(BTreeSet::from([file.clone()]));
        }
        let entries = Dir::new(self.open(&self.path, OFlags::DIRECTORY)?)?;
        let mut names = BTreeSet::new();
        for entry in entries {
            // No file of a checkpoint has a name that is not UTF-8.
            if let Ok(name) = entry?.file_name().to_str() {
                names.insert(name.to_owned());
            }
            if names.len() > ENTRIES_MAX {
                return Err(io::Error::other(format!("more than {ENTRIES_MAX} entries")));
            }
        }
        Ok(names)
    }

    fn bytes(&self, name: &str) -> io::Result<u64> {
        Ok(self.file(name)?.1)
    }

    fn range(&self, name: &str, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        let (mut file, bytes) = self.file(name)?;
        file.seek(SeekFrom::Start(offset))?;
        let capacity = usize::try_from(limit.min(bytes.saturating_sub(offset))).map_err(io::Error::other)?;
        let mut content = Vec::with_capacity(capacity);
        file.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }
}
