//! Reading files below a directory, and only there.
//!
//! Paths are opened below the directory's own descriptor (`openat2` with `RESOLVE_BENEATH`), so that
//! no symlink, `..` or rename leads out of it; symlinks that stay inside work, such as the `..data` of
//! a mounted ConfigMap. A file is opened once and read from that descriptor, so what is hashed is what
//! is applied.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// Deepest folder that is entered.
const DEEPEST: usize = 16;

/// How often an open that raced with a rename is tried.
const RACES: usize = 16;

/// A file's content.
#[derive(Debug, PartialEq, Eq)]
pub struct FileText {
    /// What stands in it.
    pub bytes: Vec<u8>,
    /// Which file it was, and in what state, when it was opened.
    pub stamp: Stamp,
}

/// What tells one state of a file or folder from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Last change of content, seconds and nanoseconds.
    modified: (i64, i64),
    /// Last change of anything, seconds and nanoseconds.
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Why something below the directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    /// A symlink leads out of the directory, or is absolute.
    #[error("a symlink leads out of the directory, or is absolute")]
    LeadsOut,
    /// It is a FIFO, a device or a socket.
    #[error("not a regular file")]
    NotAFile,
    /// It is larger than may be read.
    #[error("{size} bytes; at most {limit} are read")]
    TooLarge {
        /// Its size, bytes.
        size: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// Folders lie deeper than may be entered.
    #[error("folders nested deeper than {DEEPEST}")]
    TooDeep,
    /// There are more files than may be read.
    #[error("more than {0} files")]
    TooMany(usize),
    /// The name is not UTF-8.
    #[error("the name is not UTF-8")]
    Name,
    /// The kernel is older than Linux 5.6.
    #[error("this kernel has no openat2 (Linux 5.6), without which paths cannot be kept inside the directory")]
    Kernel,
    /// The system said no.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl From<Errno> for ReadFault {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EXDEV => Self::LeadsOut,
            Errno::ENOSYS => Self::Kernel,
            other => Self::System(other.into()),
        }
    }
}

/// What was found below a directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Paths of manifests, below the directory, sorted.
    pub(super) files: Vec<Arc<str>>,
    /// Manifests that are there and are to be left alone, with what says so, by path.
    pub(super) skipped: BTreeMap<Arc<str>, Arc<str>>,
    /// The folders that were looked into, as they were then.
    pub(super) folders: BTreeMap<PathBuf, Stamp>,
    /// What could not be looked into: then the absence of a file is no evidence.
    pub(super) faults: Vec<(PathBuf, ReadFault)>,
}

/// An open directory.
#[derive(Debug)]
pub struct Root {
    dir: File,
}

impl Root {
    /// Opens a directory; a symlink to one is followed.
    ///
    /// # Errors
    /// When it is not there, or is not a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = File::open(path)?;
        if dir.metadata()?.is_dir() { Ok(Self { dir }) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    /// Device and inode of the directory, to notice that it was replaced.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        self.dir.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    /// The manifests below the directory, symlinked folders included, each folder once. Names that
    /// begin with a dot are left out: editors and copying tools keep their unfinished files there,
    /// and mounted volumes their real ones.
    ///
    /// A name with `.skip` added, beside a manifest or a folder, has it left alone, as in k3s
    /// (`k3s:pkg/deploy/controller.go`, 0301210).
    pub(super) fn find(&self, limit: usize, endings: &'static [&'static str]) -> Found {
        let mut walk =
            Walk { root: self, found: Found::default(), seen: HashSet::new(), limit, endings, links: Vec::new() };
        walk.folder(Path::new(""), 0, None);
        // Real folders first: a file is named by its real path where it has one.
        while let Some((path, depth, skip)) = walk.links.pop() {
            walk.folder(&path, depth, skip.as_ref());
        }
        walk.found.files.sort();
        walk.found
    }

