//! Values between Rust and the C API: serde over MessagePack, in the form that every language shares
//! (docs/api/values.md).
//!
//! References, actor handles and tensors inside a value are extension types that hold an index; what they point at
//! travels beside the bytes. Their `Serialize` and `Deserialize` find that beside-list in a thread-local, which
//! [`encode`] and [`decode`] set around serde; outside of these calls they are errors.
use crate::decode::{self, Reader};
use crate::encode::Typed;
use crate::error::{Error, Result};
use crate::raw::{Buffer, RawRef};
use libray_sys as sys;
use rmp_serde::config::BytesMode;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

pub(crate) const EXT_REFERENCE: i8 = 1;
pub(crate) const EXT_ACTOR: i8 = 2;
pub(crate) const EXT_TENSOR: i8 = 3;
pub(crate) const EXT_ARROW: i8 = 4;
pub(crate) const EXT_TIMESTAMP: i8 = -1;
/// Extension 4 with index 0, and nothing else.
const ARROW_ALONE: [u8; 6] = [0xd6, 4, 0, 0, 0, 0];

/// Memory that a value refers to and keeps.
pub(crate) type Keep = Arc<dyn Any + Send + Sync>;

/// One out-of-band buffer: where it lies, and what keeps it there.
pub(crate) struct OutOfBand {
    pub keep: Keep,
    pub data: *const u8,
    pub size: usize,
}

// SAFETY: nobody writes to what it points at, and what keeps that may be dropped on any thread.
unsafe impl Send for OutOfBand {}
// SAFETY: as above.
unsafe impl Sync for OutOfBand {}

/// A value on its way out. It owns all that its C form points at.
#[derive(Default)]
pub(crate) struct Encoded {
    data: Vec<u8>,
    format: u32,
    refs: Vec<RawRef>,
    oob: Vec<OutOfBand>,
}

impl Encoded {
    /// The C forms of references and buffers, which [`Encoded::value`] points at.
    pub fn views(&self) -> (Vec<*mut sys::ray_ref>, Vec<sys::ray_bytes>) {
        let refs = self.refs.iter().map(RawRef::as_ptr).collect();
        (refs, self.oob.iter().map(|o| sys::ray_bytes { data: o.data.cast(), size: o.size }).collect())
    }

    pub fn value(&self, (refs, oob): &(Vec<*mut sys::ray_ref>, Vec<sys::ray_bytes>)) -> sys::ray_value {
        sys::ray_value {
            data: self.data.as_ptr().cast(),
            size: self.data.len(),
            format: self.format,
            n_refs: refs.len() as u32, // at most 2^24: push_ref looks
            refs: refs.as_ptr(),
            oob: oob.as_ptr(),
            n_oob: oob.len(),
            ..Default::default()
        }
    }

    /// Hands the C form to `f`; it is good meanwhile.
    pub fn with_value<R>(&self, f: impl FnOnce(&sys::ray_value) -> R) -> R {
        f(&self.value(&self.views()))
    }
}

thread_local! {
    static ENCODING: RefCell<Option<Encoded>> = const { RefCell::new(None) };
    static DECODING: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// Restores what was being encoded or decoded on this thread, whatever happens in between.
struct Restore<T: 'static>(&'static std::thread::LocalKey<RefCell<Option<T>>>, Option<T>);
impl<T> Restore<T> {
    fn exchange(key: &'static std::thread::LocalKey<RefCell<Option<T>>>, value: T) -> Self {
        Self(key, key.replace(Some(value)))
    }
}
impl<T> Drop for Restore<T> {
    fn drop(&mut self) {
        self.0.replace(self.1.take());
    }
}

/// A value in MessagePack with what it refers to. A list of u8 becomes bytes.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded> {
    encode_typed(value)
        .map_err(|e| Error::Value(format!("a value of type {} cannot be encoded: {e}", std::any::type_name::<T>())))
}

