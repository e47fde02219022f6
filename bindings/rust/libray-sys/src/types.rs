//! Types and numbers of `ray.h`. `build.rs` includes this very file, and has a C compiler compare every size, offset
//! and number with the header; so a field or a constant that is added here stands in the lists at the end too.
use std::ffi::{c_char, c_void};

macro_rules! handles {
    ($($name:ident)*) => { $(
        /// An opaque handle: a tagged number, not an address.
        #[repr(C)]
        pub struct $name { _opaque: [u8; 0] }
    )* };
}
handles! {
    ray_error ray_runtime ray_ref ray_actor ray_writer ray_queue ray_function ray_stream ray_task
}

macro_rules! structs {
    ($($name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub struct $name { $(pub $field: $type,)* }
        )*
        /// What a C compiler must find: (expression, value).
        pub const LAYOUT: &[(&str, u64)] = &[ $(
            (concat!("sizeof(", stringify!($name), ")"), size_of::<$name>() as u64),
            $((
                concat!("offsetof(", stringify!($name), ", ", stringify!($field), ")"),
                std::mem::offset_of!($name, $field) as u64,
            ),)*
        )* ];
    };
}

pub type ray_code = i32;
pub type ray_log_fn = Option<unsafe extern "C" fn(i32, ray_str, ray_str, ray_str, *mut c_void)>;
pub type ray_wait_fn = Option<unsafe extern "C" fn(*mut c_void) -> bool>;
pub type ray_done_fn = Option<unsafe extern "C" fn(*const ray_completion, *mut c_void)>;
pub type ray_task_fn = Option<unsafe extern "C" fn(*mut ray_task, *mut c_void) -> ray_code>;
pub type ray_interrupt_fn = Option<unsafe extern "C" fn(*mut ray_task, *mut c_void)>;
/// Not in the header by name: what `ray_register_actor` calls at a graceful end.
pub type ray_destroy_fn = Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>;

