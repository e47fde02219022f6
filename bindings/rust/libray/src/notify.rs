//! Being told: one completion queue and one thread per process wake the tasks of whatever executor waits.
//!
//! A waiter registers with the queue; its tag is a counted pointer to its [`Waiting`], which comes back with the
//! completion, exactly once, or is taken back when the library says that it will not come. The thread starts with the
//! first waiter and ends with the runtime. A second thread, started when it is first needed, reads values that were
//! spilled to disk, which would block the first.
use crate::error::{check, Error, Result};
use crate::raw::{Buffer, RawRef, RawStream};
use crate::runtime::handle;
use libray_sys as sys;
use std::ptr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Waker};
use std::thread;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a future waits with. Shared between it and the completion on its way.
#[derive(Default)]
pub(crate) struct Waiting {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    told: bool,
    waker: Option<Waker>,
    fetched: Option<Result<Buffer>>,
}

/// A registration. Dropping it before the completion came takes it back.
pub(crate) struct Registration {
    waiting: Arc<Waiting>,
    runtime: *mut sys::ray_runtime,
    token: u64,
}

// SAFETY: the runtime's handle is a number that any thread may use.
unsafe impl Send for Registration {}
// SAFETY: as above; the rest is behind a mutex.
unsafe impl Sync for Registration {}

impl Waiting {
    fn tell(&self, fetched: Option<Result<Buffer>>) {
        let waker = {
            let mut state = lock(&self.state);
            state.told = true;
            if fetched.is_some() {
                state.fetched = fetched;
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Registration {
    /// Whether the completion has come; if not, the task of `context` is woken when it does.
    pub fn is_told(&self, context: &Context<'_>) -> bool {
        let mut state = lock(&self.waiting.state);
        if !state.told {
            match &mut state.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
        }
        state.told
    }

    /// What [`Registration::fetch`] brought.
    pub fn take_fetched(&self) -> Option<Result<Buffer>> {
        lock(&self.waiting.state).fetched.take()
    }

    /// Has a value that is on disk read, and tells again when it is there.
    pub fn fetch(&self, reference: RawRef, context: &Context<'_>) {
        {
            let mut state = lock(&self.waiting.state);
            state.told = false;
            state.waker = Some(context.waker().clone());
        }
        static FETCHER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
        let fetcher = FETCHER.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            // Without a thread the channel is closed, and what is sent to it comes back below.
            let _ = thread::Builder::new().name("libray-fetch".into()).spawn(move || fetch_all(&receiver));
            Mutex::new(sender)
        });
        let request = (self.runtime as usize, reference, self.waiting.clone());
        if let Err(mpsc::SendError((_, _, waiting))) = lock(fetcher).send(request) {
            waiting.tell(Some(Err(Error::OutOfMemory("no thread can be started to read a value from disk".into()))));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if lock(&self.waiting.state).told {
            return;
        }
        // SAFETY: a stale runtime is refused.
        if unsafe { sys::ray_cancel_notify(self.runtime, self.token, ptr::null_mut()) } == sys::RAY_OK {
            // SAFETY: the completion will not come, so the count that was its is taken back here.
            drop(unsafe { Arc::from_raw(Arc::as_ptr(&self.waiting)) });
        }
    }
}

/// A value to be read from disk: its runtime, which is a number, its reference, and whom to tell.
type Request = (usize, RawRef, Arc<Waiting>);

/// The thread that waits for the disk; it ends when the process does.
fn fetch_all(requests: &mpsc::Receiver<Request>) {
    while let Ok((runtime, reference, waiting)) = requests.recv() {
        let mut buffer = Buffer::empty();
        let raw = reference.as_ptr();
        // SAFETY: a runtime that is gone is refused, and ends the call.
        let got = check(|e| unsafe { sys::ray_get(runtime as *mut _, &raw, 1, -1, buffer.as_mut(), e) });
        waiting.tell(Some(got.map(|()| buffer)));
    }
}

/// The queue of the runtime that runs, and the runtime that it belongs to.
#[derive(Clone, Copy)]
struct Queue {
    runtime: *mut sys::ray_runtime,
    queue: *mut sys::ray_queue,
}
// SAFETY: handles are numbers that any thread may use.
unsafe impl Send for Queue {}

fn queue() -> Result<Queue> {
    static QUEUE: Mutex<Option<Queue>> = Mutex::new(None);
    let runtime = handle()?;
    let mut current = lock(&QUEUE);
    match *current {
        Some(queue) if queue.runtime == runtime => return Ok(queue),
        _ => {}
    }
    let mut raw = ptr::null_mut();
    // SAFETY: `raw` is filled by the call.
    check(|e| unsafe { sys::ray_queue_create(runtime, &mut raw, e) })?;
    let queue = Queue { runtime, queue: raw };
    thread::Builder::new()
        .name("libray-wakes".into())
        .spawn(move || wake_all(queue))
        .map_err(|e| Error::OutOfMemory(format!("the thread that wakes futures: {e}")))?;
    *current = Some(queue);
    Ok(queue)
}

/// The thread that polls the queue until its runtime has ended.
fn wake_all(queue: Queue) {
    let queue = { queue }.queue;
    let mut batch = [sys::ray_completion::default(); 128];
    loop {
        let mut n = 0;
        // SAFETY: the queue is released by this thread alone, below.
        let code = unsafe { sys::ray_queue_poll(queue, batch.as_mut_ptr(), batch.len(), -1, &mut n, ptr::null_mut()) };
        for completion in &batch[..n] {
            // SAFETY: reference and error are ours; the tag is the count that `register` gave to this completion.
            let waiting = unsafe {
                sys::ray_ref_release(completion.r#ref);
                sys::ray_error_release(completion.error);
                Arc::from_raw(completion.tag as *const Waiting)
            };
            waiting.tell(None);
        }
        if code != sys::RAY_OK && code != sys::RAY_TIMED_OUT {
            break; // the runtime has ended: nothing is left and nothing will come
        }
    }
    // SAFETY: nobody polls it any more; who would still register with it is told that it is stale.
    unsafe { sys::ray_queue_release(queue) }
}

/// Makes a notification that carries a count of a new [`Waiting`]. `call` gets its C form, and where to write the
/// token.
fn register(
    context: &Context<'_>,
    call: impl FnOnce(&sys::ray_notify, &mut u64, *mut *mut sys::ray_error) -> sys::ray_code,
) -> Result<Registration> {
    let Queue { runtime, queue } = queue()?;
    let waiting = Arc::new(Waiting::default());
    lock(&waiting.state).waker = Some(context.waker().clone());
    let tag = Arc::into_raw(waiting.clone());
    let notify = sys::ray_notify { queue, tag: tag as u64, ..Default::default() };
    let mut token = 0;
    if let Err(error) = check(|e| call(&notify, &mut token, e)) {
        // SAFETY: nothing was registered, so the count is still ours.
        drop(unsafe { Arc::from_raw(tag) });
        return Err(error);
    }
    Ok(Registration { waiting, runtime, token })
}

/// Tells when the object is there, or has failed.
pub(crate) fn when_ready(reference: &RawRef, context: &Context<'_>) -> Result<Registration> {
    // SAFETY: the views outlive the call.
    register(context, |notify, token, e| unsafe { sys::ray_on_ready(reference.as_ptr(), notify, token, e) })
}

/// Tells when the stream's next item, or its end, is there.
pub(crate) fn when_next(stream: &RawStream, context: &Context<'_>) -> Result<Registration> {
    // SAFETY: the views outlive the call.
    register(context, |notify, token, e| unsafe { sys::ray_stream_on_next(stream.as_ptr(), notify, token, e) })
}
