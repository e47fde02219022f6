//! One count of a C handle each, released on drop; buffers likewise. All of them may be used and dropped on any thread.
use libray_sys as sys;
use std::ptr;

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $raw:ident, $retain:ident, $release:ident) => {
        $(#[$doc])*
        pub(crate) struct $name(*mut sys::$raw);

        // SAFETY: any function of the C API may be called from any thread; the handle is a number.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl $name {
            /// Takes over the count that a call of the C API handed out.
            pub fn from_owned(raw: *mut sys::$raw) -> Self {
                Self(raw)
            }
            pub fn as_ptr(&self) -> *mut sys::$raw {
                self.0
            }
        }

        impl Clone for $name {
            fn clone(&self) -> Self {
                // SAFETY: the handle is ours; a stale one is refused by the library.
                Self(unsafe { sys::$retain(self.0) })
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the one count of this value.
                unsafe { sys::$release(self.0) }
            }
        }
    };
}

handle!(RawRef, ray_ref, ray_ref_retain, ray_ref_release);
handle!(RawActor, ray_actor, ray_actor_retain, ray_actor_release);
handle!(RawStream, ray_stream, ray_stream_retain, ray_stream_release);

/// A value that came out of the runtime; its bytes stay where they are until it is dropped, also when this struct
/// moves.
#[repr(transparent)]
pub(crate) struct Buffer(sys::ray_buffer);

// SAFETY: it is read only, and may be released on any thread.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty one, for a call of the C API to fill.
    pub fn empty() -> Self {
        Self(sys::ray_buffer::default())
    }

    pub fn as_raw(&self) -> *const sys::ray_buffer {
        &self.0
    }

    pub fn as_mut(&mut self) -> *mut sys::ray_buffer {
        &mut self.0
    }

    pub fn data(&self) -> &[u8] {
        // SAFETY: the library's promise for a buffer that was not released; empty for one that was never filled.
        unsafe { crate::error::slice(self.0.data.cast(), self.0.size as usize) }
    }

    /// Address and size of an out-of-band buffer.
    pub fn oob(&self, index: u64) -> Option<(*const u8, usize)> {
        if index >= self.0.n_oob {
            return None;
        }
        // SAFETY: the array has n_oob members until the release.
        let view = unsafe { &*self.0.oob.add(index as usize) };
        let data = if view.size == 0 { ptr::dangling() } else { view.data.cast() };
        Some((data, view.size))
    }

    /// Whether these bytes lie in the value's own.
    pub fn contains(&self, part: &[u8]) -> bool {
        let (whole, part) = (self.data().as_ptr_range(), part.as_ptr_range());
        whole.start <= part.start && part.end <= whole.end
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: one copy of it exists, this one; releasing an empty one does nothing.
        unsafe { sys::ray_buffer_release(&mut self.0) }
    }
}
