//! A domain opened for reading, a disk of it at one point in time, and reading that disk.

use crate::args::{self, Sized_};
use crate::error::{Code, Failure, TIDEMARK_NOT_FOUND, call};
use crate::store::{Store, open_bucket};
use crate::threads::{Threads, check_may_wait};
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;
use tidemark_env::Env;
use tidemark_format::Lsn;
use tidemark_reader::{self as reader, DiskAt, DiskImage, Domain, Point, PointSpec};

/// Bytes that one read fetches at a time, whatever its length: bounds memory.
const STEP_BYTES: usize = 8 << 20;

/// A domain opened for reading: its history as of the last look. Any threads may use it at once.
#[derive(Debug)]
pub struct Reader {
    domain: Domain,
    threads: Arc<Threads>,
    env: Env,
}

/// One disk at one point in time. It never changes, and outlives the reader that it came from. Any threads may use it at once.
#[derive(Debug)]
pub struct Image {
    image: Arc<DiskImage>,
    threads: Arc<Threads>,
}

// Any threads may use a handle at once.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<(Reader, Image)>();
};

/// Limits of a reader. Set size to sizeof(tidemark_reader_options) and the rest to zero, which stands for the default. Only read
/// during the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ReaderOptions {
    /// sizeof(tidemark_reader_options).
    pub size: usize,
    /// Bytes of disk contents kept ready. Default: 256 MiB.
    pub cache_bytes_max: u64,
    /// Longest time for one call, then it fails with TIDEMARK_RETRY. Default: 30000.
    pub deadline_ms: u64,
    /// Threads that do I/O and decode. Default: 2.
    pub threads_max: u32,
}

// SAFETY: it is repr(C), begins with its size, and zeros are values of all members.
unsafe impl Sized_ for ReaderOptions {
    const NAME: &str = "tidemark_reader_options";
}

/// A disk as it was at some LSN. Belongs to the list that it came from. Members are only ever added, at the end.
#[repr(C)]
#[derive(Debug)]
pub struct Disk {
    /// Its number, unique in the domain.
    pub disk: u32,
    /// The VM that it belongs to.
    pub vm: *const c_char,
    /// Its name within the VM.
    pub name: *const c_char,
    /// Its size then.
    pub size_bytes: u64,
    /// From which LSN on it can be restored; 0 if it cannot be at the LSN that was asked about.
    pub consistent_from: u64,
}

/// A list of disks.
#[derive(Debug)]
pub struct Disks {
    disks: Vec<Disk>,
    /// What the pointers in `disks` point to.
    _texts: Vec<CString>,
}

/// What an image shows. Set size to sizeof(tidemark_image_info) before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageInfo {
    /// sizeof(tidemark_image_info).
    pub size: usize,
    /// Size of the disk at the point.
    pub size_bytes: u64,
    /// The point: the last LSN that the image includes.
    pub lsn: u64,
    /// When that was, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The disk's number.
    pub disk: u32,
}

// SAFETY: it is repr(C), begins with its size, and zeros are values of all members.
unsafe impl Sized_ for ImageInfo {
    const NAME: &str = "tidemark_image_info";
}

impl Reader {
    /// The point of a text such as `latest`.
    fn resolve(&self, point: &str) -> Result<Point, Failure> {
        let spec: PointSpec = point.parse()?;
        let (timeline, now) = (self.domain.timeline(), self.env.clock.wall());
        self.threads.run(async move { Ok(timeline.resolve(&spec, now).await?) })
    }
}

