//! Placement groups: bundles of resources that are reserved together. A group is an id; nothing here has a thread or
//! a lock.
use crate::error::{check, Result};
use crate::runtime::{handle, nanoseconds, Id};
use libray_sys as sys;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where a task or an actor may run; made by [`PlacementGroup::bundle`], [`PlacementGroup::any_bundle`] and
/// [`Placement::node`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Placement {
    group: Id,
    bundle: i32,
    node: Id,
    flags: u32,
}

impl Placement {
    /// On this node (of [`Context::node`](crate::Context::node)), and nowhere else.
    pub fn node(node: Id) -> Self {
        Self { group: Id::default(), bundle: -1, node, flags: 0 }
    }

    /// Another node will do when that one is gone.
    pub fn soft(mut self) -> Self {
        self.flags |= sys::RAY_PLACEMENT_SOFT;
        self
    }

    pub(crate) fn raw(&self) -> sys::ray_placement {
        sys::ray_placement {
            group: sys::ray_id { b: self.group.0 },
            bundle: self.bundle,
            flags: self.flags,
            node: sys::ray_id { b: self.node.0 },
            ..Default::default()
        }
    }
}

/// How the bundles of a group lie on the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// On few nodes.
    #[default]
    Pack,
    /// On many.
    Spread,
    /// On one.
    StrictPack,
    /// Each on another.
    StrictSpread,
}

/// A reservation of resources that tasks and actors draw from. It ends with its job, or when
/// [`PlacementGroup::remove`] says so; dropping this value does nothing.
///
/// ```
/// # #[libray::remote] fn square(x: i64) -> i64 { x * x }
/// # fn main() -> libray::Result<()> {
/// # let _ray = libray::Config::new().num_cpus(2.0).init()?;
/// use libray::{PlacementGroup, Strategy, TaskOptions};
/// let group = PlacementGroup::create(&[&[("CPU", 1.0)], &[("CPU", 1.0)]], Strategy::Pack)?;
/// group.wait(None)?;
/// let nine = square::with(TaskOptions::new().placement(group.bundle(0))).remote(3)?.get()?;
/// assert_eq!(nine, 9);
/// group.remove()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementGroup {
    id: Id,
}

impl PlacementGroup {
    /// Asks for bundles of (resource, amount), and returns when the node knows of them: [`wait`](Self::wait) waits
    /// for the resources.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument): an empty bundle.
    pub fn create(bundles: &[&[(&str, f64)]], strategy: Strategy) -> Result<Self> {
        let bundles: Vec<BTreeMap<&str, f64>> = bundles.iter().map(|b| b.iter().copied().collect()).collect();
        let bundles = rmp_serde::to_vec_named(&bundles).unwrap_or_default(); // strings and numbers: it does not fail
        let options = sys::ray_group_options {
            bundles_msgpack: sys::bytes(&bundles),
            strategy: match strategy {
                Strategy::Pack => sys::RAY_GROUP_PACK,
                Strategy::Spread => sys::RAY_GROUP_SPREAD,
                Strategy::StrictPack => sys::RAY_GROUP_STRICT_PACK,
                Strategy::StrictSpread => sys::RAY_GROUP_STRICT_SPREAD,
            },
            ..Default::default()
        };
        let runtime = handle()?;
        let mut id = sys::ray_id::default();
        // SAFETY: the views outlive the call.
        check(|e| unsafe { sys::ray_group_create(runtime, &options, &mut id, e) })?;
        Ok(Self { id: id.into() })
    }

    /// Waits until its resources are reserved; `None` = for ever. It lends the processor of a task that waits.
    ///
    /// # Errors
    /// [`Error::TimedOut`](crate::Error::TimedOut); [`Error::NotFound`](crate::Error::NotFound): it was removed.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        let (runtime, id) = (handle()?, sys::ray_id { b: self.id.0 });
        // SAFETY: the views outlive the call.
        check(|e| unsafe { sys::ray_group_wait(runtime, &id, nanoseconds(timeout), e) })
    }

    /// Kills what runs in the group, and gives its resources back.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound): it was removed already.
    pub fn remove(&self) -> Result<()> {
        let (runtime, id) = (handle()?, sys::ray_id { b: self.id.0 });
        // SAFETY: the views outlive the call.
        check(|e| unsafe { sys::ray_group_remove(runtime, &id, e) })
    }

    /// In its bundle of this index.
    pub fn bundle(&self, index: u16) -> Placement {
        Placement { group: self.id, bundle: i32::from(index), node: Id::default(), flags: 0 }
    }

    /// In any bundle with room.
    pub fn any_bundle(&self) -> Placement {
        Placement { group: self.id, bundle: -1, node: Id::default(), flags: 0 }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }
}
