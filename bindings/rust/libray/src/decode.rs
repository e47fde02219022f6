//! Reads MessagePack for serde, and refuses what would come out as another value than was sent. Used by `codec::decode` and
//! its like, on the thread that decodes; it reads inside of the slice that it was given, whatever stands there.
//!
//! * A float takes an integer only if it has that number, and no number that would become infinite.
//! * Bytes are a list of `u8` where one is wanted, and no list of anything else.
//! * What wraps a value for readers of another language (extension 16 around a tuple, 19 with the name of a type) is passed.
use serde::de::value::BytesDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use std::fmt;

const EXT_TENSOR: i8 = crate::codec::EXT_TENSOR;
const EXT_TUPLE: i8 = 16;
const EXT_NAMED: i8 = 19;
/// Deeper than any language writes.
const MAX_DEPTH: u32 = 256;

/// Why a value cannot be read: one line.
#[derive(Debug)]
pub(crate) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Error {}
impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}
type Result<T> = std::result::Result<T, Error>;

fn damaged() -> Error {
    Error("the bytes are not one MessagePack value".into())
}

/// A value, or the head of a container.
#[derive(Clone, Copy)]
enum Item<'de> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    F32(f32),
    F64(f64),
    Text(&'de [u8]),
    Bytes(&'de [u8]),
    Array(usize),
    Map(usize),
    Ext(i8, &'de [u8]),
}

/// Where reading stands.
pub(crate) struct Reader<'de> {
    data: &'de [u8],
    depth: u32,
}

impl<'de> Reader<'de> {
    pub fn new(data: &'de [u8]) -> Self {
        Self { data, depth: 0 }
    }

    fn take(&mut self, n: usize) -> Result<&'de [u8]> {
        if n > self.data.len() {
            return Err(damaged());
        }
        let (taken, rest) = self.data.split_at(n);
        self.data = rest;
        Ok(taken)
    }

    /// A big-endian number of n bytes.
    fn number(&mut self, n: usize) -> Result<u64> {
        Ok(self.take(n)?.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
    }

    fn run(&mut self, width: usize) -> Result<&'de [u8]> {
        let n = self.number(width)?;
        self.take(usize::try_from(n).map_err(|_| damaged())?)
    }

    /// That many members; each takes a byte at least.
    fn count(&self, n: u64) -> Result<usize> {
        usize::try_from(n).ok().filter(|n| *n <= self.data.len()).ok_or_else(damaged)
    }

    fn ext(&mut self, n: usize) -> Result<Item<'de>> {
        let kind = self.number(1)? as u8 as i8;
        let start = self.data;
        let body = self.take(n)?;
        if kind != EXT_TUPLE && kind != EXT_NAMED {
            return Ok(Item::Ext(kind, body));
        }
        self.data = start;
        if kind == EXT_NAMED {
            // [name, value]
            if !matches!(body, [0x92, 0xa0..=0xbf | 0xd9..=0xdb, ..]) {
                return Err(damaged());
            }
            self.take(1)?;
            self.raw_item()?;
        }
        self.item()
    }

    /// The next item, without what wraps it.
    fn item(&mut self) -> Result<Item<'de>> {
        self.depth += 1; // wrappers may stand in one another
        if self.depth > MAX_DEPTH {
            return Err(Error(format!("it is nested deeper than {MAX_DEPTH} levels")));
        }
        let item = self.raw_item();
        self.depth -= 1;
        item
    }

    fn raw_item(&mut self) -> Result<Item<'de>> {
        let signed = |v: i64| u64::try_from(v).map_or(Item::Negative(v), Item::Unsigned);
        let tag = self.number(1)? as u8;
        Ok(match tag {
            0x00..=0x7f => Item::Unsigned(u64::from(tag)),
            0x80..=0x8f => Item::Map(self.count(u64::from(tag & 15))?),
            0x90..=0x9f => Item::Array(self.count(u64::from(tag & 15))?),
            0xa0..=0xbf => Item::Text(self.take(usize::from(tag & 31))?),
            0xc0 => Item::Nil,
            0xc2 | 0xc3 => Item::Bool(tag == 0xc3),
            0xc4..=0xc6 => Item::Bytes(self.run(1 << (tag - 0xc4))?),
            0xc7..=0xc9 => {
                let n = self.number(1 << (tag - 0xc7))?;
                self.ext(usize::try_from(n).map_err(|_| damaged())?)?
            }
            0xca => Item::F32(f32::from_bits(self.number(4)? as u32)),
            0xcb => Item::F64(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Item::Unsigned(self.number(1 << (tag - 0xcc))?),
            0xd0..=0xd3 => {
                let width = 1 << (tag - 0xd0);
                let unused = 64 - 8 * width as u32;
                signed((self.number(width)? << unused) as i64 >> unused)
            }
            0xd4..=0xd8 => self.ext(1 << (tag - 0xd4))?,
            0xd9..=0xdb => Item::Text(self.run(1 << (tag - 0xd9))?),
            0xdc | 0xdd => {
                let n = self.number(2 << (tag - 0xdc))?;
                Item::Array(self.count(n)?)
            }
            0xde | 0xdf => {
                let n = self.number(2 << (tag - 0xde))?;
                Item::Map(self.count(n)?)
            }
            0xe0..=0xff => Item::Negative(i64::from(tag as i8)),
            0xc1 => return Err(damaged()),
        })
    }

    /// The item that comes next, which stays there.
    fn peek(&mut self) -> Result<Item<'de>> {
        let before = self.data;
        let item = self.item();
        self.data = before;
        item
    }

    /// Runs `f` on the members of a container.
    fn inside<R>(&mut self, left: usize, f: impl FnOnce(&mut Members<'_, 'de>) -> Result<R>) -> Result<R> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error(format!("it is nested deeper than {MAX_DEPTH} levels")));
        }
        let mut members = Members { reader: self, left };
        let out = f(&mut members)?;
        let left = members.left;
        self.depth -= 1;
        if left > 0 {
            return Err(Error(format!("it has {left} members more than were wanted")));
        }
        Ok(out)
    }

    fn visit<V: Visitor<'de>>(&mut self, item: Item<'de>, visitor: V) -> Result<V::Value> {
        match item {
            Item::Nil => visitor.visit_unit(),
            Item::Bool(v) => visitor.visit_bool(v),
            Item::Unsigned(v) => visitor.visit_u64(v),
            Item::Negative(v) => visitor.visit_i64(v),
            Item::F32(v) => visitor.visit_f32(v),
            Item::F64(v) => visitor.visit_f64(v),
            Item::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => Err(Error("a text is not UTF-8".into())),
            },
            Item::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Item::Array(n) => self.inside(n, |members| visitor.visit_seq(members)),
            Item::Map(n) => self.inside(n, |members| visitor.visit_map(members)),
            Item::Ext(kind, body) => visitor.visit_newtype_struct(ExtParts::new(kind, body)),
        }
    }

    /// The next item for a visitor that wants a list.
    fn list<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Bytes(bytes) => Octets(bytes).read(visitor),
            Item::Ext(EXT_TENSOR, _) => Err(Error("a tensor, where a list was expected: take a libray::Tensor".into())),
            item => self.visit(item, visitor),
        }
    }

    /// The next item for a visitor that wants a text: bytes that happen to be UTF-8 are none.
    fn text<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Bytes(_) => Err(no_text(&visitor)),
            item => self.visit(item, visitor),
        }
    }
}