/// Opens the domain of a store for reading. Waits; options may be NULL. On success *reader is a handle, to be closed by
/// tidemark_reader_close; else it is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_reader_open(
    store: *const Store,
    options: *const ReaderOptions,
    reader: *mut *mut Reader,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        let place = args::place("reader", reader)?;
        // SAFETY: it is not null, and the caller vouches for the rest.
        unsafe { place.write(std::ptr::null_mut()) };
        check_may_wait("tidemark_reader_open")?;
        // SAFETY: the caller vouches for them.
        let (bucket, options) = unsafe { (open_bucket(store)?.read_only(), args::sized(options)?) };
        let mut with = reader::ReaderOptions::default();
        if let Some(options) = options {
            if options.cache_bytes_max > 0 {
                with.cache_bytes_max = options.cache_bytes_max;
            }
            if options.deadline_ms > 0 {
                with.request_deadline = std::time::Duration::from_millis(options.deadline_ms);
            }
        }
        let threads = Threads::start("tidemark-reader", options.map_or(0, |options| options.threads_max))?;
        let env = Env::system();
        let opening = env.clone();
        let domain = threads.run(async move { Ok(Domain::open(bucket, with, opening).await?) })?;
        let handle = Box::new(Reader { domain, threads: Arc::new(threads), env });
        // SAFETY: as above.
        unsafe { place.write(Box::into_raw(handle)) };
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Closes a reader; its images stay. No other call on the handle may be under way. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_reader_close(reader: *mut Reader) {
    // SAFETY: the caller vouches that it is null or a handle, and that this is its last use.
    unsafe { free(reader) }
}

/// Looks for what was written since. Waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_reader_refresh(reader: *const Reader, error: *mut *mut Failure) -> Code {
    let body = || {
        check_may_wait("tidemark_reader_refresh")?;
        // SAFETY: the caller vouches for it.
        let reader = unsafe { args::handle("reader", reader)? };
        let domain = reader.domain.clone();
        reader.threads.run(async move { Ok(domain.refresh().await.map(drop)?) })
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// The point that a text names: latest, lsn:N, an RFC 3339 time, a span back from now such as -10m, or bookmark:NAME. time_ns,
/// nanoseconds since 1970, may be NULL. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_reader_resolve(
    reader: *const Reader,
    point: *const c_char,
    lsn: *mut u64,
    time_ns: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        // SAFETY: the caller vouches for them.
        let (reader, point) = unsafe { (args::handle("reader", reader)?, args::text("point", point)?) };
        let lsn = args::place("lsn", lsn)?;
        let found = reader.resolve(point)?;
        // SAFETY: they are not null, and the caller vouches for the rest.
        unsafe {
            lsn.write(found.lsn.get());
            if !time_ns.is_null() {
                time_ns.write(found.time.get());
            }
        }
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// The disks that exist at an LSN, by number. On success *disks is a list, to be freed by tidemark_disks_free; else it is NULL. Does
/// not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_reader_disks(
    reader: *const Reader,
    lsn: u64,
    disks: *mut *mut Disks,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        let place = args::place("disks", disks)?;
        // SAFETY: it is not null, and the caller vouches for the rest.
        unsafe { place.write(std::ptr::null_mut()) };
        // SAFETY: the caller vouches for it.
        let reader = unsafe { args::handle("reader", reader)? };
        let list = Disks::of(reader.domain.timeline().disks_at(Lsn::new(lsn)));
        // SAFETY: as above.
        unsafe { place.write(Box::into_raw(Box::new(list))) };
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

impl Disks {
    fn of(found: Vec<DiskAt>) -> Self {
        let mut list = Self { disks: Vec::with_capacity(found.len()), _texts: Vec::new() };
        let mut text = |text: String| {
            let text = CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
            let pointer = text.as_ptr();
            // Moving the string does not move its bytes.
            list._texts.push(text);
            pointer
        };
        for disk in found {
            list.disks.push(Disk {
                disk: disk.id.get(),
                vm: text(disk.vm),
                name: text(disk.name),
                size_bytes: disk.size_bytes,
                consistent_from: disk.consistent_from.map_or(0, Lsn::get),
            });
        }
        list
    }
}

/// How many disks there are in a list; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_disks_count(disks: *const Disks) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { disks.as_ref() }.map_or(0, |list| list.disks.len())
}

/// A disk of a list, counted from 0; NULL beyond its end. Valid as long as the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_disks_get(disks: *const Disks, index: usize) -> *const Disk {
    // SAFETY: the caller vouches for it.
    let disk = unsafe { disks.as_ref() }.and_then(|list| list.disks.get(index));
    disk.map_or(std::ptr::null(), std::ptr::from_ref)
}

/// Frees a list; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_disks_free(disks: *mut Disks) {
    // SAFETY: the caller vouches that it is null or a list, and that this is its last use.
    unsafe { free(disks) }
}

