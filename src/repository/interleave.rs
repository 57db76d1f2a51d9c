//! Test support: runs two writers over one store in every possible order of their operations.

use crate::store::fault::{Fault, Moment, Operation};
use crate::store::{Store, StoreError};
use async_trait::async_trait;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

/// Stops before each operation until the future is polled again.
#[derive(Debug, Default)]
struct Gate {
    at_operation: AtomicBool,
}

#[async_trait]
impl Fault for Gate {
    async fn strike(&self, moment: Moment, _: &Operation) -> Result<(), StoreError> {
        if moment == Moment::Before {
            self.at_operation.store(true, Ordering::SeqCst);
            let mut passed = false;
            std::future::poll_fn(|context| {
                if std::mem::replace(&mut passed, true) {
                    return Poll::Ready(());
                }
                // Collections of futures only poll those that asked for it.
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
        Ok(())
    }
}

/// How one writer ended in one order. None: it waits for time to pass (it watches the other).
type Ending<T> = Option<T>;

/// Runs `a` and `b` in every order of their store operations in which at most `interruptions` times
/// one is interrupted for the other's sake (bugs of order show with few: Musuvathi and Qadeer,
/// "Iterative context bounding", 2007). For each order `setup` makes a new store, and `judge` sees the
/// store and both endings. Returns the number of orders.
#[allow(clippy::needless_pass_by_value)] // Closures read better at the call when they are not borrowed.
pub(super) fn every_order<A, B>(
    interruptions: usize,
    setup: impl AsyncFn() -> Store,
    a: impl AsyncFn(Store) -> A,
    b: impl AsyncFn(Store) -> B,
    judge: impl AsyncFn(Store, Ending<A>, Ending<B>, &str),
) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // Depth first through the tree of choices.
    let mut path: Vec<Choice> = Vec::new();
    let mut orders = 0;
    loop {
        let store = runtime.block_on(setup());
        let (ended_a, ended_b) = run_one(&runtime, &store, &a, &b, &mut path);
        orders += 1;
        let order: String = path.iter().map(|choice| if choice.b { 'b' } else { 'a' }).collect();
        runtime.block_on(judge(store, ended_a, ended_b, &order));
        // The last choice that can still be made the other way is.
        loop {
            match path.pop() {
                None => return orders,
                Some(choice) if choice.open => {
                    path.push(Choice { b: !choice.b, open: false, free: true });
                    if count_interruptions(&path) <= interruptions {
                        break;
                    }
                    path.pop();
                }
                Some(_) => {}
            }
        }
    }
}

/// Who moves.
#[derive(Clone, Copy)]
struct Choice {
    b: bool,
    /// The other way has not been tried.
    open: bool,
    /// Both could have moved.
    free: bool,
}

fn count_interruptions(path: &[Choice]) -> usize {
    path.windows(2).filter(|pair| pair[1].free && pair[0].b != pair[1].b).count()
}

/// Follows `path`, and where it ends lets whoever moved last move on as long as it can.
fn run_one<A, B>(
    runtime: &tokio::runtime::Runtime,
    store: &Store,
    a: &impl AsyncFn(Store) -> A,
    b: &impl AsyncFn(Store) -> B,
    path: &mut Vec<Choice>,
) -> (Ending<A>, Ending<B>) {
    let _context = runtime.enter();
    let (gate_a, gate_b) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let mut future_a = pin!(a(store.clone().with_fault(gate_a.clone())));
    let mut future_b = pin!(b(store.clone().with_fault(gate_b.clone())));
    let (mut ended_a, mut ended_b) = (None, None);
    // Up to the first operation of each.
    let mut can_a = step(future_a.as_mut(), &gate_a, &mut ended_a);
    let mut can_b = step(future_b.as_mut(), &gate_b, &mut ended_b);
    let mut moves = 0;
    while can_a || can_b {
        if moves == path.len() {
            let free = can_a && can_b;
            let last = path.last().is_some_and(|choice| choice.b);
            path.push(Choice { b: if free { last } else { can_b }, open: free, free });
        }
        if path[moves].b {
            can_b = step(future_b.as_mut(), &gate_b, &mut ended_b);
        } else {
            can_a = step(future_a.as_mut(), &gate_a, &mut ended_a);
        }
        moves += 1;
    }
    (ended_a, ended_b)
}

/// Polls once: one operation. Returns whether the future stands before another operation.
fn step<T>(future: Pin<&mut impl Future<Output = T>>, gate: &Gate, ended: &mut Option<T>) -> bool {
    gate.at_operation.store(false, Ordering::SeqCst);
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => {
            *ended = Some(value);
            false
        }
        Poll::Pending => gate.at_operation.load(Ordering::SeqCst),
    }
}
