//! The values of the machine: a tag, a size, a pattern that follows from both, and what is inside. Their form is the
//! one of programs in two languages (../../SPEC.md), so that there is one form alone.
use libray::{ActorHandle, Bytes, ObjectRef, Result, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a slot of a reference holds: a result that was not given is nothing.
pub type Ref = ObjectRef<Option<Value>>;

/// One reference or one handle inside of a value.
#[derive(Clone, Serialize, Deserialize)]
pub struct Inside(pub Option<Ref>, pub Option<ActorHandle>);

/// Tag, size, bytes, array, inside. The pattern of every third tag is the array, else the bytes.
#[derive(Serialize, Deserialize)]
pub struct Value(
    pub u64,
    pub u64,
    pub Bytes,
    pub Tensor<i64>,
    pub Vec<Inside>,
);

pub fn mix(acc: u64, x: u64) -> u64 {
    acc.wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(x)
        .wrapping_add(1)
}

/// Whether CONFORMANCE_PLANT asks for this fault, which the tester then has to find.
pub fn planted(kind: &str) -> bool {
    static PLANT: OnceLock<String> = OnceLock::new();
    let plant = PLANT.get_or_init(|| std::env::var("CONFORMANCE_PLANT").unwrap_or_default());
    plant.strip_suffix("@rust").unwrap_or(plant) == kind
}

fn word(tag: u64, i: usize) -> u64 {
    tag.wrapping_add(i as u64).wrapping_mul(STEP)
}

impl Value {
    /// `in_place`: an array is written in shared memory.
    pub fn new(tag: u64, size: u64, mut inside: Vec<Inside>, in_place: bool) -> Result<Self> {
        if planted("lost") && tag % 7 == 0 {
            inside.pop();
        }
        let n = (size / 8) as usize;
        let wrong = if planted("value") && tag % 7 == 0 {
            n.wrapping_sub(1)
        } else {
            usize::MAX
        };
        let word = |i: usize| if i == wrong { 7 } else { word(tag, i) };
        if tag % 3 != 0 {
            let bytes = (0..n)
                .flat_map(|i| word(i).to_le_bytes())
                .collect::<Vec<u8>>();
            return Ok(Self(tag, size, bytes.into(), Tensor::default(), inside));
        }
        let array = if in_place {
            libray::put_with(&[n], |out: &mut [i64]| {
                out.iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = word(i) as i64)
            })?
            .get()?
        } else {
            (0..n).map(|i| word(i) as i64).collect::<Vec<_>>().into()
        };
        Ok(Self(tag, size, Vec::new().into(), array, inside))
    }

    pub fn is_whole(&self) -> bool {
        let (tag, n) = (self.0, (self.1 / 8) as usize);
        if tag % 3 == 0 {
            let good = |(i, x): (usize, &i64)| *x as u64 == word(tag, i);
            return self.2.is_empty() && self.3.len() == n && self.3.iter().enumerate().all(good);
        }
        let good = |(i, x): (usize, &[u8])| x == word(tag, i).to_le_bytes();
        self.3.is_empty() && self.2.len() == 8 * n && self.2.chunks(8).enumerate().all(good)
    }

    /// What a body mixes in.
    pub fn seen(&self) -> u64 {
        if self.is_whole() {
            self.0.wrapping_add(self.1)
        } else {
            1
        }
    }
}