/// Opens a disk as it was at the point that a text names (see tidemark_reader_resolve). Does not wait. On success *image is a handle,
/// to be closed by tidemark_image_close; else it is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_image_open(
    reader: *const Reader,
    vm: *const c_char,
    name: *const c_char,
    point: *const c_char,
    image: *mut *mut Image,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        let place = args::place("image", image)?;
        // SAFETY: it is not null, and the caller vouches for the rest.
        unsafe { place.write(std::ptr::null_mut()) };
        check_may_wait("tidemark_image_open")?;
        // SAFETY: the caller vouches for them.
        let (reader, vm, name, point) = unsafe {
            let (vm, name) = (args::text("vm", vm)?, args::text("name", name)?);
            (args::handle("reader", reader)?, vm, name, args::text("point", point)?)
        };
        let at = reader.resolve(point)?.lsn;
        let Some(disk) = reader.domain.timeline().find_disk(vm, name, at) else {
            return Err(Failure::new(TIDEMARK_NOT_FOUND, format!("no disk {vm}/{name} at lsn {at}"), None));
        };
        let domain = reader.domain.clone();
        let image = reader.threads.run(async move { Ok(domain.disk(disk.id, at).await?) })?;
        let handle = Box::new(Image { image, threads: reader.threads.clone() });
        // SAFETY: as above.
        unsafe { place.write(Box::into_raw(handle)) };
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Closes an image. No other call on the handle may be under way. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_image_close(image: *mut Image) {
    // SAFETY: the caller vouches that it is null or a handle, and that this is its last use.
    unsafe { free(image) }
}

/// Tells what an image shows. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_image_stat(
    image: *const Image,
    info: *mut ImageInfo,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        // SAFETY: the caller vouches for it.
        let image = &unsafe { args::handle("image", image)? }.image;
        let at = image.at();
        let value = ImageInfo {
            size: 0,
            size_bytes: image.size_bytes(),
            lsn: at.lsn.get(),
            time_ns: at.time.get(),
            disk: image.id().get(),
        };
        // SAFETY: the caller vouches for it.
        unsafe { args::put_sized(info, &value) }
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Reads up to len bytes from offset on into buffer; every byte was verified. *read is how many: fewer than len only at the end of
/// the disk, 0 beyond it. Blocks that nobody knows are an error, never zeros. What buffer holds after an error is undefined.
/// Waits for the store where the bytes are not at hand.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_read_at(
    image: *const Image,
    offset: u64,
    buffer: *mut c_void,
    len: usize,
    read: *mut usize,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        check_may_wait("tidemark_read_at")?;
        // SAFETY: the caller vouches for it.
        let image = unsafe { args::handle("image", image)? };
        let read = args::place("read", read)?;
        let to = if len == 0 { std::ptr::dangling_mut::<u8>() } else { args::place("buffer", buffer)?.cast::<u8>() };
        if isize::try_from(len).is_err() {
            return Err(Failure::request(format!("len is {len}, more than any buffer holds")));
        }
        let mut done = 0;
        while done < len {
            let (at, wanted) = (offset.saturating_add(done as u64), (len - done).min(STEP_BYTES));
            let put = |bytes: &[u8]| {
                // SAFETY: at most `wanted` bytes came, so `done` and they fit into the `len` bytes of the caller's buffer,
                // which nothing of ours overlaps.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.add(done), bytes.len()) };
                bytes.len()
            };
            let got = match image.image.read_cached(at, wanted, put) {
                Some(got) => got,
                None => {
                    let image_ = image.image.clone();
                    put(&image.threads.run(async move { Ok(image_.read(at, wanted).await?) })?)
                }
            };
            if got == 0 {
                break;
            }
            done += got;
        }
        // SAFETY: it is not null, and the caller vouches for the rest.
        unsafe { read.write(done) };
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Ends a handle.
///
/// # Safety
/// It is null or was made by `Box::into_raw`, and this is its last use.
unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: the caller vouches for it. A panic in a destructor is a bug, and must not cross into C.
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(unsafe { Box::from_raw(handle) })));
        drop(dropped);
    }
}
