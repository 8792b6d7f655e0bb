use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{request::ClientKey, schedule::turns::Turns};

/// Largest price of one request here.
const PRICE_MAX: i64 = 3_000;

proptest! {
    /// Clients that always wait get equal shares, give or take two quanta and the dearest request, whatever each of them
    /// asks for.
    #[test]
    fn who_always_waits_gets_an_equal_share(
        clients in 2..6_u64,
        prices in prop::collection::vec(1..PRICE_MAX, 50..400),
    ) {
        let mut turns = Turns::default();
        (0..clients).for_each(|client| turns.wait(ClientKey(client)));
        let mut paid: BTreeMap<u64, i64> = (0..clients).map(|client| (client, 0)).collect();
        for price in prices {
            let client = turns.next().unwrap();
            // The clients' requests differ in size by a factor of up to five.
            let price = price / (i64::try_from(client.0).unwrap() + 1) + 1;
            turns.pay(client, price);
            *paid.get_mut(&client.0).unwrap() += price;
            let spread = paid.values().max().unwrap() - paid.values().min().unwrap();
            prop_assert!(spread <= PRICE_MAX + 1024, "{paid:?}");
        }
    }
}

#[test]
fn a_newcomer_does_not_wait_for_a_flood() {
    let mut turns = Turns::default();
    let (flood, newcomer) = (ClientKey(1), ClientKey(2));
    turns.wait(flood);
    for _ in 0..100 {
        assert_eq!(turns.next(), Some(flood));
        turns.pay(flood, 400);
    }
    turns.wait(newcomer);
    let served: Vec<_> = (0..4)
        .map(|_| {
            let client = turns.next().unwrap();
            turns.pay(client, 400);
            client
        })
        .collect();
    assert!(served[..3].contains(&newcomer), "{served:?}");
}

#[test]
fn credit_is_not_saved_up_and_debt_is_not_forgotten() {
    let mut turns = Turns::default();
    let (idle, busy) = (ClientKey(1), ClientKey(2));
    turns.wait(idle);
    assert_eq!(turns.next(), Some(idle));
    // It generates at length, and has nothing else to ask meanwhile.
    turns.rest(idle);
    turns.pay(idle, 2_000);
    turns.wait(busy);
    turns.wait(idle);
    let mut before = 0;
    while turns.next() == Some(busy) {
        turns.pay(busy, 100);
        before += 100;
    }
    assert!(before >= 1_500, "served after {before}");
    turns.forget(idle);
    turns.wait(idle);
    turns.pay(busy, 100_000);
    assert_eq!(turns.next(), Some(idle));
}
