//! The C API of libray, `ray.h`, as it is: the same names, the same rules. Each function and struct is explained in
//! the header, which is installed with the library; the safe Rust API over it is the crate `libray`.
//!
//! The declarations are written by hand. When this crate is built, a C compiler compares them with the header: every
//! size, offset, number and prototype. [`check`] compares them with the library that is loaded.
#![allow(non_camel_case_types)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod functions;
mod types;

pub use functions::*;
pub use types::*;

use std::ffi::c_char;

/// A view of a text, good as long as the text.
pub fn text(s: &str) -> ray_str {
    ray_str { data: s.as_ptr().cast::<c_char>(), size: s.len() }
}

/// A view of bytes, good as long as the bytes.
pub fn bytes(b: &[u8]) -> ray_bytes {
    ray_bytes { data: b.as_ptr().cast(), size: b.len() }
}

unsafe extern "C" {
    /// Sizes and offsets in the order of [`LAYOUT`], as the C compiler saw them; the probe that `build.rs` makes.
    static libray_sys_layout: [u64; LAYOUT.len()];
}

/// Compares the loaded library and the header that this crate was built with against these declarations. A library of
/// another major version, or of a lower minor one, is refused. The error says what differs.
pub fn check() -> Result<(), String> {
    // SAFETY: an immutable array of exactly this length, in the object file that was linked with this one.
    let seen = unsafe { &libray_sys_layout };
    for ((what, here), there) in LAYOUT.iter().zip(seen) {
        if here != there {
            return Err(format!("{what} is {there} in ray.h and {here} in libray-sys"));
        }
    }
    // SAFETY: it may be called at any time.
    let loaded = unsafe { ray_api_version() };
    let version = |v: u32| format!("{}.{}.{}", v >> 16, v >> 8 & 0xff, v & 0xff);
    if loaded >> 16 != RAY_API_VERSION >> 16 || loaded >> 8 < RAY_API_VERSION >> 8 {
        return Err(format!(
            "the libray that was loaded is {}, this program was built for {}",
            version(loaded),
            version(RAY_API_VERSION)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn library_and_declarations_agree() {
        assert_eq!(check(), Ok(()));
    }

    /// Names of functions, after `opening` and before a parenthesis.
    fn functions(text: &str, opening: &str) -> BTreeSet<String> {
        let name = |rest: &str| {
            let before = rest.split(['(', ';']).next().unwrap_or_default();
            before.rsplit([' ', '*']).next().unwrap_or_default().to_owned()
        };
        text.split(opening).skip(1).map(name).filter(|n| n.starts_with("ray_")).collect()
    }

    /// The build compares what is declared here; this, that nothing of the header is missing.
    #[test]
    fn every_function_of_the_header_is_declared() {
        let header = std::fs::read_to_string(concat!(env!("LIBRAY_SYS_INCLUDE"), "/ray.h")).unwrap();
        let stable = header.split("#ifdef RAY_ALLOW_UNSTABLE").next().unwrap();
        let wanted = functions(stable, "\nRAY_API ");
        let declared = functions(include_str!("functions.rs"), "pub fn ");
        assert!(wanted.len() > 100, "{wanted:?}");
        assert_eq!(wanted.difference(&declared).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
