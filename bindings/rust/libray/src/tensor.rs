//! Arrays, bytes and Arrow tables that are read in place: views of the store's memory, which is read only, and stays
//! as long as one of them. Clones share it.
use crate::codec::{self, Keep, OutOfBand, EXT_ARROW, EXT_TENSOR};
use crate::error::{check, Error, Result};
use crate::raw::RawRef;
use crate::reference::ObjectRef;
use crate::runtime::handle;
use libray_sys as sys;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

mod sealed {
    pub trait Sealed {}
}

/// A number that tensors are made of. Implemented for the integers up to 64 bits and for `f32` and `f64`; sealed.
pub trait Element:
    sealed::Sealed + Copy + Default + Send + Sync + fmt::Debug + PartialEq + Serialize + DeserializeOwned + 'static
{
    /// numpy's name of the type, little endian: `"<f8"`.
    #[doc(hidden)]
    const DTYPE: &'static str;
}

macro_rules! elements {
    ($($type:ty: $name:literal,)*) => { $(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: &'static str = $name;
        }
    )* };
}
elements! {
    u8: "|u1", i8: "|i1", u16: "<u2", i16: "<i2", u32: "<u4", i32: "<i4", u64: "<u8", i64: "<i8", f32: "<f4", f64: "<f8",
}
const _: () = assert!(cfg!(target_endian = "little"), "tensors lie in memory as they travel: little endian");

/// Memory that somebody keeps, as a slice.
struct View<T> {
    _keep: Keep,
    data: NonNull<T>,
    len: usize,
}

// SAFETY: it is read only, and what keeps it may be dropped on any thread.
unsafe impl<T: Sync> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for View<T> {}

impl<T> View<T> {
    fn of_vec(vec: Vec<T>) -> Self
    where
        T: Send + Sync + 'static,
    {
        let keep = Arc::new(vec);
        let (data, len) = (NonNull::from(keep.as_slice()).cast(), keep.len());
        Self { _keep: keep, data, len }
    }

    fn as_slice(&self) -> &[T] {
        // SAFETY: who made it saw to it that `len` members lie there, aligned and initialised, as long as `_keep`
        // exists; nobody writes to them.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { _keep: self._keep.clone(), data: self.data, len: self.len }
    }
}

/// An array of numbers of any number of dimensions, in C order, that is shared without a copy: between tasks,
/// processes and languages (numpy sees it as an array). It dereferences to `&[T]`; with the feature `ndarray`,
/// [`view`](Self::view) is an array of that crate. What a task gets is read only and lies in the object store, as
/// long as the tensor or a clone of it exists.
///
/// ```
/// let t = libray::Tensor::from(vec![1.0, 2.0, 3.0, 4.0]).reshape(&[2, 2])?;
/// assert_eq!(t.shape(), [2, 2]);
/// assert_eq!(t.iter().sum::<f64>(), 10.0);
/// # Ok::<(), libray::Error>(())
/// ```
///
/// A slice lives no longer than its tensor:
///
/// ```compile_fail,E0505
/// let t = libray::Tensor::from(vec![1.0, 2.0]);
/// let slice: &[f64] = &t;
/// drop(t);
/// println!("{slice:?}");
/// ```
#[derive(Clone)]
pub struct Tensor<T: Element> {
    view: View<T>,
    shape: Arc<[usize]>,
}

impl<T: Element> Tensor<T> {
    /// The same numbers in another shape.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the shape has another number of elements.
    pub fn reshape(mut self, shape: &[usize]) -> Result<Self> {
        if count(shape) != Some(self.view.len) {
            return Err(Error::InvalidArgument(format!("{} numbers do not have the shape {shape:?}", self.view.len)));
        }
        self.shape = shape.into();
        Ok(self)
    }

    /// Its dimensions.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// All numbers, the last index running fastest.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        self.view.as_slice()
    }

    /// It as an array of the crate `ndarray`, in place.
    ///
    /// # Panics
    /// Never: the shape has as many elements as there are.
    #[cfg(feature = "ndarray")]
    #[must_use]
    pub fn view(&self) -> ndarray::ArrayViewD<'_, T> {
        ndarray::ArrayViewD::from_shape(&*self.shape, self.as_slice()).expect("the shape was checked")
    }
}

/// numpy has 64.
const MAX_DIMENSIONS: usize = 64;

fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