/// That bytes are there.
pub(crate) fn no_text(wanted: &dyn serde::de::Expected) -> Error {
    Error::invalid_type(Unexpected::Other("bytes"), wanted)
}

/// The nearest float of the type, where a float may be wanted; None when it is another number.
fn to_float(item: Item<'_>, narrow: impl Fn(f64) -> f64) -> Option<f64> {
    match item {
        // Of 2^64 or 2^63 the conversion back would be the type's greatest.
        Item::Unsigned(v) => Some(narrow(v as f64)).filter(|f| *f < 18_446_744_073_709_551_616.0 && *f as u64 == v),
        Item::Negative(v) => Some(narrow(v as f64)).filter(|f| *f as i64 == v),
        Item::F32(v) => Some(f64::from(v)),
        Item::F64(v) => Some(narrow(v)).filter(|f| f.is_finite() || !v.is_finite()),
        _ => None,
    }
}

fn no_float(item: Item<'_>, type_name: &str) -> Option<Error> {
    let text = match item {
        Item::Unsigned(v) => v.to_string(),
        Item::Negative(v) => v.to_string(),
        Item::F64(v) => format!("{v:?}"),
        _ => return None,
    };
    Some(Error(format!("the number {text} does not fit an {type_name}")))
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let item = self.item()?;
        self.visit(item, visitor)
    }
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let item = self.item()?;
        match to_float(item, |v| v) {
            Some(v) => visitor.visit_f64(v),
            None => no_float(item, "f64").map_or_else(|| self.visit(item, visitor), Err),
        }
    }
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let item = self.item()?;
        match to_float(item, |v| f64::from(v as f32)) {
            Some(v) => visitor.visit_f32(v as f32),
            None => no_float(item, "f32").map_or_else(|| self.visit(item, visitor), Err),
        }
    }
    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_any(visitor) // nothing that travels has more than 64 bits
    }
    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_any(visitor)
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if let Item::Nil = self.peek()? {
            self.item()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        if name == rmp_serde::MSGPACK_EXT_STRUCT_NAME {
            return self.deserialize_any(visitor);
        }
        visitor.visit_newtype_struct(self)
    }
    /// Nil, or the empty list that a unit struct is.
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Nil | Item::Array(0) => visitor.visit_unit(),
            item => self.visit(item, visitor),
        }
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.list(visitor)
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.list(visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value> {
        self.list(visitor)
    }
    /// The name of a variant, or a map with it as the one key.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.peek()? {
            Item::Map(1) => {
                self.item()?;
                self.inside(0, |members| visitor.visit_enum(Variant { reader: &mut *members.reader, is_unit: false }))
            }
            Item::Text(_) => visitor.visit_enum(Variant { reader: self, is_unit: true }),
            _ => self.deserialize_any(visitor), // it says what is there instead
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 char bytes byte_buf unit map struct identifier ignored_any
    }
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Members of a list, or keys and values of a map, that were not read yet.
struct Members<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Members<'_, 'de> {
    type Error = Error;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = Error;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        SeqAccess::next_element_seed(self, seed)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(&mut *self.reader)
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// A variant of an enum: its name, then what it holds.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
    is_unit: bool,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        Ok((seed.deserialize(&mut *self.reader)?, self))
    }
}

