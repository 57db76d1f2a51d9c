//! Every cell of the table, and what must hold in all of them.

use super::*;
use std::fmt::Write;

const STATES: [State; 16] = [
    State::Beginning,
    State::Running,
    State::Preparing(Next::RunOn),
    State::Preparing(Next::Stop),
    State::Preparing(Next::Term),
    State::Saving(Next::RunOn),
    State::Saving(Next::Stop),
    State::Saving(Next::Term),
    State::Halting(Cause::Request),
    State::Halting(Cause::Term),
    State::Abandoning,
    State::Stopping,
    State::Clearing,
    State::Killing,
    State::Finishing,
    State::Ended,
];

const EVENTS: [Event; 25] = [
    Event::Term,
    Event::Request { stop: false },
    Event::Request { stop: true },
    Event::Trigger,
    Event::LastCall,
    Event::OutOfMemory,
    Event::BeganFresh,
    Event::BeganRestored,
    Event::BeganComplete,
    Event::BeginFailed,
    Event::SpawnFailed,
    Event::Prepared,
    Event::Durable { time_for_another: true },
    Event::Durable { time_for_another: false },
    Event::SaveFailed { intact: true, time_for_another: true },
    Event::SaveFailed { intact: true, time_for_another: false },
    Event::SaveFailed { intact: false, time_for_another: true },
    Event::SaveFailed { intact: false, time_for_another: false },
    Event::FillFailed,
    Event::WorkloadEnded,
    Event::TreeGone,
    Event::Finished,
    Event::SaveTimeUp,
    Event::GraceOver,
    Event::Fenced,
];

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/state-machine.md");
const MARK: &str =
    "<!-- The table below is compared with the code by a test. UPDATE_DOCS=1 cargo test rewrites it. -->\n";

/// The whole table as Markdown, one section for each state, without the cells that change nothing.
fn table() -> String {
    let mut text = String::new();
    for state in STATES {
        writeln!(text, "\n## {state:?}\n\n| event | actions | next state |\n|---|---|---|").unwrap();
        for event in EVENTS {
            let (next, actions) = state.on(event);
            if next != state || !actions.is_empty() {
                let actions: Vec<String> = actions.iter().map(|action| format!("{action:?}")).collect();
                writeln!(text, "| {event:?} | {} | {next:?} |", actions.join(", ")).unwrap();
            }
        }
        writeln!(text, "\nAll other events change nothing.").unwrap();
    }
    text
}

#[test]
fn every_cell_is_as_documented() {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (head, documented) = document.split_once(MARK).expect("docs/state-machine.md has lost its mark");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, format!("{head}{MARK}{}", table())).unwrap();
        return;
    }
    assert_eq!(documented, table());
}

fn for_all(check: impl Fn(State, Event, State, &[Action])) {
    for state in STATES {
        for event in EVENTS {
            let (next, actions) = state.on(event);
            check(state, event, next, &actions);
        }
    }
}

#[test]
fn a_failed_save_never_kills_a_workload_that_can_run_on() {
    for_all(|state, event, next, actions| {
        if let Event::SaveFailed { intact: true, .. } = event
            && state.has_workload()
            && !matches!(state, State::Preparing(_))
        {
            assert!(!actions.contains(&Action::KillTree), "{state:?} {event:?}");
            assert!(next.has_workload());
            if state != next {
                assert!(actions.contains(&Action::Continue), "{state:?} {event:?} leaves it stopped");
            }
        }
    });
}

#[test]
fn a_tree_with_damaged_processes_is_never_continued() {
    for_all(|state, event, next, actions| {
        if let Event::SaveFailed { intact: false, .. } = event
            && state.has_workload()
            && state != next
        {
            assert!(!actions.contains(&Action::Continue) && actions.contains(&Action::KillTree), "{state:?} {event:?}");
        }
    });
}

#[test]
fn killing_starts_with_a_verdict_and_ends_in_finishing() {
    for_all(|state, event, next, actions| {
        if next == State::Killing && state != State::Killing {
            assert_eq!(actions.last(), Some(&Action::KillTree), "{state:?} {event:?}");
            let decided = actions.iter().any(|action| matches!(action, Action::Decide(_)));
            assert!(decided || state == State::Stopping, "{state:?} {event:?}");
        }
        if state == State::Killing {
            assert!(matches!(next, State::Killing | State::Finishing | State::Ended));
        }
    });
}