impl<T: Element> Deref for Tensor<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Element> std::borrow::Borrow<[T]> for Tensor<T> {
    fn borrow(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Element> AsRef<[T]> for Tensor<T> {
    fn as_ref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Element> Default for Tensor<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

/// Of one dimension; takes the memory over.
impl<T: Element> From<Vec<T>> for Tensor<T> {
    fn from(vec: Vec<T>) -> Self {
        Self { shape: [vec.len()].into(), view: View::of_vec(vec) }
    }
}

/// Takes the memory over when the array is in C order; else copies it.
#[cfg(feature = "ndarray")]
impl<T: Element, D: ndarray::Dimension> From<ndarray::Array<T, D>> for Tensor<T> {
    fn from(array: ndarray::Array<T, D>) -> Self {
        let shape: Arc<[usize]> = array.shape().into();
        let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
        let (mut vec, offset) = array.into_raw_vec_and_offset();
        vec.drain(..offset.unwrap_or(0));
        vec.truncate(count(&shape).unwrap_or(0));
        Self { shape, view: View::of_vec(vec) }
    }
}

impl<T: Element> PartialEq for Tensor<T> {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.as_slice() == other.as_slice()
    }
}

impl<T: Element> fmt::Debug for Tensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?} of {}", self.shape, T::DTYPE)
    }
}

/// Its numbers travel beside the value, without a copy but the one into shared memory.
impl<T: Element> Serialize for Tensor<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let index = codec::push_oob(
            "a Tensor",
            OutOfBand {
                keep: Arc::new(self.view.clone()),
                data: self.view.data.as_ptr().cast(),
                size: std::mem::size_of_val(self.as_slice()),
            },
        )?;
        let body = rmp_serde::to_vec(&(T::DTYPE, &*self.shape, index)).map_err(serde::ser::Error::custom)?;
        codec::serialize_ext(serializer, EXT_TENSOR, &body)
    }
}

/// A tensor, or an array of numbers.
impl<'de, T: Element> Deserialize<'de> for Tensor<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct V<T>(PhantomData<T>);
        impl<'de, T: Element> Visitor<'de> for V<T> {
            type Value = Tensor<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a tensor of {}", T::DTYPE)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Tensor<T>, A::Error> {
                let mut vec = Vec::new();
                while let Some(item) = items.next_element()? {
                    vec.push(item);
                }
                Ok(vec.into())
            }
            /// They are a tensor of u8, and the members of another say that they are not.
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> std::result::Result<Tensor<T>, E> {
                crate::decode::Octets(bytes).read(self).map_err(E::custom)
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, parts: D) -> std::result::Result<Tensor<T>, D::Error> {
                from_ext(&codec::Ext::deserialize(parts)?)
            }
        }
        deserializer.deserialize_any(V(PhantomData))
    }
}

fn from_ext<T: Element, E: serde::de::Error>(ext: &codec::Ext) -> std::result::Result<Tensor<T>, E> {
    ext.check(EXT_TENSOR, "a Tensor")?;
    let (dtype, shape, index): (String, Vec<usize>, u64) =
        rmp_serde::from_slice(&ext.1 .0).map_err(|e| E::custom(format!("a Tensor is damaged: {e}")))?;
    if dtype != T::DTYPE {
        return Err(E::custom(format!("a tensor of {dtype} where one of {} was expected", T::DTYPE)));
    }
    let oob = codec::oob_at("a Tensor", index)?;
    let len = count(&shape).filter(|n| n.checked_mul(size_of::<T>()) == Some(oob.size));
    let Some(len) = len else {
        return Err(E::custom(format!("a tensor of shape {shape:?} and {} bytes", oob.size)));
    };
    Ok(Tensor { view: view_of(oob, len), shape: shape.into() })
}

/// The numbers where they lie, or a copy where that is not aligned for them.
fn view_of<T: Element>(oob: OutOfBand, len: usize) -> View<T> {
    if len == 0 {
        return View::of_vec(Vec::new());
    }
    let data = oob.data.cast::<T>().cast_mut();
    match NonNull::new(data) {
        Some(data) if data.is_aligned() => View { _keep: oob.keep, data, len },
        _ => {
            let mut copy = vec![T::default(); len];
            // SAFETY: the buffer has len * size_of::<T>() bytes, and the copy as many; numbers have no invalid bit
            // patterns.
            unsafe { std::ptr::copy_nonoverlapping(oob.data, copy.as_mut_ptr().cast::<u8>(), len * size_of::<T>()) };
            View::of_vec(copy)
        }
    }
}

