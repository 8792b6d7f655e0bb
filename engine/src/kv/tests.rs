use super::{BlockPool, BlockTable, OutOfBlocks};

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
    assert_eq!((first.index(), second.index(), pool.blocks()), (0, 0, 1));
    drop(first);
    assert!(pool.take().is_none());
    drop(second);
    assert!(pool.take().is_some());
}
