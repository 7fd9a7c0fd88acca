//! How a call ends: a code for the program, a message and a hint for people. The only place that panics arrive at.

use std::any::Any;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use tidemark_format::{ErrorKind, with_causes};

/// How a call ended; one of the codes below. Codes are only ever added.
pub type Code = i32;

/// Done.
pub const TIDEMARK_OK: Code = 0;
/// It is proven not to be there: a domain, a disk, a bookmark.
pub const TIDEMARK_NOT_FOUND: Code = 1;
/// It may work later, unchanged: the store is slow or out of reach, the writer was closed, or a callback may not wait.
pub const TIDEMARK_RETRY: Code = 2;
/// It will never work as asked: a wrong argument, a point before the history, a store that cannot fence.
pub const TIDEMARK_FIX_REQUEST: Code = 3;
/// Credentials are missing or lack the right.
pub const TIDEMARK_DENIED: Code = 4;
/// Another writer has taken the domain over: stop.
pub const TIDEMARK_FENCED: Code = 5;
/// Stored data is damaged or missing.
pub const TIDEMARK_DATA_LOSS: Code = 6;
/// A bug of the library. It went no further than this call.
pub const TIDEMARK_INTERNAL: Code = 7;

/// Why a call failed. Owned by whoever was given it: freed by tidemark_error_free. Immutable, so any thread may look at it.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    message: CString,
    hint: Option<CString>,
}

impl Failure {
    /// A mistake of the caller.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(TIDEMARK_FIX_REQUEST, message, None)
    }

    pub(crate) fn new(code: Code, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self { code, message: text(message.into()), hint: hint.map(|hint| text(hint.to_owned())) }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// What a panic said.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::new(TIDEMARK_INTERNAL, format!("bug in tidemark: {}", said.unwrap_or("a panic without words")), None)
    }

    fn of(kind: ErrorKind, error: &dyn std::error::Error, hint: Option<&str>) -> Self {
        let code = match kind {
            ErrorKind::NotFound => TIDEMARK_NOT_FOUND,
            ErrorKind::Retry => TIDEMARK_RETRY,
            ErrorKind::FixRequest => TIDEMARK_FIX_REQUEST,
            ErrorKind::Denied => TIDEMARK_DENIED,
            ErrorKind::Fenced => TIDEMARK_FENCED,
            ErrorKind::DataLoss => TIDEMARK_DATA_LOSS,
        };
        Self::new(code, with_causes(error), hint)
    }
}

impl From<tidemark_bucket::Error> for Failure {
    fn from(error: tidemark_bucket::Error) -> Self {
        Self::of(error.kind(), &error, error.hint())
    }
}

impl From<tidemark_writer::Error> for Failure {
    fn from(error: tidemark_writer::Error) -> Self {
        Self::of(error.kind(), &error, error.hint())
    }
}

impl From<tidemark_reader::Error> for Failure {
    fn from(error: tidemark_reader::Error) -> Self {
        Self::of(error.kind(), &error, error.hint())
    }
}

/// Text for C: up to its first NUL, if somebody hid one in it.
fn text(mut text: String) -> CString {
    text.truncate(text.find('\0').unwrap_or(text.len()));
    CString::new(text).unwrap_or_default()
}

/// Runs what a function of the interface does. Its failure, or its panic, becomes a code, and an error in `out` unless that is
/// null; success makes `out` null.
///
/// # Safety
/// `out` is null or may be written to.
pub(crate) unsafe fn call(out: *mut *mut Failure, body: impl FnOnce() -> Result<(), Failure>) -> Code {
    // Whatever a panic leaves half done belongs to a handle whose invariants are held by locks that it poisons.
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => Some(Failure::panicked(&*panic)),
    };
    let code = failure.as_ref().map_or(TIDEMARK_OK, Failure::code);
    if !out.is_null() {
        let error = failure.map_or(ptr::null_mut(), |failure| Box::into_raw(Box::new(failure)));
        // SAFETY: it is not null, and the caller vouches for the rest.
        unsafe { out.write(error) };
    }
    code
}

/// The code of an error; TIDEMARK_OK if there is none (NULL).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_error_code(error: *const Failure) -> Code {
    // SAFETY: the caller vouches for it.
    unsafe { error.as_ref() }.map_or(TIDEMARK_OK, Failure::code)
}

/// One line for people, in UTF-8: what failed, and why. Valid as long as the error; an empty text for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_error_message(error: *const Failure) -> *const c_char {
    // SAFETY: the caller vouches for it.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// What a person can do about it, or NULL if that is not known. Valid as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_error_hint(error: *const Failure) -> *const c_char {
    // SAFETY: the caller vouches for it.
    let hint = unsafe { error.as_ref() }.and_then(|error| error.hint.as_ref());
    hint.map_or(ptr::null(), |hint| hint.as_ptr())
}

/// Frees an error; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_error_free(error: *mut Failure) {
    if !error.is_null() {
        // SAFETY: `call` made it with `Box::into_raw`, and the caller vouches that this is its end.
        drop(unsafe { Box::from_raw(error) });
    }
}

/// The library's version, such as "0.1.0". Static.
#[unsafe(no_mangle)]
pub extern "C" fn tidemark_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn a_panic_ends_in_the_call_and_says_what_it_was() {
        let mut error = ptr::null_mut();
        // SAFETY: `error` may be written to, and what is put there is freed once.
        unsafe {
            assert_eq!(call(&raw mut error, || panic!("at the {}", "disk")), TIDEMARK_INTERNAL);
            assert_eq!(CStr::from_ptr(tidemark_error_message(error)), c"bug in tidemark: at the disk");
            assert_eq!(tidemark_error_code(error), TIDEMARK_INTERNAL);
            tidemark_error_free(error);
            assert_eq!(call(ptr::null_mut(), || panic!("unheard")), TIDEMARK_INTERNAL);
        }
    }

    #[test]
    fn success_leaves_no_error_and_no_error_has_no_words() {
        let mut error = ptr::dangling_mut();
        // SAFETY: `error` may be written to; the other calls are handed null.
        unsafe {
            assert_eq!(call(&raw mut error, || Ok(())), TIDEMARK_OK);
            assert!(error.is_null());
            assert_eq!(tidemark_error_code(error), TIDEMARK_OK);
            assert_eq!(CStr::from_ptr(tidemark_error_message(error)), c"");
            assert!(tidemark_error_hint(error).is_null());
            tidemark_error_free(error);
        }
    }

    #[test]
    fn text_with_a_nul_in_it_ends_there() {
        assert_eq!(text("a\0b".to_owned()).as_c_str(), c"a");
    }
}
