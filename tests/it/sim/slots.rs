//! What a member knows that reads a few tickets of each slot, beside what stands on storage.

use cutover::coord::operate::{self, Operator};
use cutover::coord::rolling::Rolling;
use cutover::coord::rollout::Rollout;
use cutover::coord::rules::Health;
use cutover::coord::settings::{Mode, Settings};
use cutover::coord::voice::Voice;

use super::chaos::Random;
use super::node::Luck;
use super::stories::{calm, pass};
use super::{Fleet, TRUST};

/// Whose each ticket of each slot is, as it was made.
fn owners(fleet: &Fleet, rollout: &Rollout, rows: usize) -> Vec<Vec<usize>> {
    let storage = fleet.storage.lock().unwrap();
    let owner_of = |row: usize, number: usize| {
        let text = storage.decided(1, &format!("t.{row:04}.{number:04}"))?;
        let said: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
        rollout.place_of(&said["node"].as_str()?.parse().ok()?)
    };
    (0..rows).map(|row| (0..).map_while(|number| owner_of(row, number)).collect()).collect()
}

fn reported(fleet: &Fleet, place: usize) -> Option<Health> {
    let storage = fleet.storage.lock().unwrap();
    let (text, _) = storage.names.get(&format!("nodes/n{place}/000001.report"))?;
    let said: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
    Health::of_word(said["health"].as_str()?)
}

/// Reads with `operator`'s board until nothing new is known: what is damaged is come to at the next look.
fn read(operator: &mut Operator<'_>, rollout: &Rollout, random: &mut Random) -> Rolling<'static> {
    let voice = Voice { trust: TRUST, signer: None };
    let mut follow = Rolling::new(rollout.clone(), 0, voice).unwrap();
    for _ in 0..6 {
        // Where it looks first is a guess, which may be far off.
        follow.expected = usize::try_from(random.below(60)).unwrap();
        assert!(follow.read(operator.board).is_yes());
    }
    follow
}

#[test]
fn whoever_reads_a_few_tickets_knows_what_all_of_them_say() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let size = 4 + usize::try_from(random.below(20)).unwrap();
        let rows = 1 + usize::try_from(random.below(3)).unwrap();
        let mut fleet = calm(Mode::Rolling, size);
        let settings = (*fleet.settings).clone();
        fleet.change(Settings { at_once: u32::try_from(rows).unwrap(), max_failed: 100, ..settings });
        for node in &mut fleet.nodes {
            if random.chance(4) {
                node.luck = Luck::SickAfter(500);
            }
        }
        fleet.propose("2");
        pass(&mut fleet, random.below(90_000));
        let mut rollout = None;
        fleet.operate(|operator, _| {
            let made = operate::fleet(operator.board, "simulated").unwrap();
            rollout = Some(operator.rollout(&made, 1).unwrap());
        });
        let rollout = rollout.unwrap();
        let all = owners(&fleet, &rollout, rows);
        // Some are damaged; never the newest of a slot alone, for that one's owner has read it back.
        let mut torn = Vec::new();
        for _ in 0..random.below(3) {
            let row = usize::try_from(random.below(i64::try_from(rows).unwrap())).unwrap();
            if let Some(last) = all[row].len().checked_sub(1).filter(|last| *last > 0) {
                let number = usize::try_from(random.below(i64::try_from(last).unwrap())).unwrap();
                let mut storage = fleet.storage.lock().unwrap();
                let name = storage.decision(1, &format!("t.{row:04}.{number:04}"));
                storage.names.insert(name, ("".into(), 0));
                torn.push((row, number));
            }
        }
        fleet.operate(|operator, _| {
            let follow = read(operator, &rollout, &mut random);
            for (row, owners) in all.iter().enumerate() {
                let seen = &follow.view.rows[row];
                assert_eq!(seen.len(), owners.len(), "seed {seed}, slot {row}, {torn:?}");
                for (number, (ticket, owner)) in seen.iter().zip(owners).enumerate() {
                    let case = format!("seed {seed}, ticket {row}.{number}, {torn:?}");
                    let is_torn = torn.contains(&(row, number)) && ticket.owner == size;
                    assert!(is_torn || ticket.owner == *owner, "{case}: {}, not {owner}", ticket.owner);
                    if !is_torn {
                        assert_eq!(follow.view.members[*owner].report, reported(&fleet, *owner), "{case}");
                    }
                }
            }
        });
    }
}

/// Who waits in a slot does not ask each time what was decided; before it takes a ticket it does.
#[test]
fn nobody_takes_a_ticket_after_an_operator_has_stopped_it() {
    let (size, rows) = (48, 4);
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let mut fleet = calm(Mode::Rolling, size);
        let settings = (*fleet.settings).clone();
        fleet.change(Settings { at_once: 4, ..settings });
        for node in &mut fleet.nodes {
            node.wake = random.below(20_000);
            node.healthy_after = 5_000 + random.below(5_000);
        }
        fleet.propose("2");
        pass(&mut fleet, 10_000 + random.below(80_000));
        let mut rollout = None;
        fleet.operate(|operator, now| {
            let made = operate::fleet(operator.board, "simulated").unwrap();
            let open = operator.rollout(&made, 1).unwrap();
            operator.abort(&open, "an operator wants it", now).unwrap();
            rollout = Some(open);
        });
        let rollout = rollout.unwrap();
        let taken = owners(&fleet, &rollout, rows);
        assert!(taken.iter().map(Vec::len).sum::<usize>() < size, "seed {seed}: it was over already");
        pass(&mut fleet, 300_000);
        assert_eq!(owners(&fleet, &rollout, rows), taken, "seed {seed}: {}", fleet.why());
        assert!(
            fleet.storage.lock().unwrap().decided(1, "outcome").is_some(),
            "seed {seed}: it has not ended"
        );
    }
}
