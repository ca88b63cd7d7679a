//! Turns an assertion of the core into a result, with its place, without printing it.
//!
//! Always true: panics of threads that are not inside [`caught`] go where they went before.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// `Some` inside `caught`: where the panic of this thread is noted.
    static NOTED: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

fn install() {
    let before = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let is_noted = NOTED.with_borrow_mut(|noted| match noted {
            None => false,
            Some(text) => {
                *text = info.to_string();
                true
            }
        });
        if !is_noted {
            before(info);
        }
    }));
}

/// Runs `work`; a panic in it comes back as its message.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(install);
    NOTED.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(work));
    let noted = NOTED.take().unwrap_or_default();
    result.map_err(|_| noted)
}
