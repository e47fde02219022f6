//! Options of tasks and actors, by builder, and their form for the C API. Plain data: they live on the caller's thread.
use crate::error::{Error, Result};
use crate::placement::Placement;
use libray_sys as sys;
use serde::Serialize;
use std::collections::BTreeMap;

/// Names and amounts, and what the worker's environment is to be: `resources_msgpack` of the C API.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resources {
    amounts: BTreeMap<String, f64>,
    env_vars: BTreeMap<String, String>,
    working_dir: Option<String>,
}

#[derive(Serialize)]
struct RuntimeEnv<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env_vars: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: &'a Option<String>,
}

/// One entry of the map: an amount, or the environment.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Amount(f64),
    Environment(RuntimeEnv<'a>),
}

impl Resources {
    pub(crate) fn set(&mut self, name: impl Into<String>, amount: f64) {
        self.amounts.insert(name.into(), amount);
    }

    fn is_empty(&self) -> bool {
        self.amounts.is_empty() && self.env_vars.is_empty() && self.working_dir.is_none()
    }

    /// Empty when nothing was asked for: the default.
    pub(crate) fn encode(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut map: BTreeMap<&str, Entry<'_>> =
            self.amounts.iter().map(|(name, amount)| (name.as_str(), Entry::Amount(*amount))).collect();
        if !self.env_vars.is_empty() || self.working_dir.is_some() {
            let env = RuntimeEnv { env_vars: &self.env_vars, working_dir: &self.working_dir };
            map.insert("runtime_env", Entry::Environment(env));
        }
        rmp_serde::to_vec_named(&map).unwrap_or_default() // strings and numbers into memory: it does not fail
    }
}

macro_rules! resource_setters {
    () => {
        /// Processors that it takes while it runs; fractions are allowed.
        pub fn num_cpus(self, n: f64) -> Self {
            self.resource("CPU", n)
        }

        /// GPUs that it takes; fractions are allowed. [`crate::task::gpus`] tells which.
        pub fn num_gpus(self, n: f64) -> Self {
            self.resource("GPU", n)
        }

        /// Any other resource of the node.
        pub fn resource(mut self, name: impl Into<String>, amount: f64) -> Self {
            self.resources.set(name, amount);
            self
        }

        /// An environment variable of the worker that runs it. Equal environments share workers.
        pub fn env_var(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.resources.env_vars.insert(name.into(), value.into());
            self
        }

        /// The directory that the worker runs in.
        pub fn working_dir(mut self, path: impl Into<String>) -> Self {
            self.resources.working_dir = Some(path.into());
            self
        }

        /// Where it may run: in a placement group, or on a node.
        pub fn placement(mut self, placement: Placement) -> Self {
            self.placement = Some(placement);
            self
        }
    };
}

/// Options of one task or call.
///
/// ```
/// let twice = libray::TaskOptions::new().num_cpus(2.0).max_retries(5).name("a slow one");
/// # drop(twice);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TaskOptions {
    name: String,
    resources: Resources,
    max_retries: i32,
    stream_window: u32,
    flags: u32,
    group: Option<String>,
    placement: Option<Placement>,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            resources: Resources::default(),
            max_retries: sys::RAY_RETRIES_DEFAULT,
            stream_window: 0,
            flags: 0,
            group: None,
            placement: None,
        }
    }
}

/// Concurrency groups of a class, with how many calls run at once in each, and the number of a method's own (0 = the default).
pub type Groups = (&'static [(&'static str, u32)], u32);

impl TaskOptions {
    /// The defaults: one processor, three retries after a crash of the worker.
    pub fn new() -> Self {
        Self::default()
    }

    resource_setters!();

    /// A name for people: errors and tools show it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Executions after a crash of the worker; 3 by default, 0 for calls of actors.
    pub fn max_retries(mut self, n: u32) -> Self {
        self.max_retries = i32::try_from(n).unwrap_or(sys::RAY_RETRIES_INFINITE);
        self
    }

    /// Retries without end.
    pub fn retry_forever(mut self) -> Self {
        self.max_retries = sys::RAY_RETRIES_INFINITE;
        self
    }

    /// Failures of the function (a panic, an `Err`) are retried too.
    pub fn retry_on_error(mut self) -> Self {
        self.flags |= sys::RAY_TASK_RETRY_ON_ERROR;
        self
    }

    /// Of streams: unconsumed items before the producer waits; 64 by default.
    pub fn stream_window(mut self, items: u32) -> Self {
        self.stream_window = items;
        self
    }

    /// Of streams: dropping the stream does not cancel the producer.
    pub fn run_to_end(mut self) -> Self {
        self.flags |= sys::RAY_TASK_RUN_TO_END;
        self
    }

