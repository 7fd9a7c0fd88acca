//! What a caller hands over, checked as far as it can be: null, text that is not UTF-8, structs of another version.

use crate::error::Failure;
use std::ffi::{CStr, c_char, c_void};
use std::mem;

/// A text that has to be there.
///
/// # Safety
/// `text` is null or points to a string that ends with NUL and does not change during `'a`.
pub(crate) unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller vouches for it.
    unsafe { text_or_null(what, text) }?.ok_or_else(|| null(what))
}

/// A text, or `None` for null.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn text_or_null<'a>(what: &str, text: *const c_char) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not null, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Failure::request(format!("{what} is not UTF-8")))
}

/// A handle that has to be there.
///
/// # Safety
/// `handle` is null or points to a `T` that lives during `'a`.
pub(crate) unsafe fn handle<'a, T>(what: &str, handle: *const T) -> Result<&'a T, Failure> {
    // SAFETY: the caller vouches for it.
    unsafe { handle.as_ref() }.ok_or_else(|| null(what))
}

/// A place for a result that has to be there.
pub(crate) fn place<T>(what: &str, place: *mut T) -> Result<*mut T, Failure> {
    if place.is_null() { Err(null(what)) } else { Ok(place) }
}

/// Bytes that have to be there, unless there are none.
///
/// # Safety
/// `data` is null or points to `len` bytes that do not change during `'a`.
pub(crate) unsafe fn bytes<'a>(data: *const c_void, len: usize, len_max: u64) -> Result<&'a [u8], Failure> {
    if len as u64 > len_max {
        return Err(Failure::request(format!("len is {len}, at most {len_max} is allowed")));
    }
    match (data.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(null("data")),
        // SAFETY: it is not null, `len` does not exceed isize::MAX, and the caller vouches for the rest.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) }),
    }
}

/// A struct of plain numbers and pointers that begins with its own size in bytes, so that it can grow at its end.
///
/// # Safety
/// The type is `repr(C)`, begins with a `usize`, and all zeros is a value of it.
pub(crate) unsafe trait Sized_: Copy {
    /// What messages call it.
    const NAME: &str;
}

/// Reads a struct as the caller was compiled with it; members that it does not have are zero.
///
/// # Safety
/// `from` is null or points to as many bytes as its first member says.
pub(crate) unsafe fn sized<T: Sized_>(from: *const T) -> Result<Option<T>, Failure> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: by `Sized_` its first member is a usize, which the caller vouches for.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    check_size::<T>(size)?;
    // SAFETY: by `Sized_` all zeros is a `T`.
    let mut read: T = unsafe { mem::zeroed() };
    // SAFETY: `size` bytes are at `from` as the caller vouches, and fit `read` as was checked.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut read).cast::<u8>(), size) };
    Ok(Some(read))
}

/// Writes a struct as far as the caller was compiled with it. Its size stays as the caller set it.
///
/// # Safety
/// `to` is null or points to as many bytes as its first member says, which may be written.
pub(crate) unsafe fn put_sized<T: Sized_>(to: *mut T, value: &T) -> Result<(), Failure> {
    let to = place(T::NAME, to)?;
    // SAFETY: by `Sized_` its first member is a usize, which the caller vouches for.
    let size = unsafe { to.cast::<usize>().read_unaligned() };
    check_size::<T>(size)?;
    let head = mem::size_of::<usize>();
    // SAFETY: `size` bytes are at `to` as the caller vouches, `value` has as many as was checked, and they are not the same.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(value).cast::<u8>().add(head),
            to.cast::<u8>().add(head),
            size - head,
        );
    }
    Ok(())
}

fn check_size<T: Sized_>(size: usize) -> Result<(), Failure> {
    let (least, most) = (mem::size_of::<usize>(), mem::size_of::<T>());
    if (least..=most).contains(&size) {
        return Ok(());
    }
    let name = T::NAME;
    Err(Failure::request(format!("{name}.size is {size}, must be sizeof({name}), at most {most} for this library")))
}

fn null(what: &str) -> Failure {
    Failure::request(format!("{what} is NULL"))
}
