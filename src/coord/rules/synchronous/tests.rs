use super::*;

const TIMES: Times = Times {
    vote: 100,
    lead: 500,
    late: 10,
    stop: 0,
    trial: 100,
    settle: 10,
    back: 5,
    poll: 5,
    visibility: 5,
};
const AT: Ms = 1000;

fn local(now: Ms) -> Local {
    let (vote_by, plan_by, checks) = (100, now + 600, Checks::Good);
    Local {
        now,
        vote_by,
        plan_by,
        clock_is_good: true,
        has_storage: true,
        can_write: true,
        promise: Promise::Untold,
        checks,
    }
}

fn view(change: impl FnOnce(&mut View)) -> View {
    let mut view = View { plan: Some(Plan::Commit { at: AT }), ..View::new(0, 2) };
    change(&mut view);
    view
}

#[test]
fn a_gate_that_rests_on_this_nodes_own_word_is_not_obeyed_without_it() {
    let go = view(|view| view.go = Some(Go::Go));
    assert_eq!(act(Stage::Arming { at: AT }, &go, local(990), &TIMES), Act::Wait);
    let late = act(Stage::Arming { at: AT }, &go, local(AT + 11), &TIMES);
    assert_eq!(late, Act::Enter(Stage::Left));
    let own = view(|view| (view.go, view.members[0].armed) = (Some(Go::Go), true));
    assert_eq!(act(Stage::Arming { at: AT }, &own, local(990), &TIMES), Act::Switch { at: AT });

    let keep = view(|view| (view.go, view.outcome) = (Some(Go::Go), Some(Outcome::Keep)));
    for stage in [Stage::Switched { at: AT }, Stage::Vouching { at: AT }] {
        assert_eq!(act(stage, &keep, local(AT + 50), &TIMES), Act::Wait, "{stage:?}");
    }
    assert_eq!(act(Stage::Switched { at: AT }, &keep, local(AT + 500), &TIMES), Act::Leave);
    // Its own may have stood there, and storage went back in time.
    let told = Local { promise: Promise::MaybeTold, ..local(AT + 50) };
    let again = act(Stage::Vouching { at: AT }, &keep, told, &TIMES);
    assert_eq!(again, Act::Tell(Telling::Report(Health::Good)));
    assert_eq!(act(Stage::Switched { at: AT }, &keep, told, &TIMES), Act::Wait);
    let reported = view(|view| {
        (view.go, view.outcome) = (Some(Go::Go), Some(Outcome::Keep));
        view.members[0].report = Some(Health::Good);
    });
    let next = act(Stage::Vouching { at: AT }, &reported, local(AT + 50), &TIMES);
    assert_eq!(next, Act::Enter(Stage::Kept));
}

#[test]
fn deadlines_hold_where_storage_can_be_read_and_not_written() {
    let cannot = |now| Local { can_write: false, ..local(now) };
    let open = View::new(0, 2);
    assert_eq!(act(Stage::Voting, &open, cannot(50), &TIMES), Act::Tell(Telling::Vote));
    assert_eq!(act(Stage::Voting, &open, cannot(101), &TIMES), Act::Enter(Stage::Left));
    let planned = view(|_| {});
    assert_eq!(act(Stage::Voting, &planned, cannot(AT + 11), &TIMES), Act::Enter(Stage::Left));
    assert_eq!(act(Stage::Arming { at: AT }, &planned, cannot(AT + 11), &TIMES), Act::Enter(Stage::Left));
}

#[test]
fn a_promise_that_storage_refused_is_taken_back_and_one_that_may_stand_there_is_not() {
    let refused = |now| Local { promise: Promise::Refused, ..local(now) };
    let open = view(|view| {
        view.go = Some(Go::Go);
        view.members.iter_mut().for_each(|member| member.switched = true);
    });
    let vouching = Stage::Vouching { at: AT };
    assert_eq!(act(vouching, &open, local(AT + 50), &TIMES), Act::Tell(Telling::Report(Health::Good)));
    assert_eq!(act(vouching, &open, refused(AT + 50), &TIMES), Act::Enter(Stage::Switched { at: AT }));
    // Then it is as free as whoever has not vouched.
    let over = TIMES.reported_by(AT) + TIMES.back + 1;
    assert_eq!(act(Stage::Switched { at: AT }, &open, local(over), &TIMES), Act::Leave);
    // What was read stands there, whatever was said of it.
    let mut stands = open.clone();
    stands.members[0].report = Some(Health::Good);
    assert_eq!(act(vouching, &stands, refused(AT + 50), &TIMES), Act::Wait);
}

