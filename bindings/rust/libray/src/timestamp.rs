//! A moment, in MessagePack's own form, which every language reads.
use crate::codec::{self, EXT_TIMESTAMP};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A [`SystemTime`] that travels as a timestamp: Python sees an aware `datetime`, Java an `Instant`. (`SystemTime`
/// itself would travel as a map.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub SystemTime);

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (seconds, nanos) = match self.0.duration_since(UNIX_EPOCH) {
            Ok(since) => (i64::try_from(since.as_secs()), since.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).map(|s| -s);
                match before.subsec_nanos() {
                    0 => (whole, 0),
                    n => (whole.map(|s| s - 1), 1_000_000_000 - n),
                }
            }
        };
        let seconds = seconds.map_err(serde::ser::Error::custom)?;
        let mut body = nanos.to_be_bytes().to_vec();
        body.extend_from_slice(&seconds.to_be_bytes());
        codec::serialize_ext(serializer, EXT_TIMESTAMP, &body)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let ext = codec::read_ext(deserializer, "a timestamp")?;
        ext.check(EXT_TIMESTAMP, "a timestamp")?;
        let body = &ext.1 .0;
        let (seconds, nanos) = match body.len() {
            4 => (i64::from(u32::from_be_bytes(part(body, 0))), 0),
            8 => {
                let both = u64::from_be_bytes(part(body, 0));
                ((both & 0x3_ffff_ffff) as i64, (both >> 34) as u32)
            }
            12 => (i64::from_be_bytes(part(body, 4)), u32::from_be_bytes(part(body, 0))),
            n => return Err(D::Error::custom(format!("a timestamp of {n} bytes"))),
        };
        if nanos > 999_999_999 {
            return Err(D::Error::custom(format!("a timestamp of {nanos} nanoseconds within a second")));
        }
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        let time = time.and_then(|t| t.checked_add(Duration::from_nanos(u64::from(nanos))));
        time.map(Self).ok_or_else(|| D::Error::custom("a timestamp that SystemTime cannot hold"))
    }
}

/// N bytes from `at` on; the caller has looked at the length.
fn part<const N: usize>(body: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&body[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_back() {
        for nanos in [0i128, 1, -1, 1_500_000_000, -1_500_000_000, 1 << 62] {
            let distance = Duration::from_nanos(nanos.unsigned_abs() as u64);
            let time = Timestamp(if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance });
            let bytes = rmp_serde::to_vec(&time).unwrap();
            assert_eq!(rmp_serde::from_slice::<Timestamp>(&bytes).unwrap(), time, "{nanos}");
        }
    }

    #[test]
    fn short_forms_are_read() {
        let four = rmp_serde::from_slice::<Timestamp>(&[0xd6, 0xff, 0, 0, 0, 7]).unwrap();
        assert_eq!(four.0, UNIX_EPOCH + Duration::from_secs(7));
        let eight = rmp_serde::from_slice::<Timestamp>(&[0xd7, 0xff, 0, 0, 0, 4, 0, 0, 0, 7]).unwrap();
        assert_eq!(eight.0, UNIX_EPOCH + Duration::new(7, 1));
    }
}
