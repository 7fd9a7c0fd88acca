//! The mount itself: asks the kernel for it, finds it again, takes it away. No FUSE message passes here.
//!
//! Invariant: nothing is ever unmounted that is not the mount this process made, known by the kernel's mount id. (The FUSE
//! library's own unmount is not used: it can hit somebody else's mount and cannot be repeated when busy.)

use crate::error::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// File system type that the mount table shows.
pub(crate) const FS_TYPE: &str = "fuse.tidemark";

/// A line of the kernel's mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// The kernel's name of the mount; not reused while the mount lives.
    pub(crate) id: u64,
    /// Device numbers: major, minor. For FUSE the minor also names the connection.
    pub(crate) dev: (u32, u32),
    pub(crate) dir: PathBuf,
    pub(crate) fs_type: String,
    pub(crate) source: String,
}

/// Who did the mounting, hence who must undo it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountedBy {
    /// This process, by system call.
    Ourselves,
    /// The set-uid helper.
    Fusermount,
}

/// What to mount.
#[derive(Clone, Debug)]
pub(crate) struct MountRequest<'a> {
    pub(crate) dir: &'a Path,
    /// What the mount table shows as the source.
    pub(crate) source: &'a str,
    /// Let every user's requests through; the kernel checks modes.
    pub(crate) allow_other: bool,
    /// Whether files can be written to.
    pub(crate) writable: bool,
}

/// A fresh mount and the connection that must serve it.
pub(crate) struct Mounted {
    pub(crate) connection: OwnedFd,
    pub(crate) entry: MountEntry,
    pub(crate) by: MountedBy,
}

/// The absolute name of a mount point, without touching what is mounted there (it may be dead).
fn absolute(dir: &Path) -> io::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(dir),
    }
}

/// Makes sure that `dir` can be mounted on and gives its canonical name. Clears away a dead mount of ours.
///
/// # Errors
/// If it is no directory, cannot be reached, or is taken.
pub(crate) fn prepare(dir: &Path) -> Result<PathBuf> {
    let refuse = |source| Error::Mountpoint { dir: dir.to_owned(), source };
    let full = match dir.canonicalize() {
        Ok(full) => full,
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let full = absolute(dir).map_err(refuse)?;
            sweep(&full)?;
            full.canonicalize().map_err(refuse)?
        }
        Err(error) => return Err(refuse(error)),
    };
    // The kernel answers for a directory whose attributes it knows; only asking again shows that nobody serves it.
    match std::fs::metadata(&full) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(refuse(io::Error::from(io::ErrorKind::NotADirectory))),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => sweep(&full)?,
        Err(error) => return Err(refuse(error)),
    }
    match top_mount_at(&full).map_err(refuse)? {
        Some(entry) if entry.fs_type == FS_TYPE => Err(Error::AlreadyMounted { dir: full, source_name: entry.source }),
        _ => Ok(full),
    }
}

/// Takes a dead mount away if it is ours; its process is gone, so nobody can lose anything.
fn sweep(dir: &Path) -> Result<()> {
    let refuse = |source| Error::Mountpoint { dir: dir.to_owned(), source };
    let entry = top_mount_at(dir).map_err(refuse)?;
    let fs_type = entry.as_ref().map_or_else(|| "an unknown type".to_owned(), |entry| entry.fs_type.clone());
    match entry {
        Some(entry) if entry.fs_type == FS_TYPE => {
            detach_path(dir).map_err(|_| Error::DeadMount { dir: dir.to_owned(), fs_type })?;
            tracing::warn!(dir = %dir.display(), "removed a dead mount left by an earlier process");
            Ok(())
        }
        _ => Err(Error::DeadMount { dir: dir.to_owned(), fs_type }),
    }
}

fn detach_path(dir: &Path) -> io::Result<()> {
    match rustix::mount::unmount(dir, UnmountFlags::DETACH) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => fusermount(&[OsStr::new("-u"), OsStr::new("-z"), OsStr::new("--"), dir.as_os_str()]),
        Err(errno) => Err(errno.into()),
    }
}