#[test]
fn a_second_sigterm_always_gives_up_the_save() {
    for first in [State::Saving(Next::RunOn), State::Saving(Next::Stop), State::Halting(Cause::Request)] {
        let (saving, actions) = first.on(Event::Term);
        assert!(actions.contains(&Action::StartClock));
        assert_eq!(saving.on(Event::Term), (State::Abandoning, vec![Action::Abandon]));
    }
    for first in [State::Running, State::Preparing(Next::RunOn), State::Preparing(Next::Stop)] {
        let (preparing, actions) = first.on(Event::Term);
        assert!(actions.contains(&Action::StartClock), "{first:?}");
        assert_eq!(preparing, State::Preparing(Next::Term));
        let (stopping, actions) = preparing.on(Event::Term);
        assert_eq!(stopping, State::Stopping);
        assert!(actions.contains(&Action::CancelSave) && actions.contains(&Action::Terminate), "{first:?}");
    }
}

#[test]
fn the_engine_never_outlives_the_state_that_needs_it() {
    let saving = |state| matches!(state, State::Saving(_) | State::Halting(_) | State::Abandoning | State::Beginning);
    for_all(|state, event, next, actions| {
        let over = matches!(
            event,
            Event::Durable { .. }
                | Event::SaveFailed { .. }
                | Event::BeganFresh
                | Event::BeganRestored
                | Event::BeganComplete
                | Event::BeginFailed
        );
        if saving(state) && !saving(next) && !over {
            assert!(actions.contains(&Action::KillEngine), "{state:?} {event:?}");
        }
    });
}

#[test]
fn a_trigger_never_stops_the_workload_and_never_disturbs_a_save() {
    for_all(|state, event, next, actions| {
        if event == Event::Trigger && state != State::Running {
            assert_eq!((next, actions), (state, &[][..]), "{state:?}");
        }
        if event == Event::LastCall {
            assert!(
                !actions
                    .iter()
                    .any(|action| matches!(action, Action::KillTree | Action::KillEngine | Action::Terminate))
            );
        }
    });
    assert_eq!(State::Running.on(Event::Trigger), (State::Preparing(Next::RunOn), vec![Action::Prepare]));
}

#[test]
fn a_save_that_is_prepared_is_made_or_called_off() {
    let made = |next| match next {
        Next::RunOn => State::Saving(Next::RunOn),
        Next::Stop => State::Halting(Cause::Request),
        Next::Term => State::Halting(Cause::Term),
    };
    for_all(|state, event, next, actions| {
        if actions.contains(&Action::Prepare) {
            assert!(matches!(next, State::Preparing(_)), "{state:?} {event:?}");
        }
        let State::Preparing(aim) = state else { return };
        if matches!(next, State::Preparing(_)) {
            assert!(!actions.contains(&Action::CancelSave), "{state:?} {event:?}");
        } else if event == Event::Prepared {
            assert_eq!(next, made(aim));
            assert!(matches!(actions, [Action::Save(_)]), "{state:?}");
        } else {
            assert_eq!(actions[..2], [Action::CancelSave, Action::Tell], "{state:?} {event:?}");
        }
    });
}

#[test]
fn a_workload_without_memory_comes_back_unless_it_was_told_to_end() {
    for_all(|state, event, next, actions| {
        if event == Event::OutOfMemory && state.has_workload() {
            assert_eq!(actions.last(), Some(&Action::KillTree), "{state:?}");
            let told = matches!(
                state,
                State::Preparing(Next::Term)
                    | State::Saving(Next::Term)
                    | State::Halting(Cause::Term)
                    | State::Abandoning
                    | State::Stopping
            );
            assert_eq!(next, if told { State::Killing } else { State::Clearing }, "{state:?}");
        }
    });
    assert_eq!(State::Clearing.on(Event::TreeGone), (State::Beginning, vec![Action::BeginAgain]));
}

#[test]
fn the_end_changes_nothing_any_more() {
    for event in EVENTS {
        assert_eq!(State::Ended.on(event), (State::Ended, vec![]));
    }
}