fn encode_typed<T: Serialize + ?Sized>(value: &T) -> std::result::Result<Encoded, rmp_serde::encode::Error> {
    let mut data = Vec::with_capacity(32);
    let _outer = Restore::exchange(&ENCODING, Encoded::default());
    let mut out = rmp_serde::Serializer::new(&mut data).with_struct_map().with_bytes(BytesMode::ForceIterables);
    Typed(value).serialize(&mut out)?;
    let mut encoded = ENCODING.take().unwrap_or_default();
    if data == ARROW_ALONE && encoded.oob.len() == 1 {
        encoded.format = sys::RAY_FMT_ARROW_IPC; // the whole value is one table, and its form is Arrow's own
    } else {
        encoded.format = sys::RAY_FMT_MSGPACK;
        encoded.data = data;
    }
    Ok(encoded)
}

/// An extension value.
pub(crate) fn serialize_ext<S: Serializer>(
    serializer: S,
    kind: i8,
    body: &[u8],
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &(kind, BytesRef(body)))
}

fn add<E: serde::ser::Error>(what: &str, f: impl FnOnce(&mut Encoded) -> usize) -> std::result::Result<u32, E> {
    ENCODING.with_borrow_mut(|encoding| {
        let encoding = encoding.as_mut().ok_or_else(|| {
            E::custom(format!("{what} can be serialised only as part of a value that libray sends or puts"))
        })?;
        u32::try_from(f(encoding)).map_err(E::custom)
    })
}

/// Adds a reference to the value that is being encoded; its index.
pub(crate) fn push_ref<E: serde::ser::Error>(what: &str, reference: RawRef) -> std::result::Result<u32, E> {
    let index = add(what, |encoding| {
        encoding.refs.push(reference);
        encoding.refs.len() - 1
    })?;
    if index >= 1 << 24 {
        return Err(E::custom("more than 2^24 references in one value"));
    }
    Ok(index)
}

/// Adds an out-of-band buffer to the value that is being encoded; its index.
pub(crate) fn push_oob<E: serde::ser::Error>(what: &str, buffer: OutOfBand) -> std::result::Result<u32, E> {
    add(what, |encoding| {
        encoding.oob.push(buffer);
        encoding.oob.len() - 1
    })
}

struct BytesRef<'a>(&'a [u8]);
impl Serialize for BytesRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Bytes however they come.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByteBuf(pub Vec<u8>);
impl Serialize for ByteBuf {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}
impl<'de> Deserialize<'de> for ByteBuf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = ByteBuf;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, v: &[u8]) -> std::result::Result<ByteBuf, E> {
                Ok(ByteBuf(v.to_vec()))
            }
        }
        deserializer.deserialize_bytes(V)
    }
}

/// An extension value as it was read: its type and its body.
#[derive(Deserialize)]
pub(crate) struct Ext(pub i8, pub ByteBuf);

impl Ext {
    /// The body as a big-endian index, when the type is `kind`.
    pub fn index<E: serde::de::Error>(&self, kind: i8, what: &str) -> std::result::Result<u32, E> {
        self.check(kind, what)?;
        let body: [u8; 4] =
            self.1 .0.as_slice().try_into().map_err(|_| E::custom(format!("{what}: its index is damaged")))?;
        Ok(u32::from_be_bytes(body))
    }

    pub fn check<E: serde::de::Error>(&self, kind: i8, what: &str) -> std::result::Result<(), E> {
        if self.0 == kind {
            return Ok(());
        }
        Err(E::custom(format!("MessagePack extension {} where {what} (extension {kind}) was expected", self.0)))
    }
}

/// Reads any extension value.
pub(crate) fn read_ext<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
) -> std::result::Result<Ext, D::Error> {
    struct V(&'static str);
    impl<'de> Visitor<'de> for V {
        type Value = Ext;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_newtype_struct<D: Deserializer<'de>>(self, parts: D) -> std::result::Result<Ext, D::Error> {
            Ext::deserialize(parts)
        }
    }
    deserializer.deserialize_any(V(what))
}

/// Where the value that is being decoded lies.
enum Source {
    /// In a buffer that decoding owns; it becomes shared when a part of the value wants to keep it.
    Owned(Buffer),
    Shared(Arc<Buffer>),
    /// In an argument that the task owns: small, and nothing of it is kept.
    Borrowed(*const sys::ray_buffer),
}