/// Mounts, by system call where that is allowed, else through the helper.
///
/// # Errors
/// If neither way works.
pub(crate) fn mount(request: &MountRequest<'_>) -> Result<Mounted> {
    let (connection, by) = match mount_directly(request) {
        Err(Error::Mountpoint { source, .. })
            if source.raw_os_error() == Some(libc::EPERM) && !rustix::process::geteuid().is_root() =>
        {
            (mount_with_helper(request)?, MountedBy::Fusermount)
        }
        Err(Error::NoFuse { source })
            if source.raw_os_error() == Some(libc::EACCES) && !rustix::process::geteuid().is_root() =>
        {
            (mount_with_helper(request)?, MountedBy::Fusermount)
        }
        other => (other?, MountedBy::Ourselves),
    };
    let refuse = |source| Error::Mountpoint { dir: request.dir.to_owned(), source };
    let entry = top_mount_at(request.dir).map_err(refuse)?.filter(|entry| entry.fs_type == FS_TYPE);
    let entry = entry.ok_or_else(|| refuse(io::Error::other("the new mount is not in the mount table")))?;
    Ok(Mounted { connection, entry, by })
}

fn mount_directly(request: &MountRequest<'_>) -> Result<OwnedFd> {
    let refuse = |source| Error::Mountpoint { dir: request.dir.to_owned(), source };
    let connection = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::NoFuse { source: errno.into() })?;
    let mut options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        connection.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if request.allow_other {
        options.push_str(",allow_other");
    }
    let options = CString::new(options).expect("numbers and words hold no NUL");
    let mut flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    flags.set(MountFlags::RDONLY, !request.writable);
    rustix::mount::mount(printable(request.source), request.dir, FS_TYPE, flags, Some(options.as_c_str()))
        .map_err(|errno| refuse(errno.into()))?;
    Ok(connection)
}

/// A source name that system call, helper and mount table all take.
fn printable(source: &str) -> String {
    source.chars().map(|c| if c.is_control() || c == ',' || c == '\\' { '_' } else { c }).collect()
}

/// Runs the set-uid helper, which mounts and passes the connection back over a socket.
fn mount_with_helper(request: &MountRequest<'_>) -> Result<OwnedFd> {
    let refuse = |message: String| Error::Helper { message };
    let (ours, theirs) = UnixStream::pair().map_err(|error| refuse(error.to_string()))?;
    let rights = if request.writable { "rw" } else { "ro" };
    let source = printable(request.source);
    let mut options = format!("{rights},nosuid,nodev,noexec,default_permissions,subtype=tidemark,fsname={source}");
    if request.allow_other {
        options.push_str(",allow_other");
    }
    // The helper finds its end of the socket by number; as its standard input it is number 0 and needs no unsafe code.
    let child = Command::new("fusermount3")
        .args([OsStr::new("-o"), OsStr::new(&options), OsStr::new("--"), request.dir.as_os_str()])
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| refuse(error.to_string()))?;
    let received = receive_fd(&ours);
    let output = child.wait_with_output().map_err(|error| refuse(error.to_string()))?;
    match received {
        Ok(Some(connection)) if output.status.success() => Ok(connection),
        Err(error) => Err(refuse(error.to_string())),
        _ => Err(refuse(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

fn receive_fd(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    recvmsg(socket, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            return Ok(fds.next());
        }
    }
    Ok(None)
}

/// How hard to pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// Only if nobody uses it.
    IfIdle,
    /// Take it out of the tree now; it lives on until its last user is gone.
    Detach,
}

/// What came of an attempt to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is out of the tree.
    Gone,
    /// Somebody uses it.
    Busy,
}

/// Takes the mount `entry` away, if it is still there.
///
/// # Errors
/// If something else is mounted over it, or the kernel refuses.
pub(crate) fn unmount(entry: &MountEntry, by: MountedBy, force: Force) -> Result<Outcome> {
    let dir = &entry.dir;
    let failed = |source| Error::Unmount { dir: dir.clone(), source };
    let table = mount_table().map_err(failed)?;
    if !table.iter().any(|line| line.id == entry.id && line.dev == entry.dev) {
        return Ok(Outcome::Gone);
    }
    match table.into_iter().rev().find(|line| line.dir == *dir) {
        Some(top) if top.id != entry.id => return Err(Error::Covered { dir: dir.clone(), fs_type: top.fs_type }),
        _ => {}
    }
    let result = match (by, force) {
        (MountedBy::Ourselves, Force::IfIdle) => {
            rustix::mount::unmount(dir, UnmountFlags::empty()).map_err(io::Error::from)
        }
        (MountedBy::Ourselves, Force::Detach) => {
            rustix::mount::unmount(dir, UnmountFlags::DETACH).map_err(io::Error::from)
        }
        (MountedBy::Fusermount, Force::IfIdle) => {
            fusermount(&[OsStr::new("-u"), OsStr::new("-q"), OsStr::new("--"), dir.as_os_str()])
        }
        (MountedBy::Fusermount, Force::Detach) => {
            fusermount(&[OsStr::new("-u"), OsStr::new("-z"), OsStr::new("--"), dir.as_os_str()])
        }
    };
    match result {
        Ok(()) => Ok(Outcome::Gone),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(Outcome::Busy),
        Err(error) => Err(failed(error)),
    }
}

