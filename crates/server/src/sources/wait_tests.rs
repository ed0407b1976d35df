use super::*;

fn states(states: &[State]) -> Vec<RecipientState> {
    let one = |(n, state): (usize, &State)| RecipientState {
        user: UserId::new(&format!("u{n}")).unwrap(),
        state: *state,
        marks: vec![],
    };
    states.iter().enumerate().map(one).collect()
}

#[test]
fn who_has_it() {
    let lacking =
        |names: &[&str]| Standing::Awaited(names.iter().map(|name| UserId::new(name).unwrap()).collect());
    let (store, leave) = (Offline::Store, Offline::Leave);
    for (given, is_wide, offline, standing) in [
        (&[][..], true, store, lacking(&[])),
        (&[State::Pending], false, store, lacking(&["u0"])),
        (&[State::Delivered], false, store, Standing::Had),
        (
            &[State::Delivered, State::Pending],
            false,
            leave,
            lacking(&["u1"]),
        ),
        (
            &[State::Read, State::Expired, State::Cancelled, State::Dead],
            false,
            store,
            Standing::Had,
        ),
        (
            &[State::Delivered, State::Expired],
            false,
            leave,
            Standing::Missed,
        ),
        (&[State::Pending, State::Expired], false, leave, lacking(&["u0"])),
        (&[State::Read, State::Cancelled], false, leave, Standing::Had),
        (&[State::Read, State::Dead], false, leave, Standing::Missed),
        (&[State::Delivered, State::Pending], true, store, Standing::Had),
        (&[State::Cancelled], true, leave, lacking(&[])),
    ] {
        assert_eq!(
            standing_of(&states(given), is_wide, offline),
            standing,
            "{given:?} {is_wide} {offline:?}"
        );
    }
}

#[test]
fn who_is_there_is_waited_for_where_the_queue_is_the_store() {
    let named = |count: usize| {
        let user = |n| UserId::new(&format!("u{n}")).unwrap();
        Standing::Awaited((0..count).map(user).collect())
    };
    let (store, leave) = (Offline::Store, Offline::Leave);
    for (standing, offline, outlasts_it) in [
        (Some(named(1)), leave, true),
        (Some(named(1)), store, false),
        (Some(named(MOST_ASKED)), leave, true),
        (Some(named(MOST_ASKED + 1)), leave, false),
        (Some(named(0)), leave, false),
        (None, leave, true),
        (None, store, false),
    ] {
        assert_eq!(
            outlasts(standing.as_ref(), offline),
            outlasts_it,
            "{standing:?} {offline:?}"
        );
    }
}