impl Source {
    fn raw(&self) -> *const sys::ray_buffer {
        match self {
            Self::Owned(b) => b.as_raw(),
            Self::Shared(b) => b.as_raw(),
            Self::Borrowed(b) => *b,
        }
    }
}

/// The index-th reference inside the value that is being decoded.
pub(crate) fn reference_at<E: serde::de::Error>(what: &str, index: u32) -> std::result::Result<RawRef, E> {
    DECODING.with_borrow(|source| {
        let source = source.as_ref().ok_or_else(|| outside::<E>(what))?;
        let mut out = std::ptr::null_mut();
        // SAFETY: the buffer is not released while it is decoded.
        crate::error::check(|e| unsafe { sys::ray_buffer_ref(source.raw(), index, &mut out, e) }).map_err(E::custom)?;
        Ok(RawRef::from_owned(out))
    })
}

fn outside<E: serde::de::Error>(what: &str) -> E {
    E::custom(format!("{what} can be deserialised only from a value of libray"))
}

/// The index-th out-of-band buffer of the value that is being decoded: what keeps it, its address and size.
pub(crate) fn oob_at<E: serde::de::Error>(what: &str, index: u64) -> std::result::Result<OutOfBand, E> {
    DECODING.with_borrow_mut(|slot| {
        let mut source = slot.take().ok_or_else(|| outside::<E>(what))?;
        if let Source::Owned(buffer) = source {
            source = Source::Shared(Arc::new(buffer));
        }
        let found = match &source {
            Source::Shared(buffer) => {
                buffer.oob(index).map(|(data, size)| OutOfBand { keep: buffer.clone(), data, size })
            }
            _ => None,
        };
        *slot = Some(source);
        found.ok_or_else(|| E::custom(format!("{what}: the value has no out-of-band buffer {index}")))
    })
}

/// If `part` lies in the value that is being decoded: what keeps it there.
pub(crate) fn keep_part(part: &[u8]) -> Option<Keep> {
    DECODING.with_borrow_mut(|slot| {
        let source = slot.take()?;
        let source = if let Source::Owned(buffer) = source { Source::Shared(Arc::new(buffer)) } else { source };
        let kept = match &source {
            Source::Shared(buffer) if buffer.contains(part) => Some(buffer.clone() as Keep),
            _ => None,
        };
        *slot = Some(source);
        kept
    })
}

/// Reads a value and consumes its buffer, unless parts of it are views of the store.
pub(crate) fn decode<T: DeserializeOwned>(buffer: Buffer) -> Result<T> {
    decode_from(Source::Owned(buffer))
}

/// Reads a value that others read too; parts of it may keep it.
pub(crate) fn decode_shared<T: DeserializeOwned>(buffer: &Arc<Buffer>) -> Result<T> {
    decode_from(Source::Shared(buffer.clone()))
}

/// Reads a value that is somebody else's.
///
/// # Safety
/// The buffer is not released during the call.
pub(crate) unsafe fn decode_borrowed<T: DeserializeOwned>(buffer: *const sys::ray_buffer) -> Result<T> {
    decode_from(Source::Borrowed(buffer))
}

fn decode_from<T: DeserializeOwned>(source: Source) -> Result<T> {
    // SAFETY: the buffer lives in `source`, which is kept until the end of this function; a Buffer that becomes
    // shared moves, but its bytes stay where they are.
    let (format, data) = unsafe {
        let raw = &*source.raw();
        (raw.format, crate::error::slice(raw.data.cast(), raw.size as usize))
    };
    let _outer = Restore::exchange(&DECODING, source);
    let read = match format {
        sys::RAY_FMT_MSGPACK if data.is_empty() => read_msgpack(&[0xc0]),
        sys::RAY_FMT_MSGPACK => read_msgpack(data),
        sys::RAY_FMT_RAW => T::deserialize(Whole(data)).map_err(|e| e.to_string()),
        sys::RAY_FMT_ARROW_IPC => T::deserialize(ArrowTable).map_err(|e| e.to_string()),
        sys::RAY_FMT_PICKLE5 => Err("it is a pickle, which only Python reads".to_owned()),
        sys::RAY_FMT_JAVA => Err("it is in Java's serialisation, which only Java reads".to_owned()),
        other => Err(format!("it is in the private format {other}")),
    };
    read.map_err(|e| Error::Value(format!("a value cannot be read as {}: {e}", std::any::type_name::<T>())))
}

