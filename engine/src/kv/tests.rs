use super::{BlockHash, BlockPool, BlockTable, OutOfBlocks, PrefixHashes};

#[test]
fn a_table_takes_what_its_tokens_need_and_returns_it_when_dropped() {
    let pool = BlockPool::new(4);
    let mut table = BlockTable::default();
    for (tokens, blocks) in [(0, 0), (1, 1), (16, 1), (17, 2), (5, 2), (48, 3)] {
        table.grow_to(tokens, &pool).unwrap();
        assert_eq!(table.indices().len(), blocks, "{tokens} tokens");
        assert_eq!(pool.free_blocks(), 4 - blocks);
    }
    drop(table);
    assert_eq!(pool.free_blocks(), 4);
}

#[test]
fn growing_takes_all_or_nothing() {
    let pool = BlockPool::new(3);
    let mut table = BlockTable::default();
    table.grow_to(16, &pool).unwrap();
    assert_eq!(table.grow_to(16 * 5, &pool), Err(OutOfBlocks { missing: 2 }));
    assert_eq!((table.indices().len(), pool.free_blocks()), (1, 2));
}

#[test]
fn a_block_is_free_when_its_last_owner_is_gone() {
    let pool = BlockPool::new(1);
    let first = pool.take().unwrap();
    let second = first.clone();
    assert_eq!((first.index(), second.index()), (0, 0));
    drop(first);
    assert!(pool.take().is_none());
    drop(second);
    assert!(pool.take().is_some());
}

fn hashes(tokens: &[u32]) -> Vec<BlockHash> {
    PrefixHashes::new(0).of(tokens, usize::MAX).to_vec()
}

#[test]
fn a_hash_tells_all_tokens_up_to_its_blocks_end_and_the_salt() {
    let tokens: Vec<u32> = (0..50).collect();
    let all = hashes(&tokens);
    assert_eq!(all.len(), 3);
    assert_eq!(hashes(&tokens[..47]), all[..2]);
    for changed in 0..48 {
        let mut other = tokens.clone();
        other[changed] += 1;
        let equal = hashes(&other).iter().zip(&all).take_while(|(a, b)| a == b).count();
        assert_eq!(equal, changed / 16);
    }
    let salted = PrefixHashes::new(1).of(&tokens, usize::MAX).to_vec();
    assert!(salted.iter().all(|hash| !all.contains(hash)));
    // Asked for little by little, they are the same.
    let mut growing = PrefixHashes::new(0);
    assert_eq!(growing.of(&tokens[..20], 9), &all[..1]);
    assert_eq!(growing.of(&tokens, 0), &[]);
    assert_eq!(growing.of(&tokens, 2), &all[..2]);
}

#[test]
fn a_released_block_is_found_until_it_is_taken_and_the_longest_unused_is_taken_first() {
    let pool = BlockPool::new(3);
    let all = hashes(&(0..32).collect::<Vec<u32>>());
    let mut table = BlockTable::default();
    table.grow_to(32, &pool).unwrap();
    assert!(pool.find(&all[0]).is_none());
    table.publish(&all);
    // While it is owned, there is one more owner.
    let shared = BlockTable::found(&all, &pool);
    assert_eq!((shared.indices(), pool.free_blocks()), (table.indices(), 1));
    let first = table.indices()[0];
    drop(table);
    assert_eq!(pool.free_blocks(), 1);
    drop(shared);
    assert_eq!(pool.free_blocks(), 3);
    // The block that holds nothing goes first, then the tail.
    let unknown = pool.take().unwrap();
    let tail = pool.take().unwrap();
    assert!(pool.find(&all[1]).is_none());
    let found = pool.find(&all[0]).unwrap();
    assert_eq!((found.index(), pool.free_blocks()), (first, 0));
    drop((unknown, tail, found));
    assert_eq!(pool.free_blocks(), 3);
}

#[test]
fn of_two_blocks_of_one_content_the_first_is_known() {
    let pool = BlockPool::new(2);
    let hash = hashes(&[5; 16])[0];
    let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
    first.publish(hash);
    second.publish(hash);
    assert_eq!(pool.find(&hash).map(|block| block.index()), Some(first.index()));
    drop(second);
    // It holds nothing that could be found, so taking it forgets nothing.
    let _third = pool.take().unwrap();
    assert_eq!(pool.find(&hash).map(|block| block.index()), Some(first.index()));
}