/// Makes a tensor in shared memory itself: `fill` gets the place where its numbers go, all 0 or whatever lay there.
/// Nothing is copied. Any thread; `fill` runs on the caller's.
///
/// ```
/// # let _ray = libray::init()?;
/// let squares = libray::put_with(&[1000, 1000], |out: &mut [f64]| {
///     for (i, x) in out.iter_mut().enumerate() {
///         *x = (i * i) as f64;
///     }
/// })?;
/// assert_eq!(squares.get()?[3], 9.0);
/// # Ok::<(), libray::Error>(())
/// ```
///
/// # Errors
/// [`Error::StoreFull`]; [`Error::InvalidArgument`]: the shape has more elements than there is memory.
pub fn put_with<T: Element>(shape: &[usize], fill: impl FnOnce(&mut [T])) -> Result<ObjectRef<Tensor<T>>> {
    let runtime = handle()?;
    let bytes = count(shape).and_then(|n| n.checked_mul(size_of::<T>())).filter(|n| isize::try_from(*n).is_ok());
    let Some(bytes) = bytes.filter(|_| shape.len() <= MAX_DIMENSIONS) else {
        return Err(Error::InvalidArgument(format!(
            "a tensor of {} dimensions with more elements than any memory has, or more than {MAX_DIMENSIONS} dimensions",
            shape.len()
        )));
    };
    let body = rmp_serde::to_vec(&(T::DTYPE, shape, 0)).map_err(|e| Error::Internal(e.to_string()))?;
    let data = ext_bytes(EXT_TENSOR, &body);
    let oob = sys::ray_bytes { data: std::ptr::null(), size: bytes };
    let value =
        sys::ray_value { size: data.len(), format: sys::RAY_FMT_MSGPACK, oob: &oob, n_oob: 1, ..Default::default() };
    let (mut writer, mut layout) = (std::ptr::null_mut(), sys::ray_layout::default());
    // SAFETY: the shape's views outlive the call.
    check(|e| unsafe { sys::ray_writer_open(runtime, &value, &mut writer, &mut layout, e) })?;
    let writer = Writer(writer);
    // SAFETY: the layout has room for the bytes and one buffer of `bytes` bytes, aligned to 64, until the seal; they
    // are ours alone. Shared memory that was not written yet reads as some bytes, all of which are numbers.
    let numbers = unsafe {
        std::ptr::copy_nonoverlapping(data.as_ptr(), layout.data.cast::<u8>(), data.len());
        let start = if bytes == 0 { NonNull::dangling().as_ptr() } else { (*layout.oob).cast::<T>() };
        std::slice::from_raw_parts_mut(start, bytes / size_of::<T>())
    };
    fill(numbers);
    writer.seal()
}

/// MessagePack of an extension value.
fn ext_bytes(kind: i8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc8];
    out.extend_from_slice(&(body.len() as u16).to_be_bytes()); // a type's name and a shape: some hundred bytes
    out.push(kind as u8);
    out.extend_from_slice(body);
    out
}

/// An object under construction; it never existed if it is dropped before the seal.
struct Writer(*mut sys::ray_writer);

impl Writer {
    fn seal<T>(self) -> Result<ObjectRef<T>> {
        let writer = std::mem::ManuallyDrop::new(self).0;
        let mut out = std::ptr::null_mut();
        // SAFETY: it is consumed, also when it fails.
        check(|e| unsafe { sys::ray_writer_seal(writer, &mut out, e) })?;
        Ok(ObjectRef::from_raw(RawRef::from_owned(out)))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: it was not sealed.
        unsafe { sys::ray_writer_abort(self.0) };
    }
}

/// Bytes that are shared: of a value in raw bytes they are a view of the store's memory.
///
/// `Vec<u8>` travels as bytes too, and is copied when it is read.
#[derive(Clone)]
pub struct Bytes(View<u8>);

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Takes the memory over.
impl From<Vec<u8>> for Bytes {
    fn from(vec: Vec<u8>) -> Self {
        Self(View::of_vec(vec))
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, v: &[u8]) -> std::result::Result<Bytes, E> {
                Ok(match codec::keep_part(v) {
                    Some(keep) => Bytes(View { _keep: keep, data: NonNull::from(v).cast(), len: v.len() }),
                    None => v.to_vec().into(),
                })
            }
            // A `Vec<u8>` inside of a value is a list when it is empty.
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Bytes, A::Error> {
                let mut vec = Vec::new();
                while let Some(item) = items.next_element()? {
                    vec.push(item);
                }
                Ok(vec.into())
            }
        }
        deserializer.deserialize_bytes(V)
    }
}

/// An Arrow table as one IPC stream, for the crate `arrow` to read: `StreamReader::try_new(&*table, None)`. The bytes
/// are aligned to 64 and shared without a copy. Python sees a `pyarrow.Table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrowStream(Bytes);

impl From<Vec<u8>> for ArrowStream {
    fn from(stream: Vec<u8>) -> Self {
        Self(stream.into())
    }
}

impl Deref for ArrowStream {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for ArrowStream {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let view = &self.0 .0;
        let oob = OutOfBand { keep: Arc::new(view.clone()), data: view.data.as_ptr(), size: view.len };
        let index = codec::push_oob("an ArrowStream", oob)?;
        codec::serialize_ext(serializer, EXT_ARROW, &index.to_be_bytes())
    }
}

impl<'de> Deserialize<'de> for ArrowStream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let ext = codec::read_ext(deserializer, "an Arrow table")?;
        let index = ext.index(EXT_ARROW, "an Arrow table")?;
        let oob = codec::oob_at("an Arrow table", u64::from(index))?;
        let len = oob.size;
        Ok(Self(Bytes(view_of(oob, len))))
    }
}