fn read_msgpack<T: DeserializeOwned>(data: &[u8]) -> std::result::Result<T, String> {
    T::deserialize(&mut Reader::new(data)).map_err(|e| e.to_string())
}

/// A value that is bytes alone: `Vec<u8>`, [`crate::Bytes`] and the like read it, all else says what it is.
struct Whole<'a>(&'a [u8]);

impl<'de> Deserializer<'de> for Whole<'_> {
    type Error = decode::Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Self::Error> {
        visitor.visit_bytes(self.0)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Self::Error> {
        decode::Octets(self.0).read(visitor)
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> std::result::Result<V::Value, Self::Error> {
        decode::Octets(self.0).read(visitor)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Self::Error> {
        Err(decode::no_text(&visitor))
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Self::Error> {
        Err(decode::no_text(&visitor))
    }
    /// An empty value stands for nothing too, where nothing is wanted.
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Self::Error> {
        if self.0.is_empty() {
            visitor.visit_unit()
        } else {
            visitor.visit_bytes(self.0)
        }
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char bytes byte_buf unit_struct tuple_struct map struct enum
        identifier ignored_any
    }
}

/// A value that is one Arrow table: the same as the extension type 4 with index 0.
struct ArrowTable;

impl<'de> Deserializer<'de> for ArrowTable {
    type Error = decode::Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(decode::ExtParts::new(EXT_ARROW, &[0; 4]))
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct enum identifier ignored_any option newtype_struct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_structs_are_what_others_expect() {
        #[derive(Serialize)]
        struct Point {
            x: i64,
            y: Option<f32>,
        }
        let data = |e: Encoded| e.data;
        assert_eq!(data(encode(&vec![1u8, 2]).unwrap()), [0xc4, 2, 1, 2]);
        assert_eq!(data(encode(&Vec::<u8>::new()).unwrap()), [0xc4, 0]);
        assert_eq!(data(encode(&[0u8; 0]).unwrap()), [0xc4, 0]);
        assert_eq!(data(encode::<[u8]>(&[]).unwrap()), [0xc4, 0]);
        assert_eq!(data(encode(&Vec::<i8>::new()).unwrap()), [0x90]);
        assert_eq!(read_msgpack::<Vec<u8>>(&[0xc4, 0]).unwrap(), []);
        assert_eq!(*read_msgpack::<crate::Bytes>(&[0x90]).unwrap(), []);
        assert_eq!(*read_msgpack::<crate::Bytes>(&[0xc4, 1, 7]).unwrap(), [7]);
        assert!(read_msgpack::<crate::Bytes>(&[0x91, 0xa0]).is_err());
        assert_eq!(data(encode(&Point { x: 1, y: None }).unwrap()), [0x82, 0xa1, b'x', 1, 0xa1, b'y', 0xc0]);
        assert_eq!(data(encode(&(1, "a")).unwrap()), [0x92, 1, 0xa1, b'a']);
        assert_eq!(data(encode(&()).unwrap()), [0xc0]);
    }

    #[test]
    fn what_are_bytes_goes_by_the_type() {
        #[derive(Serialize)]
        struct Level(u8);
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Item {
            Number(u8),
        }
        let data = |e: Result<Encoded>| e.unwrap().data;
        assert_eq!(data(encode(&vec![vec![1u8, 2], vec![]])), [0x92, 0xc4, 2, 1, 2, 0xc4, 0]);
        assert_eq!(data(encode(&Some(Vec::<u8>::new()))), [0xc4, 0]);
        assert_eq!(data(encode(&vec![Some(1u8), Some(2)])), [0x92, 1, 2]);
        assert_eq!(data(encode(&vec![Level(1)])), [0x91, 1]);
        assert_eq!(data(encode(&vec![Item::Number(1)])), [0x91, 1]);
        assert_eq!(data(encode(&(vec![7u8], vec![Some(1u8), None]))), [0x92, 0xc4, 1, 7, 0x92, 1, 0xc0]);
        assert_eq!(data(encode(&vec![ByteBuf(vec![1]), ByteBuf(vec![])])), [0x92, 0xc4, 1, 1, 0xc4, 0]);
        assert_eq!(data(encode(b"ab")), [0xc4, 2, b'a', b'b']);
        assert_eq!(data(encode(&([1u8, 200], (1u8, 2u8)))), [0x92, 0xc4, 2, 1, 200, 0x92, 1, 2]);
        assert_eq!(data(encode(&Box::new([1u8]))), [0xc4, 1, 1]);
        assert_eq!(data(encode(&vec![1i8, 2])), [0x92, 1, 2]);
        let map = std::collections::BTreeMap::from([("a", vec![]), ("b", vec![1u8])]);
        assert_eq!(data(encode(&map)), [0x82, 0xa1, b'a', 0xc4, 0, 0xa1, b'b', 0xc4, 1, 1]);
    }

    #[test]
    fn wide_integers_are_integers() {
        let data = |e: Result<Encoded>| e.unwrap().data;
        assert_eq!(data(encode(&5i128)), [5]);
        assert_eq!(data(encode(&-1i128)), [0xff]);
        assert_eq!(data(encode(&u128::from(u64::MAX))), [0xcf, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert!(encode(&vec![i128::MAX]).is_err() && encode(&u128::MAX).is_err());
        assert_eq!(read_msgpack::<u128>(&[0xcc, 200]).unwrap(), 200);
        assert_eq!(read_msgpack::<i128>(&[0xff]).unwrap(), -1);
    }

    #[test]
    fn no_bytes_are_bytes() {
        let mut buffer = sys::ray_buffer { format: sys::RAY_FMT_RAW, ..Default::default() };
        // SAFETY: the buffer is empty.
        unsafe {
            assert_eq!(decode_borrowed::<Vec<u8>>(&buffer).unwrap(), []);
            assert_eq!(decode_borrowed::<Option<Vec<u8>>>(&buffer).unwrap(), Some(vec![]));
            assert_eq!(*decode_borrowed::<crate::Bytes>(&buffer).unwrap(), []);
            assert_eq!(decode_borrowed::<crate::Tensor<u8>>(&buffer).unwrap().shape(), [0]);
            decode_borrowed::<()>(&buffer).unwrap();
            buffer.format = sys::RAY_FMT_MSGPACK;
            assert_eq!(decode_borrowed::<Option<Vec<u8>>>(&buffer).unwrap(), None);
        }
    }

    #[test]
    fn bytes_are_lists_of_u8_alone() {
        let text = b"ab";
        let data = text.as_ptr().cast_mut().cast();
        let buffer = sys::ray_buffer { data, size: 2, format: sys::RAY_FMT_RAW, ..Default::default() };
        // SAFETY: the buffer is a view of the text.
        unsafe {
            assert_eq!(decode_borrowed::<[u8; 2]>(&buffer).unwrap(), *text);
            assert_eq!(&*decode_borrowed::<crate::Tensor<u8>>(&buffer).unwrap(), text);
            assert!(decode_borrowed::<Vec<i64>>(&buffer).unwrap_err().to_string().contains("bytes"));
            assert!(decode_borrowed::<crate::Tensor<f64>>(&buffer).is_err());
            assert!(decode_borrowed::<(u16, u16)>(&buffer).is_err());
            assert!(decode_borrowed::<[u8; 1]>(&buffer).is_err());
            assert!(decode_borrowed::<String>(&buffer).unwrap_err().to_string().contains("bytes"));
        }
    }

    #[test]
    fn a_list_that_begins_like_bytes_is_a_list() {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Item {
            Number(u8),
            Text(&'static str),
        }
        assert_eq!(encode(&[Item::Number(1), Item::Text("a")].as_slice()).unwrap().data, [0x92, 1, 0xa1, b'a']);
    }

    #[test]
    fn a_reference_outside_of_a_value_says_so() {
        let text = rmp_serde::from_slice::<crate::ObjectRef<i64>>(&[0xd6, 1, 0, 0, 0, 0]).err().unwrap().to_string();
        assert!(text.contains("only from a value of libray"), "{text}");
    }
}
