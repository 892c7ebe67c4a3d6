//! The promises of the protocol, tried out on everything that can happen in a small world: 2 operators, 2 gateways, 3 changes.
//!
//! Each test goes through every order of events with the mishaps that it names, wherever they can strike. `make explore` tries
//! combinations on top of that, in an optimised build; the figures that it prints are how much there was to see.

mod explore;
mod publisher;
mod world;

use self::explore::explore;
use self::world::{Mishaps, World};

/// Changes that people make after the first state.
const CHANGES: u8 = 3;

fn try_everything(changes: u8, mishaps: Mishaps) {
    let explored = explore(World::new(changes, mishaps));
    assert!(explored.done > 0, "the end can be reached");
    println!("{changes} changes, {mishaps:?}: {} states, {} steps", explored.states, explored.steps);
}

#[test]
fn changes_arrive_however_slow_the_gateways_are() {
    try_everything(CHANGES, Mishaps { slow_acknowledgements: 2, ..Mishaps::default() });
}

#[test]
fn a_leader_that_is_killed_or_believes_that_it_still_leads_breaks_nothing() {
    try_everything(CHANGES, Mishaps { takeovers: 1, ..Mishaps::default() });
}

#[test]
fn a_write_whose_answer_is_lost_breaks_nothing_whether_it_landed_lands_late_or_never() {
    try_everything(CHANGES, Mishaps { lost_answers: 1, ..Mishaps::default() });
}

#[test]
fn acknowledgements_that_land_late_and_out_of_order_leave_no_status_wrong() {
    try_everything(2, Mishaps { late_acknowledgements: 2, ..Mishaps::default() });
    try_everything(1, Mishaps { late_acknowledgements: 1, takeovers: 1, ..Mishaps::default() });
}

#[test]
fn gateways_that_restart_or_are_replaced_break_nothing() {
    let mishaps = Mishaps { restarts: 1, replacements: 1, slow_acknowledgements: 1, ..Mishaps::default() };
    try_everything(CHANGES, mishaps);
}

#[test]
fn a_head_that_somebody_deletes_comes_back_above_all_that_gateways_hold() {
    try_everything(2, Mishaps { deletions: 1, slow_acknowledgements: 1, ..Mishaps::default() });
}

#[test]
fn combinations_of_mishaps_break_nothing() {
    if std::env::var_os("VOICEDOCK_EXPLORE").is_none() {
        return try_everything(1, Mishaps { takeovers: 1, lost_answers: 1, ..Mishaps::default() });
    }
    try_everything(1, Mishaps { takeovers: 2, lost_answers: 1, ..Mishaps::default() });
    for changes in 2..=CHANGES {
        try_everything(changes, Mishaps { takeovers: 2, ..Mishaps::default() });
        try_everything(changes, Mishaps { takeovers: 1, lost_answers: 1, ..Mishaps::default() });
        try_everything(changes, Mishaps { takeovers: 1, replacements: 1, restarts: 1, ..Mishaps::default() });
    }
    try_everything(2, Mishaps { deletions: 1, takeovers: 1, slow_acknowledgements: 1, ..Mishaps::default() });
}