    /// A file's content, read from one descriptor.
    ///
    /// # Errors
    /// When it is not a regular file inside the directory, is larger than `limit`, or cannot be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<FileText, ReadFault> {
        // A FIFO or device is not opened: the first could block, the second could act.
        let probe = self.open_below(Path::new(path), OFlag::O_PATH)?;
        if !probe.metadata()?.is_file() {
            return Err(ReadFault::NotAFile);
        }
        let file = self.open_below(Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(ReadFault::NotAFile);
        }
        if metadata.len() > limit {
            return Err(ReadFault::TooLarge { size: metadata.len(), limit });
        }
        let stamp = Stamp::from(&metadata);
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
        let size = file.take(limit + 1).read_to_end(&mut bytes)?;
        if size as u64 > limit {
            return Err(ReadFault::TooLarge { size: size as u64, limit });
        }
        Ok(FileText { bytes, stamp })
    }

    /// The state of what a path leads to now; none if that cannot be told.
    pub(super) fn stamp(&self, path: &str) -> Option<Stamp> {
        let file = self.open_below(Path::new(path), OFlag::O_PATH).ok()?;
        file.metadata().ok().as_ref().map(Stamp::from)
    }

    fn open_below(&self, path: &Path, flags: OFlag) -> Result<File, ReadFault> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(Mode::empty()).resolve(resolve);
        let mut last = Errno::EAGAIN;
        for _ in 0..RACES {
            match openat2(&self.dir, path, how) {
                Ok(fd) => return Ok(fd.into()),
                // A rename somewhere made the kernel unsure whether the path stays inside.
                Err(Errno::EAGAIN | Errno::EINTR) => last = Errno::EAGAIN,
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(last.into())
    }
}

struct Walk<'a> {
    root: &'a Root,
    found: Found,
    seen: HashSet<(u64, u64)>,
    limit: usize,
    endings: &'static [&'static str],
    links: Vec<(PathBuf, usize, Skip)>,
}

/// What says that something is to be left alone, if anything does.
type Skip = Option<Arc<str>>;

/// What is added to a name to have it left alone.
const SKIP: &[u8] = b".skip";

impl Walk<'_> {
    fn folder(&mut self, path: &Path, depth: usize, skip: Option<&Arc<str>>) {
        if let Err(fault) = self.entries(path, depth, skip) {
            self.found.faults.push((path.to_owned(), fault));
        }
    }

    fn entries(&mut self, path: &Path, depth: usize, skip: Option<&Arc<str>>) -> Result<(), ReadFault> {
        if depth > DEEPEST {
            return Err(ReadFault::TooDeep);
        }
        let folder = self.root.open_below(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let metadata = folder.metadata()?;
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        self.found.folders.insert(path.to_owned(), Stamp::from(&metadata));
        let mut dir = Dir::from_fd(folder.into())?;
        let mut entries = Vec::new();
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes().to_owned();
            if !name.starts_with(b".") {
                entries.push((name, entry.file_type()));
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let marks: HashSet<Vec<u8>> =
            entries.iter().filter_map(|(name, _)| name.strip_suffix(SKIP)).map(<[u8]>::to_vec).collect();
        for (name, kind) in entries {
            let below = path.join(OsStr::from_bytes(&name));
            let own = || marks.contains(&name).then(|| format!("{}.skip", below.display()).into());
            let skip = skip.cloned().or_else(own);
            if let Err(fault) = self.entry(&below, kind, depth, skip) {
                self.found.faults.push((below, fault));
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, kind: Option<Type>, depth: usize, skip: Skip) -> Result<(), ReadFault> {
        let is_folder = match kind {
            Some(Type::Directory) => true,
            Some(Type::File) => false,
            Some(Type::Symlink) if !self.is_manifest(path) => {
                // A link that is neither a folder nor called a manifest is none of ours.
                if self
                    .root
                    .open_below(path, OFlag::O_PATH)
                    .and_then(|file| Ok(file.metadata()?))
                    .is_ok_and(|m| m.is_dir())
                {
                    self.links.push((path.to_owned(), depth + 1, skip));
                }
                return Ok(());
            }
            Some(Type::Symlink) => false,
            // Some file systems do not tell.
            None => self.root.open_below(path, OFlag::O_PATH)?.metadata()?.is_dir(),
            // Told when it is read, if it is called a manifest.
            Some(_) => false,
        };
        if is_folder {
            self.folder(path, depth + 1, skip.as_ref());
        } else if self.is_manifest(path) {
            if self.found.files.len() + self.found.skipped.len() >= self.limit {
                // Told once; the walk goes on, for there is nothing else to bound.
                if !self.found.faults.iter().any(|(_, fault)| matches!(fault, ReadFault::TooMany(_))) {
                    return Err(ReadFault::TooMany(self.limit));
                }
                return Ok(());
            }
            let name: Arc<str> = path.to_str().ok_or(ReadFault::Name)?.into();
            match skip {
                Some(mark) => {
                    self.found.skipped.insert(name, mark);
                }
                None => self.found.files.push(name),
            }
        }
        Ok(())
    }

    fn is_manifest(&self, path: &Path) -> bool {
        path.extension().and_then(OsStr::to_str).is_some_and(|ending| self.endings.contains(&ending))
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