structs! {
    ray_str { data: *const c_char, size: usize, }
    ray_bytes { data: *const c_void, size: usize, }
    ray_runtime_options {
        struct_size: usize,
        address: ray_str,
        ns: ray_str,
        session_dir: ray_str,
        num_cpus: f64,
        resources_msgpack: ray_bytes,
        store_bytes: u64,
        spill_bytes: u64,
        gcs_shards: u32,
        language: i32,
        worker_argv: *const *const c_char,
        job_name: ray_str,
    }
    ray_id { b: [u8; 24], }
    ray_context {
        struct_size: usize,
        job: ray_id,
        node: ray_id,
        task: ray_id,
        actor: ray_id,
        pid: u32,
        worker: u32,
    }
    ray_value {
        data: *const c_void,
        size: usize,
        format: u32,
        n_refs: u32,
        refs: *const *mut ray_ref,
        oob: *const ray_bytes,
        n_oob: usize,
        reserved: [u64; 2],
    }
    ray_buffer {
        data: *const c_void,
        size: u64,
        format: u32,
        n_refs: u32,
        oob: *const ray_bytes,
        n_oob: u64,
        release: Option<unsafe extern "C" fn(*mut ray_buffer)>,
        private_data: *mut c_void,
        reserved: [u64; 2],
    }
    ray_layout { data: *mut c_void, oob: *mut *mut c_void, }
    ray_completion {
        tag: u64,
        code: ray_code,
        kind: u32,
        r#ref: *mut ray_ref,
        error: *mut ray_error,
        reserved: [u64; 2],
    }
    ray_notify {
        struct_size: usize,
        queue: *mut ray_queue,
        r#fn: ray_done_fn,
        user: *mut c_void,
        tag: u64,
        flags: u32,
        reserved: u32,
        free_user: Option<unsafe extern "C" fn(*mut c_void)>,
    }
    ray_arg { r#ref: *mut ray_ref, value: ray_value, }
    ray_placement { struct_size: usize, group: ray_id, bundle: i32, flags: u32, node: ray_id, }
    ray_task_options {
        struct_size: usize,
        name: ray_str,
        resources_msgpack: ray_bytes,
        max_retries: i32,
        num_returns: u32,
        stream_window: u32,
        flags: u32,
        placement: *const ray_placement,
        group: u32,
        reserved: u32,
    }
    ray_actor_options {
        struct_size: usize,
        name: ray_str,
        ns: ray_str,
        resources_msgpack: ray_bytes,
        max_restarts: i32,
        max_task_retries: i32,
        max_concurrency: u32,
        lifetime: i32,
        max_pending_calls: u32,
        flags: u32,
        metadata: ray_bytes,
        placement: *const ray_placement,
    }
    ray_group_options {
        struct_size: usize,
        bundles_msgpack: ray_bytes,
        name: ray_str,
        ns: ray_str,
        strategy: i32,
        lifetime: i32,
    }
    ray_task_info {
        struct_size: usize,
        id: ray_id,
        parent: ray_id,
        job: ray_id,
        actor: ray_id,
        function: ray_str,
        method: ray_str,
        name: ray_str,
        function_key: u64,
        kind: u32,
        attempt: u32,
        num_returns: u32,
        is_stream: bool,
        has_gpus: bool,
        caller_language: i32,
        max_concurrency: u32,
    }
}

macro_rules! zeroed_default {
    ($($name:ident)*) => { $(
        impl Default for $name {
            fn default() -> Self {
                // SAFETY: plain numbers, pointers and Options of function pointers, for which all bits 0 are a value.
                unsafe { std::mem::zeroed() }
            }
        }
    )* };
}
zeroed_default! { ray_str ray_bytes ray_id ray_value ray_buffer ray_layout ray_completion ray_arg }

/// What the header's `RAY_*_INIT` macros give: `struct_size` is set, the rest is 0 but for the fields named.
macro_rules! sized_default {
    ($($name:ident { $($field:ident: $value:expr),* })*) => { $(
        impl Default for $name {
            fn default() -> Self {
                // SAFETY: as above.
                let zero: Self = unsafe { std::mem::zeroed() };
                Self { struct_size: size_of::<Self>(), $($field: $value,)* ..zero }
            }
        }
    )* };
}
sized_default! {
    ray_runtime_options {}
    ray_context {}
    ray_notify {}
    ray_placement { bundle: -1 }
    ray_task_options { max_retries: RAY_RETRIES_DEFAULT, num_returns: 1 }
    ray_actor_options { max_task_retries: RAY_RETRIES_DEFAULT }
    ray_group_options {}
    ray_task_info {}
}

macro_rules! numbers {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        $(pub const $name: $type = $value;)*
        /// What a C compiler must find: (constant, value).
        pub const NUMBERS: &[(&str, i128)] = &[ $((stringify!($name), $name as i128),)* ];
    };
}
numbers! {
    RAY_API_VERSION: u32 = 0x000300;
    RAY_MAX_NAME: usize = 4096;
    RAY_MAX_KEY: usize = 60 * 1024;
    RAY_MAX_METADATA: usize = 240 * 1024;
    RAY_MAX_SHARDS: u32 = 64;
    RAY_MAX_RETURNS: u32 = 3968;
    RAY_NUL: usize = usize::MAX;
    RAY_OK: ray_code = 0;
    RAY_CANCELLED: ray_code = 1;
    RAY_INVALID_ARGUMENT: ray_code = 2;
    RAY_TIMED_OUT: ray_code = 3;
    RAY_NOT_FOUND: ray_code = 4;
    RAY_ALREADY_EXISTS: ray_code = 5;
    RAY_OUT_OF_MEMORY: ray_code = 6;
    RAY_UNAVAILABLE: ray_code = 7;
    RAY_WRONG_STATE: ray_code = 8;
    RAY_UNSUPPORTED: ray_code = 9;
    RAY_INTERNAL: ray_code = 10;
    RAY_CONFLICT: ray_code = 11;
    RAY_TASK_FAILED: ray_code = 100;
    RAY_WORKER_CRASHED: ray_code = 101;
    RAY_OBJECT_LOST: ray_code = 102;
    RAY_UNSCHEDULABLE: ray_code = 103;
    RAY_ACTOR_DIED: ray_code = 104;
    RAY_ACTOR_RESTARTING: ray_code = 105;
    RAY_STREAM_END: ray_code = 106;
    RAY_STORE_FULL: ray_code = 107;
    RAY_NODE_DIED: ray_code = 108;
    RAY_GROUP_REMOVED: ray_code = 109;
    RAY_UNKNOWN_FUNCTION: ray_code = 110;
    RAY_LOG_ERROR: i32 = 1;
    RAY_LOG_WARNING: i32 = 2;
    RAY_LOG_INFO: i32 = 3;
    RAY_LOG_DEBUG: i32 = 4;
    RAY_MODE_DRIVER: i32 = 0;
    RAY_MODE_WORKER: i32 = 1;
    RAY_LANG_NATIVE: i32 = 0;
    RAY_LANG_PYTHON: i32 = 1;
    RAY_LANG_JAVA: i32 = 2;
    RAY_LANG_RUST: i32 = 3;
    RAY_LANG_COUNT: i32 = 4;
    RAY_ID_SIZE: usize = 24;
    RAY_FMT_RAW: u32 = 0;
    RAY_FMT_MSGPACK: u32 = 1;
    RAY_FMT_PICKLE5: u32 = 2;
    RAY_FMT_ARROW_IPC: u32 = 3;
    RAY_FMT_JAVA: u32 = 4;
    RAY_FMT_USER: u32 = 0x1000;
    RAY_COMPLETION_READY: u32 = 1;
    RAY_COMPLETION_STREAM_ITEM: u32 = 2;
    RAY_COMPLETION_STREAM_END: u32 = 3;
    RAY_NOTIFY_MAY_RUN_INLINE: u32 = 1;
    RAY_PLACEMENT_SOFT: u32 = 1;
    RAY_RETRIES_DEFAULT: i32 = -2;
    RAY_RETRIES_INFINITE: i32 = -1;
    RAY_TASK_RETRY_ON_ERROR: u32 = 1;
    RAY_TASK_RUN_TO_END: u32 = 2;
    RAY_CANCEL_FORCE: u32 = 1;
    RAY_CANCEL_RECURSIVE: u32 = 2;
    RAY_LIFETIME_COUNTED: i32 = 0;
    RAY_LIFETIME_DETACHED: i32 = 1;
    RAY_ACTOR_GET_IF_EXISTS: u32 = 1;
    RAY_ACTOR_OUT_OF_ORDER: u32 = 2;
    RAY_GROUP_PACK: i32 = 0;
    RAY_GROUP_SPREAD: i32 = 1;
    RAY_GROUP_STRICT_PACK: i32 = 2;
    RAY_GROUP_STRICT_SPREAD: i32 = 3;
    RAY_KV_ANY: u64 = u64::MAX;
    RAY_KIND_TASK: u32 = 0;
    RAY_KIND_ACTOR_CREATE: u32 = 1;
    RAY_KIND_ACTOR_CALL: u32 = 2;
}