#[test]
fn who_leaves_before_the_plan_calls_it_off_at_once() {
    let open = View { plan: None, ..View::new(0, 2) };
    // The nodes of a cell may vote as long as nobody takes its turn.
    let in_cell = Local { vote_by: Ms::MAX, ..local(50) };
    let abort = Act::Decide(Decision::Plan(Plan::Abort));
    for local in [local(50), local(101), in_cell] {
        assert_eq!(act(Stage::Left, &open, local, &TIMES), abort, "{local:?}");
    }
    let mut waived = open.clone();
    waived.members[0].waived = true;
    assert_eq!(act(Stage::Left, &waived, in_cell, &TIMES), Act::Wait);
}

#[test]
fn an_instant_that_lies_too_far_ahead_is_called_off() {
    let far = View { plan: Some(Plan::Commit { at: 1_000_000 }), ..View::new(0, 2) };
    let next = act(Stage::Voting, &far, local(0), &TIMES);
    assert_eq!(next, Act::Decide(Decision::Go(Go::Cancel)));
    assert_eq!(act(Stage::Voting, &view(|_| {}), local(450), &TIMES), Act::Wait);
}

#[test]
fn whoever_is_at_work_where_all_are_waived_goes_back() {
    let nobody = |all| {
        view(|view| {
            view.go = Some(Go::Go);
            view.members[0] = Member { switched: true, report: Some(Health::Good), ..view.members[0] };
            view.members[0].waived = true;
            view.members[1].waived = all;
        })
    };
    let now = AT + 5;
    let back = Act::Decide(Decision::Outcome(Outcome::Rollback { at: now + TIMES.back }));
    for stage in [Stage::Switched { at: AT }, Stage::Vouching { at: AT }] {
        assert_eq!(act(stage, &nobody(true), local(now), &TIMES), back, "{stage:?}");
        assert_ne!(act(stage, &nobody(false), local(now), &TIMES), back, "{stage:?}");
    }
}

#[test]
fn who_is_waived_brings_nobody_back_for_its_own_sake() {
    let of_two = |is_waived, report| {
        view(|view| {
            view.go = Some(Go::Go);
            view.members.iter_mut().for_each(|member| member.switched = true);
            view.members[0] = Member { waived: is_waived, report, ..view.members[0] };
        })
    };
    let sick = Local { checks: Checks::Failed, ..local(AT + 5) };
    let back = Act::Decide(Decision::Outcome(Outcome::Rollback { at: AT + 5 + TIMES.back }));
    let failed = Stage::Failing { at: AT };
    assert_eq!(act(failed, &of_two(false, Some(Health::Failed)), sick, &TIMES), back);
    assert_eq!(act(failed, &of_two(true, Some(Health::Failed)), sick, &TIMES), Act::Leave);
    let vouched = Stage::Vouching { at: AT };
    assert_eq!(act(vouched, &of_two(false, Some(Health::Good)), sick, &TIMES), back);
    // What it has vouched for may be kept by now: it stays until it has read the outcome.
    assert_eq!(act(vouched, &of_two(true, Some(Health::Good)), sick, &TIMES), Act::Wait);
}

#[test]
fn a_refusal_is_certain_only_where_nothing_was_told_before_it() {
    let refused = |promise: Promise| promise.told(true);
    assert_eq!(refused(refused(Promise::Untold)), Promise::Refused);
    // A try that got no answer may stand there, or arrive yet; so may one of a process before this one.
    for before in [Promise::Untold.told(false), refused(Promise::Untold).told(false), Promise::default()] {
        assert_eq!(refused(before), Promise::MaybeTold);
    }
}
