use super::*;

const WINDOW: u64 = 300;

fn at(time: u64) -> impl Fn() -> UnixTime {
    move || UnixTime(time)
}

fn token(table: &ReplayTable, n: u64) -> Token {
    table.token(&n.to_be_bytes())
}

fn len(table: &ReplayTable) -> usize {
    let stored = table
        .shards
        .iter()
        .flat_map(|shard| lock(shard).0.iter().map(|b| b.tokens.len()).collect::<Vec<_>>());
    let stored = stored.sum();
    assert_eq!(table.len.load(Relaxed), stored);
    stored
}

#[test]
fn a_token_stays_as_long_as_a_date_valid_with_it_could_be_accepted() {
    let table = ReplayTable::new(WINDOW, 10);
    let one = token(&table, 1);
    assert_eq!(table.admit(one, at(1_000)), Ok(UnixTime(1_000)));
    // Taken with the latest date allowed, the request is in time for the last time here.
    let last = 1_000 + 2 * WINDOW;
    assert_eq!(table.check(one, at(last)), Err(Refusal::Seen));
    assert_eq!(table.check(one, at(last + 1)), Ok(()));
}

#[test]
fn a_late_token_of_a_bucket_is_kept_as_long_as_an_early_one() {
    let table = ReplayTable::new(WINDOW, 100_000);
    // So many numbers that each shard has several.
    for (time, numbers) in [(1_000, 0..5_000), (1_050, 5_000..10_000)] {
        for n in numbers {
            table.admit(token(&table, n), at(time)).unwrap();
        }
    }
    for n in 5_000..10_000 {
        assert_eq!(table.check(token(&table, n), at(1_050 + 2 * WINDOW)), Err(Refusal::Seen));
    }
    table.sweep(at(1_051 + 2 * WINDOW));
    assert_eq!(len(&table), 0);
}

#[test]
fn a_full_table_refuses_and_forgets_nothing() {
    let table = ReplayTable::new(WINDOW, 2);
    let tokens: Vec<_> = (0..3).map(|n| token(&table, n)).collect();
    for token in &tokens[..2] {
        table.admit(*token, at(1_000)).unwrap();
    }
    assert_eq!(table.admit(tokens[2], at(1_600)), Err(Refusal::Full));
    assert_eq!(table.admit(tokens[0], at(1_600)), Err(Refusal::Seen));
    assert_eq!(table.admit(tokens[2], at(1_601)), Ok(UnixTime(1_601)));
    assert_eq!(len(&table), 1);
}

#[test]
fn of_many_threads_with_one_token_one_is_admitted_and_no_place_is_lost() {
    let table = ReplayTable::new(WINDOW, 3_000);
    let admitted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..5_000 {
                    // Replays, and more tokens than there are places.
                    let found = table.admit(token(&table, n), at(1_000));
                    admitted.fetch_add(usize::from(found.is_ok()), Relaxed);
                }
            });
        }
    });
    assert_eq!((admitted.load(Relaxed), len(&table)), (3_000, 3_000));
}

#[test]
fn a_token_takes_less_than_sixteen_bytes() {
    let table = ReplayTable::new(WINDOW, 1 << 24);
    let count = 200_000;
    // Numbers come evenly over ten minutes.
    for n in 0..count {
        table.admit(token(&table, n), at(1_000 + n * 600 / count)).unwrap();
    }
    let bytes: usize = table
        .shards
        .iter()
        .map(|shard| lock(shard).0.iter().map(|bucket| bucket.tokens.bytes()).sum::<usize>())
        .sum();
    assert!(bytes < 16 * 200_000, "{bytes} bytes");
    assert_eq!(len(&table), 200_000);
}
