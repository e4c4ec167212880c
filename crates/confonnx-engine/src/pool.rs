//! A fixed set of sessions; whoever wants one waits for it.

use std::{
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug)]
pub(crate) struct Pool<T> {
    idle: Mutex<Idle<T>>,
    returned: Condvar,
}

#[derive(Debug)]
struct Idle<T> {
    items: Vec<T>,
    /// How many threads are inside [`Pool::take`].
    waiting: usize,
}

impl<T> Pool<T> {
    pub(crate) fn new(items: Vec<T>) -> Self {
        Self { idle: Mutex::new(Idle { items, waiting: 0 }), returned: Condvar::new() }
    }

    /// Takes an item, blocking until one is idle.
    pub(crate) fn take(&self) -> Taken<'_, T> {
        let mut idle = self.idle();
        idle.waiting = idle.waiting.saturating_add(1);
        loop {
            match idle.items.pop() {
                Some(item) => {
                    idle.waiting = idle.waiting.saturating_sub(1);
                    return Taken { pool: self, item: Some(item) };
                }
                None => idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Takes an item if one is idle and nobody waits for it.
    pub(crate) fn try_take(&self) -> Option<Taken<'_, T>> {
        let mut idle = self.idle();
        let item = if idle.waiting == 0 { idle.items.pop() } else { None };
        item.map(|item| Taken { pool: self, item: Some(item) })
    }

    /// The lock is held only to push, pop and count, so a poisoned one still guards a sound list.
    fn idle(&self) -> MutexGuard<'_, Idle<T>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An item in use; dropping it, also while unwinding, gives it back.
pub(crate) struct Taken<'a, T> {
    pool: &'a Pool<T>,
    item: Option<T>,
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().unwrap_or_else(|| unreachable!("present until dropped"))
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.as_mut().unwrap_or_else(|| unreachable!("present until dropped"))
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            self.pool.idle().items.push(item);
            self.pool.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn items_are_shared_by_more_threads_than_there_are_items() {
        let pool = Pool::new(vec![0_u32, 0]);
        let in_use = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let mut item = pool.take();
                        assert!(in_use.fetch_add(1, Ordering::SeqCst) < 2);
                        *item += 1;
                        std::thread::yield_now();
                        in_use.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(pool.idle.into_inner().unwrap().items.into_iter().sum::<u32>(), 800);
    }

    #[test]
    fn a_panic_gives_the_item_back() {
        let pool = Pool::new(vec![()]);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _item = pool.take();
            panic!("while in use");
        }));
        assert!(result.is_err());
        drop(pool.take());
    }

    #[test]
    fn what_others_wait_for_is_not_taken() {
        let pool = Pool::new(vec![()]);
        assert!(pool.try_take().is_some());
        let held = pool.take();
        assert!(pool.try_take().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(pool.take()));
            while pool.idle().waiting == 0 {
                std::thread::yield_now();
            }
            // The waiting thread may not have woken up when the item is back.
            drop(held);
            waiting.join().unwrap();
        });
        assert!(pool.try_take().is_some());
    }
}
