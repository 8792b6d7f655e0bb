//! What one client may have, and in what order clients are served.

use std::time::Duration;

use sparkherd_engine::{
    Caller, ClientKey, Clock, EngineLimits, GenerationEvent, Priority, QueueLimits, SubmitError,
};

use crate::{
    fake::{Fake, Running, limits, text},
    read, request,
};

const SECOND: Duration = Duration::from_secs(1);

fn client(key: u64) -> Caller {
    Caller { account: ClientKey(key), client: ClientKey(key), ..Caller::default() }
}

fn start(queue: impl FnOnce(QueueLimits) -> QueueLimits) -> Running {
    let fake = Fake::new(64, 2, 64);
    let limits = limits(&fake, 256);
    let queue = queue(limits.queue);
    Running::start_with(fake, text(false), EngineLimits { queue, ..limits }, Clock::monotonic())
}

#[test]
fn a_reservation_is_a_place_until_it_is_dropped() {
    let engine = start(|queue| QueueLimits { requests: 1, ..queue });
    let mut reserved: Vec<_> = (0..3).map(|_| engine.handle.reserve(&client(1)).unwrap()).collect();
    let full = SubmitError::QueueFull { waiting: 1, retry_after: SECOND };
    assert_eq!(engine.handle.reserve(&client(2)).unwrap_err(), full);
    assert!(!engine.handle.is_idle());
    let last = reserved.pop().unwrap();
    drop(reserved);
    assert!(read(last.submit(request("hi", 3)).unwrap()).end.is_ok());
    // A request that is refused for what it says gives its place back too.
    assert_eq!(engine.submit(request("", 3)).unwrap_err(), SubmitError::EmptyPrompt);
    assert!(engine.handle.is_idle());
}

#[test]
fn one_client_at_its_limit_leaves_room_for_another() {
    let engine = start(|queue| QueueLimits { client_requests: 2, ..queue });
    let _held = [engine.handle.reserve(&client(1)).unwrap(), engine.handle.reserve(&client(1)).unwrap()];
    let refused = SubmitError::ClientLimit { running_or_waiting: 2, limit: 2, retry_after: SECOND };
    assert_eq!(engine.handle.reserve(&client(1)).unwrap_err(), refused);
    assert!(engine.handle.reserve(&client(2)).is_ok());
}

#[test]
fn the_clients_of_one_account_share_its_limit() {
    let engine = start(|queue| QueueLimits { client_requests: 1, ..queue });
    let of_account = |key| Caller { account: ClientKey(7), ..client(key) };
    let _held = engine.handle.reserve(&of_account(1)).unwrap();
    let refused = engine.handle.reserve(&of_account(2));
    assert!(matches!(refused, Err(SubmitError::ClientLimit { .. })), "{refused:?}");
}

#[test]
fn prompt_tokens_are_bounded_while_they_wait() {
    let (fake, open) = Fake::new(64, 2, 64).gated();
    let limits = limits(&fake, 256);
    let queue = QueueLimits { prompt_tokens: 100, client_prompt_tokens: 60, ..limits.queue };
    let engine = Running::start_with(fake, text(false), EngineLimits { queue, ..limits }, Clock::monotonic());
    let submit =
        |key, tokens: usize| engine.handle.reserve(&client(key))?.submit(request(&"x".repeat(tokens), 2));
    // Longer than the limits, but nothing waits.
    let first = submit(1, 110).unwrap();
    let full = SubmitError::QueueFull { waiting: 0, retry_after: SECOND };
    assert_eq!(submit(2, 1).unwrap_err(), full);
    drop(open);
    assert!(read(first).end.is_ok());
    assert_eq!(engine.handle.stats().waiting_prompt_tokens, 0);
    assert!(read(submit(2, 1).unwrap()).end.is_ok());
}

#[test]
fn a_batch_request_waits_for_interactive_ones() {
    let (engine, open) = Running::start_gated(Fake::new(64, 1, 64), 256, 8);
    let reserve = |priority| engine.handle.reserve(&Caller { priority, ..Caller::default() }).unwrap();
    // One runs, so that the others are taken in before the next is chosen.
    let running = reserve(Priority::Interactive).submit(request("go", 2)).unwrap();
    let mut batch = reserve(Priority::Batch).submit(request("later", 3)).unwrap();
    let interactive = reserve(Priority::Interactive).submit(request("now", 3)).unwrap();
    let told = engine.handle.stats().waiting;
    assert!(told >= 2, "{told}");
    for _ in 0..5 {
        open.send(()).unwrap();
    }
    assert!(read(running).end.is_ok() && read(interactive).end.is_ok());
    // Its first step may have been chosen since, and stands at the gate.
    if let Ok(event) = batch.events.try_recv() {
        assert!(matches!(event, GenerationEvent::Started(_)), "{event:?}");
        assert!(batch.events.try_recv().is_err(), "batch went first");
    }
    drop(open);
    assert!(read(batch).end.is_ok());
}
