//! What the cluster knows.
use crate::codec;
use crate::error::{check, Result};
use crate::raw::Buffer;
use crate::runtime::handle;
use libray_sys as sys;
use serde::de::DeserializeOwned;

/// The state of the cluster: `"nodes"`, `"resources"`, `"available"`, `"actors"`, `"tasks"`, `"objects"`,
/// `"workers"`, `"running"`, `"jobs"`, `"store"`, `"groups"` and more (`ray_cluster_query` in `ray.h` has the list).
/// The answer is a list of maps, or a map of name -> number: read it as what you need of it. Blocks for the node.
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Worker {
///     pid: u32,
/// }
/// # let _ray = libray::init()?;
/// let workers: Vec<Worker> = libray::query("workers")?;
/// assert!(workers.iter().all(|w| w.pid > 0));
/// # Ok::<(), libray::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument): no such thing; [`Error::Value`](crate::Error::Value):
/// it is not a `T`.
pub fn query<T: DeserializeOwned>(what: &str) -> Result<T> {
    let runtime = handle()?;
    let mut buffer = Buffer::empty();
    // SAFETY: the views outlive the call.
    check(|e| unsafe { sys::ray_cluster_query(runtime, sys::text(what), sys::bytes(&[]), buffer.as_mut(), e) })?;
    codec::decode(buffer)
}