impl Variant<'_, '_> {
    fn holds(&self, wanted: &str) -> Result<()> {
        if self.is_unit {
            return Err(Error(format!("the name of a variant alone, where {wanted} belongs to it")));
        }
        Ok(())
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    fn unit_variant(self) -> Result<()> {
        if self.is_unit {
            return Ok(());
        }
        serde::Deserialize::deserialize(self.reader)
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        self.holds("a value")?;
        seed.deserialize(self.reader)
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.holds("a tuple")?;
        self.reader.list(visitor)
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.holds("a struct")?;
        self.reader.deserialize_any(visitor)
    }
}

/// Bytes as the list of u8 that they may stand for, and of nothing else.
pub(crate) struct Octets<'a>(pub &'a [u8]);

impl Octets<'_> {
    /// Gives all of them to the visitor, which is to take all.
    pub fn read<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        let out = visitor.visit_seq(&mut self)?;
        if self.0.is_empty() {
            return Ok(out);
        }
        Err(Error(format!("there are {} bytes more than were wanted", self.0.len())))
    }
}

impl<'de> SeqAccess<'de> for Octets<'_> {
    type Error = Error;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some((first, rest)) = self.0.split_first() else { return Ok(None) };
        self.0 = rest;
        seed.deserialize(Octet(*first)).map(Some)
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// One byte, for who wants a u8.
struct Octet(u8);

impl<'de> Deserializer<'de> for Octet {
    type Error = Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        Err(Error::invalid_type(Unexpected::Other("bytes"), &WantsList(&visitor)))
    }
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_u8(self.0)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map struct enum identifier
    }
}

/// "a list of what the members are to be".
struct WantsList<'a>(&'a dyn serde::de::Expected);

