//! For code that runs as a task: about the task itself. On a thread that runs none, nothing is cancelled and there is
//! one attempt.
use crate::error::{check, Error, Result};
use crate::runtime::handle;
use crate::worker::{running, this_actor};
use crate::ActorHandle;
use libray_sys as sys;
use std::ptr;

/// Whether the task that this thread runs was cancelled. Costs one load: ask in loops, and return soon when it is true.
#[must_use]
pub fn is_cancelled() -> bool {
    // SAFETY: null, or the task that this thread runs; a null one is never cancelled.
    unsafe { sys::ray_task_is_cancelled(running()) }
}

/// [`Error::Cancelled`] if the task that this thread runs was cancelled: `libray::task::check_cancelled()?` ends it
/// there. A task that gives a value all the same keeps it.
///
/// # Errors
/// [`Error::Cancelled`].
pub fn check_cancelled() -> Result<()> {
    if is_cancelled() {
        return Err(Error::Cancelled("the task was cancelled while it ran".into()));
    }
    Ok(())
}

/// Which execution of the task this is: 1 for the first, more when it was tried again.
#[must_use]
pub fn attempt() -> u32 {
    let mut info = sys::ray_task_info::default();
    // SAFETY: null, which is refused, or the task that this thread runs.
    unsafe { sys::ray_task_get_info(running(), &mut info) };
    info.attempt.max(1)
}

/// A failure of this task from now on is final: [`retry_on_error`](crate::TaskOptions::retry_on_error) does not try
/// it again.
pub fn no_retry() {
    // SAFETY: null, which is refused, or the task that this thread runs.
    unsafe { sys::ray_task_no_retry(running()) };
}

/// The GPUs assigned to the task, or to the actor that it belongs to.
#[must_use]
pub fn gpus() -> Vec<u32> {
    let task = running();
    // SAFETY: null, which has none, or the task that this thread runs; as many places as there are GPUs.
    unsafe {
        let mut ids = vec![0; sys::ray_task_gpus(task, ptr::null_mut(), 0)];
        let n = sys::ray_task_gpus(task, ids.as_mut_ptr(), ids.len());
        ids.truncate(n);
        ids
    }
}

/// A handle of the actor that this process is.
///
/// # Errors
/// [`Error::WrongState`] outside of an actor.
pub fn actor() -> Result<ActorHandle> {
    this_actor()
}

/// Ends the actor that this process is: calls that run go on, no further one starts, then its state is dropped. `why`
/// is for people.
///
/// # Errors
/// [`Error::WrongState`] outside of an actor.
pub fn exit_actor(why: &str) -> Result<()> {
    let runtime = handle()?;
    // SAFETY: the view outlives the call.
    check(|e| unsafe { sys::ray_worker_exit(runtime, sys::text(why), e) })
}
