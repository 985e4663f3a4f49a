//! What is asked of the model: exhaustively with few faults, at random with many, and with faults of our own making.

use stateright::{Checker as _, Expectation, HasDiscoveries, Model as _};

use super::*;

/// Looks at every run; the properties that do not hold, after printing a run that shows it.
fn check(deck: Deck) -> Vec<&'static str> {
    let checker = deck.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let properties = checker.model().properties();
    let failed = properties.iter().filter(|property| {
        let found = checker.discovery(property.name);
        match property.expectation {
            Expectation::Sometimes => found.is_none(),
            Expectation::Always | Expectation::Eventually => found.is_some(),
        }
    });
    let failed: Vec<_> = failed.map(|property| property.name).collect();
    for name in &failed {
        let Some(path) = checker.discovery(name) else {
            continue;
        };
        println!("{name}:");
        for (state, act) in path.into_vec() {
            println!("  {} {act:?}", state.now);
        }
    }
    println!("{deck:?}: {} states", checker.unique_state_count());
    failed
}

/// One run at random, a longer one with more faults than can be looked at exhaustively. Once the faults are used up, or at
/// `heal_at`, everything is healed, and by the end somebody must lead.
fn walk(deck: &Deck, seed: u64) -> Result<(), String> {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut state = deck.init_states().remove(0);
    let mut run = Vec::new();
    let heal_at = deck.horizon - QUIET;
    let mut acts = Vec::new();
    loop {
        if state.now >= heal_at {
            state.faults = 0;
            for node in &mut state.nodes {
                node.paused = false;
                node.partitioned = false;
            }
        }
        acts.clear();
        deck.actions(&state, &mut acts);
        if state.now >= heal_at {
            acts.retain(|act| !matches!(act, Act::StartWrite(_)));
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Time goes on about every third step, or nothing would ever expire.
        let act = match acts.last() {
            Some(Act::Advance) if random.is_multiple_of(3) => Act::Advance,
            Some(_) => acts[(random >> 8) as usize % acts.len()].clone(),
            None => break,
        };
        if act == Act::Advance && state.now >= heal_at {
            // A healthy process joins its workers.
            for i in 0..state.nodes.len() {
                if state.nodes[i].draining && !state.write_in_flight(i) {
                    state.nodes[i].draining = false;
                    state.step(i, Event::WorkersJoined);
                }
            }
        }
        let Some(next) = deck.next_state(&state, act.clone()) else {
            continue;
        };
        run.push((state.now, act));
        state = next;
        if state.write.is_none() && state.write_used && state.now < heal_at {
            // Another write may come.
            state.write_used = false;
        }
        for property in deck.properties() {
            if property.expectation == Expectation::Always && !(property.condition)(deck, &state) {
                return Err(format!("seed {seed}: {}: {run:?}", property.name));
            }
        }
        if state.now >= deck.horizon {
            break;
        }
    }
    let alive = |node: &&Node| node.elector.activity() != Activity::Finished;
    if state.nodes.iter().any(|node| alive(&node)) && !state.nodes.iter().any(|node| node.working) {
        return Err(format!("seed {seed}: nobody leads in the end: {run:?}\n{state:?}"));
    }
    Ok(())
}

/// How long everything is healthy at the end of a random run: a lease duration for a dead holder, one for a deletion, and some.
const QUIET: u64 = 24;

const SOUND: Deck = Deck {
    nodes: 3,
    horizon: 12,
    faults: 1,
    bugs: Bugs { deadline_from_answer: false, release_first: false },
    gate_off: false,
};

#[test]
fn no_write_of_an_epoch_lands_after_a_later_one_began() {
    assert_eq!(check(SOUND), [] as [&str; 0]);
}

#[test]
fn nor_does_one_with_two_faults() {
    let deck = Deck { nodes: 2, faults: 2, horizon: 12, ..SOUND };
    assert_eq!(check(deck), [] as [&str; 0]);
}

#[test]
fn nor_does_one_in_long_random_runs_and_somebody_leads_in_the_end() {
    let deck = Deck { faults: 6, horizon: 40 + QUIET, ..SOUND };
    for seed in 1..=400 {
        if let Err(failure) = walk(&deck, seed) {
            panic!("{failure}");
        }
    }
}

#[test]
fn the_model_catches_seeded_bugs() {
    let two = Deck { nodes: 2, faults: 2, ..SOUND };
    let bugs = [
        Deck { gate_off: true, ..two },
        Deck { bugs: Bugs { deadline_from_answer: true, ..SOUND.bugs }, ..two },
        Deck { bugs: Bugs { release_first: true, ..SOUND.bugs }, ..two },
    ];
    for bug in bugs {
        assert_ne!(check(bug), [] as [&str; 0], "{bug:?}");
    }
}