impl serde::de::Expected for WantsList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list, each member of which is ")?;
        serde::de::Expected::fmt(self.0, f)
    }
}

/// The two parts of an extension value, as rmp-serde names them.
pub(crate) struct ExtParts<'de> {
    kind: i8,
    body: &'de [u8],
    at: u8,
}

impl<'de> ExtParts<'de> {
    pub fn new(kind: i8, body: &'de [u8]) -> Self {
        Self { kind, body, at: 0 }
    }
}

impl<'de> Deserializer<'de> for ExtParts<'de> {
    type Error = Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(self)
    }
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct enum identifier ignored_any option newtype_struct
    }
}

impl<'de> SeqAccess<'de> for ExtParts<'de> {
    type Error = Error;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        self.at += 1;
        match self.at {
            1 => seed.deserialize(IntoDeserializer::<Error>::into_deserializer(self.kind)).map(Some),
            2 => seed.deserialize(BytesDeserializer::<Error>::new(self.body)).map(Some),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    fn read<T: serde::de::DeserializeOwned>(data: &[u8]) -> std::result::Result<T, String> {
        T::deserialize(&mut Reader::new(data)).map_err(|e| e.to_string())
    }

    #[test]
    fn floats_take_what_they_have() {
        let f64_bits = |v: f64| [&[0xcb][..], &v.to_bits().to_be_bytes()].concat();
        let u64_bits = |v: u64| [&[0xcf][..], &v.to_be_bytes()].concat();
        let i64_bits = |v: i64| [&[0xd3][..], &v.to_be_bytes()].concat();
        assert_eq!(read::<f64>(&u64_bits(1 << 53)), Ok(9_007_199_254_740_992.0));
        assert!(read::<f64>(&u64_bits((1 << 53) + 1)).unwrap_err().contains("9007199254740993 does not fit an f64"));
        assert!(read::<f64>(&u64_bits(u64::MAX)).is_err());
        assert!(read::<f64>(&i64_bits(i64::MAX)).is_err());
        assert_eq!(read::<f64>(&i64_bits(i64::MIN)), Ok(i64::MIN as f64));
        assert!(read::<f64>(&i64_bits(i64::MIN + 1)).is_err());
        assert_eq!(read::<f32>(&[0xce, 1, 0, 0, 0]), Ok(16_777_216.0));
        assert!(read::<f32>(&[0xce, 1, 0, 0, 1]).is_err());
        assert_eq!(read::<f32>(&f64_bits(0.1)), Ok(0.1));
        assert_eq!(read::<f32>(&f64_bits(f64::NEG_INFINITY)), Ok(f32::NEG_INFINITY));
        assert!(read::<f32>(&f64_bits(f64::NAN)).unwrap().is_nan());
        assert!(read::<f32>(&f64_bits(1e39)).unwrap_err().contains("the number 1e39 does not fit an f32"));
        // Wherever they stand.
        let inside = |value: &[u8]| [&[0x81, 0xa1, b'x', 0x91][..], value].concat();
        type Inside = std::collections::BTreeMap<String, Vec<Option<f32>>>;
        assert!(read::<Inside>(&inside(&f64_bits(-1e39))).is_err());
        assert_eq!(read::<Inside>(&inside(&[5])).unwrap()["x"], [Some(5.0)]);
        assert!(read::<f64>(&[0xa1, b'x']).unwrap_err().contains("invalid type: string"));
    }

    #[test]
    fn bytes_are_lists_of_u8_alone() {
        let bytes = [0x92, 0xc4, 2, 1, 2, 0xc4, 0];
        assert_eq!(read::<Vec<Vec<u8>>>(&bytes), Ok(vec![vec![1, 2], vec![]]));
        assert_eq!(read::<([u8; 2], Vec<u8>)>(&bytes), Ok(([1, 2], vec![])));
        assert_eq!(read::<Vec<Vec<u8>>>(&[0x92, 0x92, 1, 2, 0x90]), Ok(vec![vec![1, 2], vec![]]));
        let refused = read::<Vec<Vec<i64>>>(&bytes).unwrap_err();
        assert!(refused.contains("bytes") && refused.contains("i64"), "{refused}");
        assert!(read::<(i64, i64)>(&[0xc4, 2, 1, 2]).is_err());
        assert!(read::<[u8; 1]>(&[0xc4, 2, 1, 2]).unwrap_err().contains("1 bytes more"));
        assert!(read::<[u8; 3]>(&[0xc4, 2, 1, 2]).is_err());
        assert!(read::<Vec<String>>(&[0x91, 0xc4, 2, b'a', b'b']).unwrap_err().contains("bytes"));
        assert!(read::<std::path::PathBuf>(&[0xc4, 1, b'a']).is_err());
        assert!(read::<Vec<f64>>(&[0xc4, 2, 1, 2]).is_err());
        #[derive(Debug, Deserialize)]
        #[allow(dead_code)]
        struct Point {
            x: u8,
            y: u8,
        }
        assert!(read::<Point>(&[0xc4, 2, 1, 2]).is_err());
        assert!(read::<Point>(&[0x92, 1, 2]).is_ok());
    }

    #[test]
    fn named_values_are_their_values() {
        // {"a": (name "T", 5)}, and one whose name is no name.
        let value = [0x81, 0xa1, b'a', 0xd6, 19, 0x92, 0xa1, b'T', 5];
        assert_eq!(read::<std::collections::BTreeMap<String, i64>>(&value).unwrap()["a"], 5);
        assert!(read::<i64>(&[0xd6, 19, 0x92, 0xc7, 0xff, 16]).is_err());
        // As deep as the wrappers go, they take no stack.
        let mut deep = vec![5];
        for _ in 0..100_000u32 {
            let size = (deep.len() as u32 + 3).to_be_bytes();
            deep.splice(0..0, [&[0xc9][..], &size, &[19, 0x92, 0xa1, b'T']].concat());
            if deep.len() > 8000 {
                break;
            }
        }
        assert!(read::<i64>(&deep).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn tuples_are_arrays() {
        // [1, (2, (3,)), "x\x10"] with tuples as extension 16, one in the other.
        let value = [0x93, 1, 0xc7, 6, 16, 0x92, 2, 0xd5, 16, 0x91, 3, 0xa2, b'x', 16];
        let read = read::<(i64, (i64, (i64,)), String)>(&value).unwrap();
        assert_eq!(read, (1, (2, (3,)), "x\x10".to_owned()));
    }

    #[test]
    fn damaged_bytes_are_errors() {
        let whole = [0x93, 1, 0xc7, 6, 16, 0x92, 2, 0xd5, 16, 0x91, 3, 0xa2, b'x', 16];
        for cut in 0..whole.len() {
            assert!(read::<(i64, (i64, (i64,)), String)>(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(read::<Vec<i64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(read::<Vec<u8>>(&[0xc6, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(read::<String>(&[0xa1, 0xff]).unwrap_err().contains("UTF-8"));
        assert!(read::<(i64,)>(&[0x92, 1, 2]).unwrap_err().contains("members more"));
    }

    #[test]
    fn enums_have_names() {
        #[derive(Debug, PartialEq, Deserialize)]
        enum Shape {
            Point,
            Circle { radius: f64 },
            Line(i8, i8),
            Name(String),
        }
        assert_eq!(read::<Shape>(&[0xa5, b'P', b'o', b'i', b'n', b't']), Ok(Shape::Point));
        let circle = [&[0x81, 0xa6][..], b"Circle", &[0x81, 0xa6], b"radius", &[2]].concat();
        assert_eq!(read::<Shape>(&circle), Ok(Shape::Circle { radius: 2.0 }));
        let line = [&[0x81, 0xa4][..], b"Line", &[0x92, 1, 0xff]].concat();
        assert_eq!(read::<Vec<Shape>>(&[&[0x91][..], &line].concat()), Ok(vec![Shape::Line(1, -1)]));
        let name = [&[0x81, 0xa4][..], b"Name", &[0xa1, b'n']].concat();
        assert_eq!(read::<Option<Shape>>(&name), Ok(Some(Shape::Name("n".into()))));
        assert!(read::<Shape>(&[0xa4, b'N', b'a', b'm', b'e']).is_err());
        assert!(read::<Shape>(&[0]).is_err()); // a number is no variant's name
    }
}
