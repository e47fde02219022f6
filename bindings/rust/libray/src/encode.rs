//! What the serialiser of MessagePack is given: [`Typed`] stands around each value and decides by its type, never by what
//! is in it, which lists are bytes. Used by `codec::encode` alone, on the thread that encodes.
//!
//! * `Vec<u8>`, `[u8]`, `Box<[u8]>` and `[u8; N]` are bytes, empty or not, wherever they stand. A list of something that
//!   only looks like a `u8` when it is written (`Option<u8>`, an enum that is a number) is a list.
//! * Integers of 128 bits are written as integers, as far as MessagePack has them; others are refused. (rmp-serde would
//!   make 16 bytes of them, which no reader takes for a number.)
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant,
};
use serde::{Serialize, Serializer};
use std::any::type_name;

/// A value, with what was said above for it and for all inside of it.
pub(crate) struct Typed<'a, T: ?Sized>(pub &'a T);

impl<T: Serialize + ?Sized> Serialize for Typed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(By { inner: serializer, is_byte_array: is_byte_array::<T>() })
    }
}

/// The name of a type that is perhaps behind pointers, which serde looks through.
fn bare<T: ?Sized>() -> &'static str {
    const POINTERS: [&str; 5] = ["&mut ", "&", "alloc::boxed::Box<", "alloc::rc::Rc<", "alloc::sync::Arc<"];
    let mut name = type_name::<T>();
    while let Some(rest) = POINTERS.iter().find_map(|pointer| name.strip_prefix(pointer)) {
        name = rest;
    }
    name
}

fn is_byte_array<T: ?Sized>() -> bool {
    bare::<T>().starts_with("[u8; ")
}

/// The members are u8 and lie in memory one after the other.
fn is_byte_slice<I: IntoIterator>() -> bool {
    bare::<I::Item>() == "u8" && type_name::<I::IntoIter>().starts_with("core::slice::iter::Iter<")
}

struct By<S> {
    inner: S,
    is_byte_array: bool,
}

macro_rules! as_they_are {
    ($($method:ident: $type:ty,)*) => { $(
        fn $method(self, v: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(v)
        }
    )* };
}

impl<S: Serializer> Serializer for By<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Each<S::SerializeSeq>;
    type SerializeTuple = Tuple<S>;
    type SerializeTupleStruct = Each<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Each<S::SerializeTupleVariant>;
    type SerializeMap = Each<S::SerializeMap>;
    type SerializeStruct = Each<S::SerializeStruct>;
    type SerializeStructVariant = Each<S::SerializeStructVariant>;

    as_they_are! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }
    fn serialize_i128(self, v: i128) -> Result<S::Ok, S::Error> {
        match (i64::try_from(v), u64::try_from(v)) {
            (Ok(v), _) => self.inner.serialize_i64(v),
            (_, Ok(v)) => self.inner.serialize_u64(v),
            _ => Err(S::Error::custom(format!("the integer {v} is not between -2^63 and 2^64-1"))),
        }
    }
    fn serialize_u128(self, v: u128) -> Result<S::Ok, S::Error> {
        let small = u64::try_from(v);
        let small = small.map_err(|_| S::Error::custom(format!("the integer {v} is not between -2^63 and 2^64-1")))?;
        self.inner.serialize_u64(small)
    }
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Typed(value))
    }
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }
    fn serialize_unit_variant(self, name: &'static str, i: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, i, variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        if name == rmp_serde::MSGPACK_EXT_STRUCT_NAME {
            return self.inner.serialize_newtype_struct(name, value); // its type and its bytes
        }
        self.inner.serialize_newtype_struct(name, &Typed(value))
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        i: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_variant(name, i, variant, &Typed(value))
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.inner.serialize_seq(len).map(Each)
    }
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        if self.is_byte_array {
            return Ok(Tuple::Bytes(self.inner, Vec::with_capacity(len)));
        }
        self.inner.serialize_tuple(len).map(Tuple::Members)
    }
    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.inner.serialize_tuple_struct(name, len).map(Each)
    }
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        i: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.inner.serialize_tuple_variant(name, i, variant, len).map(Each)
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.inner.serialize_map(len).map(Each)
    }
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.inner.serialize_struct(name, len).map(Each)
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        i: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.inner.serialize_struct_variant(name, i, variant, len).map(Each)
    }
    fn collect_seq<I: IntoIterator>(self, items: I) -> Result<S::Ok, S::Error>
    where
        I::Item: Serialize,
    {
        let bytes = is_byte_slice::<I>();
        let items = items.into_iter();
        let len = match items.size_hint() {
            (low, Some(high)) if low == high => Some(low),
            _ => None,
        };
        if bytes {
            // The serialiser copies them in one go when there is one at least: its own word for them is this call.
            return if len == Some(0) { self.inner.serialize_bytes(&[]) } else { self.inner.collect_seq(items) };
        }
        let mut out = self.inner.serialize_seq(len)?;
        for item in items {
            out.serialize_element(&Typed(&item))?;
        }
        out.end()
    }
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// The members of a tuple, or of an array of bytes.
enum Tuple<S: Serializer> {
    Members(S::SerializeTuple),
    Bytes(S, Vec<u8>),
}

impl<S: Serializer> SerializeTuple for Tuple<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        match self {
            Self::Members(inner) => inner.serialize_element(&Typed(value)),
            Self::Bytes(_, bytes) => {
                // MessagePack of a u8 ends with it.
                let packed = rmp_serde::to_vec(value).map_err(S::Error::custom)?;
                bytes.extend(packed.last());
                Ok(())
            }
        }
    }
    fn end(self) -> Result<S::Ok, S::Error> {
        match self {
            Self::Members(inner) => inner.end(),
            Self::Bytes(inner, bytes) => inner.serialize_bytes(&bytes),
        }
    }
}

/// The members of anything else.
struct Each<C>(C);

impl<C: SerializeSeq> SerializeSeq for Each<C> {
    type Ok = C::Ok;
    type Error = C::Error;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_element(&Typed(value))
    }
    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}

impl<C: SerializeMap> SerializeMap for Each<C> {
    type Ok = C::Ok;
    type Error = C::Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.0.serialize_key(&Typed(key))
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_value(&Typed(value))
    }
    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}

macro_rules! of_fields {
    ($($trait:ident: ($($name:ident)?),)*) => { $(
        impl<C: $trait> $trait for Each<C> {
            type Ok = C::Ok;
            type Error = C::Error;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                $($name: &'static str,)?
                value: &T,
            ) -> Result<(), C::Error> {
                self.0.serialize_field($($name,)? &Typed(value))
            }
            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
            }
        }
    )* };
}
of_fields! {
    SerializeTupleStruct: (), SerializeTupleVariant: (), SerializeStruct: (name), SerializeStructVariant: (name),
}