    /// Of calls of an actor: the concurrency group that this one runs in, instead of its method's. The class names its
    /// groups: see [`remote`](macro@crate::remote).
    pub fn concurrency_group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// The number of the group that a call is for.
    pub(crate) fn group_of(options: Option<&Self>, called: &str, (groups, own): Groups) -> Result<u32> {
        let Some(name) = options.and_then(|o| o.group.as_deref()) else { return Ok(own) };
        let place = groups.iter().position(|(group, _)| *group == name);
        let place = place.and_then(|i| u32::try_from(i + 1).ok());
        place.ok_or_else(|| {
            let names: Vec<_> = groups.iter().map(|(group, _)| *group).collect();
            let has = if names.is_empty() {
                "functions, handles without a class and classes without groups have none".to_owned()
            } else {
                format!("the class has {}", names.join(", "))
            };
            Error::InvalidArgument(format!("'{called}': there is no concurrency group '{name}'; {has}"))
        })
    }

    /// Hands the C form to `f`; the views in it are good meanwhile.
    pub(crate) fn with_raw<R>(&self, num_returns: u32, group: u32, f: impl FnOnce(&sys::ray_task_options) -> R) -> R {
        let resources = self.resources.encode();
        let placement = self.placement.as_ref().map(Placement::raw);
        f(&sys::ray_task_options {
            name: sys::text(&self.name),
            resources_msgpack: sys::bytes(&resources),
            max_retries: self.max_retries,
            num_returns,
            stream_window: self.stream_window,
            flags: self.flags,
            group,
            placement: placement.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            ..Default::default()
        })
    }
}

/// Options of an actor.
///
/// ```
/// let service = libray::ActorOptions::new().name("counter").detached().max_restarts(3);
/// # drop(service);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ActorOptions {
    name: String,
    namespace: String,
    resources: Resources,
    max_restarts: i32,
    max_task_retries: i32,
    pub(crate) max_concurrency: u32,
    detached: bool,
    max_pending_calls: u32,
    flags: u32,
    placement: Option<Placement>,
}

impl ActorOptions {
    /// The defaults: nameless, no resources, one call at a time, no restart; it ends with its last handle.
    pub fn new() -> Self {
        Self::default()
    }

    resource_setters!();

    /// A name by which other processes find it; unique among the living of its namespace.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The namespace of its name; else the runtime's.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// With a name: the actor that has it already, instead of [`Error::AlreadyExists`](crate::Error::AlreadyExists).
    pub fn get_if_exists(mut self) -> Self {
        self.flags |= sys::RAY_ACTOR_GET_IF_EXISTS;
        self
    }

    /// It lives until it is killed or the cluster ends, whoever has handles.
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// How often it is started again after a crash; 0 by default. Its state begins anew.
    pub fn max_restarts(mut self, n: u32) -> Self {
        self.max_restarts = i32::try_from(n).unwrap_or(sys::RAY_RETRIES_INFINITE);
        self
    }

    /// How often a call that was lost to a restart is made again; 0 by default.
    pub fn max_task_retries(mut self, n: u32) -> Self {
        self.max_task_retries = i32::try_from(n).unwrap_or(sys::RAY_RETRIES_INFINITE);
        self
    }

    /// Calls that run at once, each on a thread; for classes made with `#[remote(concurrent)]`. Of a class with
    /// concurrency groups: those of the default group.
    pub fn max_concurrency(mut self, n: u32) -> Self {
        self.max_concurrency = n;
        self
    }

    /// Calls of one process that may wait; over it a call is [`Error::Unavailable`](crate::Error::Unavailable).
    pub fn max_pending_calls(mut self, n: u32) -> Self {
        self.max_pending_calls = n;
        self
    }

    /// A call whose arguments are there overtakes calls that wait for theirs.
    pub fn out_of_order(mut self) -> Self {
        self.flags |= sys::RAY_ACTOR_OUT_OF_ORDER;
        self
    }

    /// Hands the C form to `f`; the views in it are good meanwhile.
    pub(crate) fn with_raw<R>(&self, metadata: &[u8], f: impl FnOnce(&sys::ray_actor_options) -> R) -> R {
        let resources = self.resources.encode();
        let placement = self.placement.as_ref().map(Placement::raw);
        f(&sys::ray_actor_options {
            name: sys::text(&self.name),
            ns: sys::text(&self.namespace),
            resources_msgpack: sys::bytes(&resources),
            max_restarts: self.max_restarts,
            max_task_retries: if self.max_task_retries == 0 { sys::RAY_RETRIES_DEFAULT } else { self.max_task_retries },
            max_concurrency: self.max_concurrency,
            lifetime: if self.detached { sys::RAY_LIFETIME_DETACHED } else { sys::RAY_LIFETIME_COUNTED },
            max_pending_calls: self.max_pending_calls,
            flags: self.flags,
            metadata: sys::bytes(metadata),
            placement: placement.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            ..Default::default()
        })
    }
}