/// Runs the helper. It does not say why it failed in a way for programs, and being busy is the common reason.
fn fusermount(args: &[&OsStr]) -> io::Result<()> {
    let output = Command::new("fusermount3").args(args).stdin(Stdio::null()).output()?;
    if output.status.success() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBUSY)) }
}

/// Lets the kernel read ahead further than the 128 KiB that FUSE may ask for. False if that is not permitted.
pub(crate) fn set_read_ahead(entry: &MountEntry, kib: u32) -> bool {
    let (major, minor) = entry.dev;
    std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kib.to_string()).is_ok()
}

/// The mount on top at `dir`, if any.
fn top_mount_at(dir: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mount_table()?.into_iter().rev().find(|entry| entry.dir == dir))
}

fn mount_table() -> io::Result<Vec<MountEntry>> {
    Ok(parse_mount_table(&std::fs::read("/proc/self/mountinfo")?))
}

/// Reads `/proc/self/mountinfo` (proc(5)); lines of another shape are skipped.
fn parse_mount_table(text: &[u8]) -> Vec<MountEntry> {
    text.split(|&b| b == b'\n').filter_map(parse_mount_line).collect()
}

fn parse_mount_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&b| b == b' ');
    let id = number(fields.next()?)?;
    let _parent = fields.next()?;
    let dev = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let dev = (dev.0.parse().ok()?, dev.1.parse().ok()?);
    let _root = fields.next()?;
    let dir = PathBuf::from(unescape_octal(fields.next()?));
    let mut fields = fields.skip_while(|&field| field != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = unescape_octal(fields.next()?).to_string_lossy().into_owned();
    Some(MountEntry { id, dev, dir, fs_type, source })
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The mount table writes space, tab, newline and backslash as `\ooo`.
fn unescape_octal(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\');
        let byte = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_format::ErrorKind;

    #[test]
    fn mount_table_lines_are_read_with_optional_fields_and_escapes() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n\
            51 36 0:45 / /mnt/a\\040b\\134c ro,nosuid - fuse.tidemark file:///x rw,user_id=0\n\
            nonsense\n";
        let table = parse_mount_table(text);
        assert_eq!(table.len(), 2);
        assert_eq!((table[0].id, table[0].dev, table[0].fs_type.as_str()), (36, (98, 0), "ext3"));
        assert_eq!(
            table[1],
            MountEntry {
                id: 51,
                dev: (0, 45),
                dir: "/mnt/a b\\c".into(),
                fs_type: "fuse.tidemark".into(),
                source: "file:///x".into()
            }
        );
    }

    #[test]
    fn the_machines_own_mount_table_is_read() {
        let root = top_mount_at(Path::new("/")).unwrap();
        assert!(root.is_some());
    }

    #[test]
    fn a_mount_point_must_be_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = prepare(file.path()).unwrap_err();
        assert!(error.to_string().starts_with("cannot mount on /"), "{error}");
        let error = prepare(&file.path().with_extension("missing")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FixRequest);
    }

    /// Mounts a file system of `fs_type` whose server is dead.
    fn dead_mount(dir: &Path, fs_type: &str) {
        let fd = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fd.as_raw_fd());
        let options = CString::new(options).unwrap();
        rustix::mount::mount("dead", dir, fs_type, MountFlags::RDONLY, Some(options.as_c_str())).unwrap();
    }

    #[test]
    fn contract_a_dead_mount_of_ours_is_swept_away() {
        let keep = tempfile::tempdir().unwrap();
        dead_mount(keep.path(), FS_TYPE);
        assert_eq!(std::fs::metadata(keep.path()).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
        let dir = prepare(keep.path()).unwrap();
        assert!(std::fs::metadata(&dir).unwrap().is_dir());
        assert_eq!(top_mount_at(&dir).unwrap(), None);
    }

    #[test]
    fn contract_a_dead_mount_of_others_is_named_with_the_way_out() {
        let keep = tempfile::tempdir().unwrap();
        dead_mount(keep.path(), "fuse.theirs");
        let error = prepare(keep.path()).unwrap_err();
        assert!(error.to_string().ends_with("a dead mount of fuse.theirs is there"), "{error}");
        assert!(error.hint().unwrap().starts_with("remove it with `umount -l /"), "{error}");
        rustix::mount::unmount(keep.path(), UnmountFlags::DETACH).unwrap();
    }
}
