//! Strings on their way into and out of libvirt.

use std::ffi::{CStr, CString};
use std::os::raw::c_char;

use crate::error::Cause;

/// A string for libvirt.
pub(crate) fn c_string(text: &str) -> Result<CString, Cause> {
    Ok(CString::new(text)?)
}

/// A copy of a string that libvirt keeps; `None` for a null pointer. Bytes that are not UTF-8 are
/// replaced.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string that stays valid during the call.
pub(crate) unsafe fn borrowed(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller promises a valid terminated string.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}
