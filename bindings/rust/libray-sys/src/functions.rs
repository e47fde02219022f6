//! The functions of `ray.h`, in its order. `build.rs` reads this file as text: it declares each function again, in C,
//! from what stands here, and the compiler compares that with the header. Types by their plain names.
use crate::types::*;
use std::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    pub fn ray_api_version() -> u32;
    pub fn ray_build_info() -> *const c_char;
    pub fn ray_code_name(code: ray_code) -> *const c_char;
    pub fn ray_code_is_retryable(code: ray_code) -> bool;
    pub fn ray_error_code(error: *const ray_error) -> ray_code;
    pub fn ray_error_message(error: *const ray_error) -> ray_str;
    pub fn ray_error_payload(error: *const ray_error, out_format: *mut u32) -> ray_bytes;
    pub fn ray_error_retain(error: *mut ray_error) -> *mut ray_error;
    pub fn ray_error_release(error: *mut ray_error);
    pub fn ray_set_log_handler(function_pointer: ray_log_fn, max_level: i32, user: *mut c_void);
    pub fn ray_init(
        options: *const ray_runtime_options,
        out: *mut *mut ray_runtime,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_runtime_mode(runtime: *const ray_runtime) -> i32;
    pub fn ray_runtime_session_dir(runtime: *const ray_runtime) -> ray_str;
    pub fn ray_worker_code(
        runtime: *mut ray_runtime,
        language: i32,
        code: ray_str,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_worker_command(
        runtime: *mut ray_runtime,
        language: i32,
        argv: *const *const c_char,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_shutdown(runtime: *mut ray_runtime, drain_timeout_ns: i64, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_runtime_release(runtime: *mut ray_runtime);
    pub fn ray_id_to_hex(id: *const ray_id, out: *mut c_char);
    pub fn ray_runtime_context(runtime: *mut ray_runtime, out: *mut ray_context, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_buffer_release(buffer: *mut ray_buffer);
    pub fn ray_buffer_ref(
        buffer: *const ray_buffer,
        index: u32,
        out: *mut *mut ray_ref,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_buffer_refs(
        buffer: *const ray_buffer,
        first: u32,
        n: u32,
        out: *mut *mut ray_ref,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_put(
        runtime: *mut ray_runtime,
        value: *const ray_value,
        out: *mut *mut ray_ref,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_on_wait(
        runtime: *mut ray_runtime,
        function_pointer: ray_wait_fn,
        user: *mut c_void,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_put_error(
        runtime: *mut ray_runtime,
        code: ray_code,
        message: ray_str,
        payload: *const ray_value,
        out: *mut *mut ray_ref,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_writer_open(
        runtime: *mut ray_runtime,
        shape: *const ray_value,
        out: *mut *mut ray_writer,
        layout: *mut ray_layout,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_writer_seal(writer: *mut ray_writer, out: *mut *mut ray_ref, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_writer_abort(writer: *mut ray_writer) -> ray_code;
    pub fn ray_ref_retain(reference: *mut ray_ref) -> *mut ray_ref;
    pub fn ray_ref_release(reference: *mut ray_ref);
    pub fn ray_ref_id(reference: *const ray_ref) -> ray_id;
    pub fn ray_ref_find(
        runtime: *mut ray_runtime,
        id: *const ray_id,
        out: *mut *mut ray_ref,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_ref_export(
        reference: *mut ray_ref,
        buf: *mut c_void,
        inout_size: *mut usize,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_ref_import(
        runtime: *mut ray_runtime,
        exported: ray_bytes,
        out: *mut *mut ray_ref,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_actor_to_ref(actor: *mut ray_actor, out: *mut *mut ray_ref, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_actor_from_ref(reference: *mut ray_ref, out: *mut *mut ray_actor, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_try_get(reference: *mut ray_ref, out: *mut ray_buffer, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_get(
        runtime: *mut ray_runtime,
        refs: *const *mut ray_ref,
        n: usize,
        timeout_ns: i64,
        out: *mut ray_buffer,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_wait(
        runtime: *mut ray_runtime,
        refs: *const *mut ray_ref,
        n: usize,
        want: usize,
        timeout_ns: i64,
        ready: *mut u8,
        n_ready: *mut usize,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_queue_create(runtime: *mut ray_runtime, out: *mut *mut ray_queue, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_queue_release(queue: *mut ray_queue);
    pub fn ray_queue_fd(queue: *const ray_queue) -> c_int;
    pub fn ray_queue_poll(
        queue: *mut ray_queue,
        out: *mut ray_completion,
        max: usize,
        timeout_ns: i64,
        out_count: *mut usize,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_queue_wake(queue: *mut ray_queue);
    pub fn ray_on_ready(
        reference: *mut ray_ref,
        notify: *const ray_notify,
        out_token: *mut u64,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_cancel_notify(runtime: *mut ray_runtime, token: u64, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_function_get(
        runtime: *mut ray_runtime,
        name: ray_str,
        out: *mut *mut ray_function,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_function_define(
        runtime: *mut ray_runtime,
        language: i32,
        name: ray_str,
        definition: ray_bytes,
        out: *mut *mut ray_function,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_function_named(
        runtime: *mut ray_runtime,
        language: i32,
        container: ray_str,
        member: ray_str,
        out: *mut *mut ray_function,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_function_retain(function: *mut ray_function) -> *mut ray_function;
    pub fn ray_function_release(function: *mut ray_function);
    pub fn ray_submit(
        runtime: *mut ray_runtime,
        function: *mut ray_function,
        args: *const ray_arg,
        n_args: usize,
        options: *const ray_task_options,
        out_refs: *mut *mut ray_ref,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_submit_stream(
        runtime: *mut ray_runtime,
        function: *mut ray_function,
        args: *const ray_arg,
        n_args: usize,
        options: *const ray_task_options,
        out: *mut *mut ray_stream,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_stream_next(
        stream: *mut ray_stream,
        timeout_ns: i64,
        out: *mut *mut ray_ref,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_wait_any(
        runtime: *mut ray_runtime,
        refs: *const *mut ray_ref,
        n_refs: usize,
        streams: *const *mut ray_stream,
        n_streams: usize,
        want: usize,
        timeout_ns: i64,
        ready_refs: *mut u8,
        ready_streams: *mut u8,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_stream_completed(stream: *mut ray_stream, out: *mut *mut ray_ref, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_stream_on_next(
        stream: *mut ray_stream,
        notify: *const ray_notify,
        out_token: *mut u64,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_stream_id(stream: *const ray_stream) -> ray_id;
    pub fn ray_stream_cancel(stream: *mut ray_stream, flags: u32, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_stream_retain(stream: *mut ray_stream) -> *mut ray_stream;
    pub fn ray_stream_release(stream: *mut ray_stream);
    pub fn ray_cancel(reference: *mut ray_ref, flags: u32, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_actor_create(
        runtime: *mut ray_runtime,
        klass: *mut ray_function,
        args: *const ray_arg,
        n_args: usize,
        options: *const ray_actor_options,
        out: *mut *mut ray_actor,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_actor_call(
        actor: *mut ray_actor,
        method: ray_str,
        args: *const ray_arg,
        n_args: usize,
        options: *const ray_task_options,
        out_refs: *mut *mut ray_ref,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_actor_call_stream(
        actor: *mut ray_actor,
        method: ray_str,
        args: *const ray_arg,
        n_args: usize,
        options: *const ray_task_options,
        out: *mut *mut ray_stream,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_actor_find(
        runtime: *mut ray_runtime,
        name: ray_str,
        ns: ray_str,
        out: *mut *mut ray_actor,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_actor_from_id(
        runtime: *mut ray_runtime,
        id: ray_id,
        out: *mut *mut ray_actor,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_actor_is_weak(actor: *const ray_actor) -> bool;
    pub fn ray_actor_kill(actor: *mut ray_actor, may_restart: bool, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_actor_id(actor: *const ray_actor) -> ray_id;
    pub fn ray_actor_metadata(actor: *mut ray_actor, out: *mut ray_bytes, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_actor_language(actor: *mut ray_actor, out: *mut i32, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_actor_retain(actor: *mut ray_actor) -> *mut ray_actor;
    pub fn ray_actor_release(actor: *mut ray_actor);
    pub fn ray_group_create(
        runtime: *mut ray_runtime,
        options: *const ray_group_options,
        out: *mut ray_id,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_group_wait(
        runtime: *mut ray_runtime,
        group: *const ray_id,
        timeout_ns: i64,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_group_remove(runtime: *mut ray_runtime, group: *const ray_id, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_cluster_query(
        runtime: *mut ray_runtime,
        what: ray_str,
        filter_msgpack: ray_bytes,
        out: *mut ray_buffer,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_kv_get(
        runtime: *mut ray_runtime,
        ns: ray_str,
        key: ray_bytes,
        out: *mut ray_buffer,
        out_version: *mut u64,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_kv_put(
        runtime: *mut ray_runtime,
        ns: ray_str,
        key: ray_bytes,
        value: ray_bytes,
        expected: u64,
        out_version: *mut u64,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_kv_delete(
        runtime: *mut ray_runtime,
        ns: ray_str,
        key: ray_bytes,
        expected: u64,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_kv_list(
        runtime: *mut ray_runtime,
        ns: ray_str,
        prefix: ray_bytes,
        out: *mut ray_buffer,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_register_function(
        name: ray_str,
        function_pointer: ray_task_fn,
        user: *mut c_void,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_register_actor(
        klass: ray_str,
        create: ray_task_fn,
        destroy: ray_destroy_fn,
        user: *mut c_void,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_register_method(
        klass: ray_str,
        method: ray_str,
        function_pointer: ray_task_fn,
        user: *mut c_void,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_worker_run(runtime: *mut ray_runtime, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_worker_next(
        runtime: *mut ray_runtime,
        timeout_ns: i64,
        out: *mut *mut ray_task,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_worker_fd(runtime: *mut ray_runtime) -> c_int;
    pub fn ray_worker_set_groups(
        runtime: *mut ray_runtime,
        limits: *const u32,
        n_groups: usize,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_worker_next_in(
        runtime: *mut ray_runtime,
        group: u32,
        timeout_ns: i64,
        out: *mut *mut ray_task,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_worker_group_fd(runtime: *mut ray_runtime, group: u32) -> c_int;
    pub fn ray_worker_poll(runtime: *mut ray_runtime, group: u32, timeout_ns: i64, wake_fd: c_int) -> ray_code;
    pub fn ray_worker_exit(runtime: *mut ray_runtime, why: ray_str, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_worker_actor(runtime: *mut ray_runtime, out: *mut *mut ray_actor, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_worker_limit_streams(runtime: *mut ray_runtime, items: u32, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_worker_enter(runtime: *mut ray_runtime, task: *mut ray_task, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_worker_stop(runtime: *mut ray_runtime);
    pub fn ray_worker_on_interrupt(
        runtime: *mut ray_runtime,
        function_pointer: ray_interrupt_fn,
        user: *mut c_void,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_task_runtime(task: *const ray_task) -> *mut ray_runtime;
    pub fn ray_task_get_info(task: *const ray_task, out: *mut ray_task_info) -> ray_code;
    pub fn ray_task_gpus(task: *const ray_task, ids: *mut u32, capacity: usize) -> usize;
    pub fn ray_task_accelerators(task: *const ray_task, resource: ray_str, ids: *mut u32, capacity: usize) -> usize;
    pub fn ray_task_args(task: *mut ray_task, out: *mut *const ray_buffer) -> usize;
    pub fn ray_task_take_arg(
        task: *mut ray_task,
        index: usize,
        out: *mut ray_buffer,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_task_definition(task: *mut ray_task, out: *mut ray_buffer, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_task_return(
        task: *mut ray_task,
        index: u32,
        value: *const ray_value,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_task_return_error(
        task: *mut ray_task,
        index: u32,
        code: ray_code,
        message: ray_str,
        payload: *const ray_value,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_task_return_open(
        task: *mut ray_task,
        index: u32,
        shape: *const ray_value,
        out: *mut *mut ray_writer,
        layout: *mut ray_layout,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_task_yield(
        task: *mut ray_task,
        value: *const ray_value,
        timeout_ns: i64,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_task_await_room(task: *mut ray_task, timeout_ns: i64, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_task_no_retry(task: *mut ray_task) -> ray_code;
    pub fn ray_task_is_cancelled(task: *const ray_task) -> bool;
    pub fn ray_task_self(task: *const ray_task) -> *mut c_void;
    pub fn ray_task_set_self(task: *mut ray_task, object: *mut c_void, err: *mut *mut ray_error) -> ray_code;
    pub fn ray_task_fail(task: *mut ray_task, message: ray_str, payload: *const ray_value) -> ray_code;
    pub fn ray_task_finish(task: *mut ray_task, code: ray_code) -> ray_code;
    pub fn ray_define_library(
        runtime: *mut ray_runtime,
        name: ray_str,
        path: ray_str,
        out: *mut *mut ray_function,
        err: *mut *mut ray_error,
    ) -> ray_code;
    pub fn ray_define_symbol(
        runtime: *mut ray_runtime,
        name: ray_str,
        library: ray_str,
        symbol: ray_str,
        signature: ray_str,
        out: *mut *mut ray_function,
        err: *mut *mut ray_error,
    ) -> ray_code;
}
