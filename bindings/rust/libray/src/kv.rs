//! A small key-value store that the whole cluster shares: linearizable per key, kept in the control store's journal.
//! For configuration and rendezvous; values of tasks belong into the object store.
//!
//! ```
//! use libray::kv;
//! # let _ray = libray::init()?;
//! let version = kv::put("settings", b"rate", b"0.1")?;
//! kv::put_if("settings", b"rate", b"0.2", version)?; // fails if somebody else was faster
//! assert_eq!(kv::get("settings", b"rate")?.map(|(value, _)| value).as_deref(), Some(&b"0.2"[..]));
//! # Ok::<(), libray::Error>(())
//! ```
use crate::error::{check, Error, Result};
use crate::raw::Buffer;
use crate::runtime::handle;
use libray_sys as sys;

/// The value of a key and its version, or `None`. Versions of a key only grow, also over a delete. Blocks for the
/// control store.
///
/// # Errors
/// [`Error::Unavailable`]; [`Error::InvalidArgument`]: a key of more than 60 KiB.
pub fn get(namespace: &str, key: &[u8]) -> Result<Option<(Vec<u8>, u64)>> {
    let runtime = handle()?;
    let (mut buffer, mut version) = (Buffer::empty(), 0);
    // SAFETY: the views outlive the call.
    let got = check(|e| unsafe {
        sys::ray_kv_get(runtime, sys::text(namespace), sys::bytes(key), buffer.as_mut(), &mut version, e)
    });
    match got {
        Ok(()) => Ok(Some((buffer.data().to_vec(), version))),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stores, whatever is there; the new version. Returns when it is in the journal.
///
/// # Errors
/// As [`get`].
pub fn put(namespace: &str, key: &[u8], value: &[u8]) -> Result<u64> {
    put_if(namespace, key, value, sys::RAY_KV_ANY)
}

/// Stores if the key's version is `expected` (0: it does not exist); the new version.
///
/// # Errors
/// [`Error::Conflict`]: another write was faster; else as [`get`].
pub fn put_if(namespace: &str, key: &[u8], value: &[u8], expected: u64) -> Result<u64> {
    let runtime = handle()?;
    let mut version = 0;
    // SAFETY: the views outlive the call.
    check(|e| unsafe {
        let (key, value) = (sys::bytes(key), sys::bytes(value));
        sys::ray_kv_put(runtime, sys::text(namespace), key, value, expected, &mut version, e)
    })?;
    Ok(version)
}

/// Deletes a key, whatever its version; whether it was there.
///
/// # Errors
/// As [`get`].
pub fn delete(namespace: &str, key: &[u8]) -> Result<bool> {
    delete_if(namespace, key, sys::RAY_KV_ANY)
}

/// Deletes a key if its version is `expected`; whether it was there.
///
/// # Errors
/// [`Error::Conflict`]: it has another version by now; else as [`get`].
pub fn delete_if(namespace: &str, key: &[u8], expected: u64) -> Result<bool> {
    let runtime = handle()?;
    // SAFETY: the views outlive the call.
    let done = check(|e| unsafe { sys::ray_kv_delete(runtime, sys::text(namespace), sys::bytes(key), expected, e) });
    match done {
        Ok(()) => Ok(true),
        Err(Error::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The keys that start with `prefix`.
///
/// # Errors
/// As [`get`].
pub fn list(namespace: &str, prefix: &[u8]) -> Result<Vec<Vec<u8>>> {
    let runtime = handle()?;
    let mut buffer = Buffer::empty();
    // SAFETY: the views outlive the call.
    check(|e| unsafe { sys::ray_kv_list(runtime, sys::text(namespace), sys::bytes(prefix), buffer.as_mut(), e) })?;
    crate::codec::decode(buffer)
}
