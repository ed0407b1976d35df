//! One call over several cells.
//!
//! Outside a Cluster a function may touch all keys. In a Cluster it declares keys of one slot only, and is let touch
//! those of other slots that its server has: so one call asks all the cells of one server, where else it took one for each.
//!
//! Invariant: whose server has which slot is asked of nobody here. Where it is another than was thought (slots are on the
//! move), the server refuses; then each cell is asked by itself for [`APART`], and goes where it is.

use super::calls::{function, number};
use super::links::{Call, Cell, LinkFault};
use super::store::{RedisStore, locked, now};
use std::collections::BTreeMap;
use std::time::Duration;

/// For so long each cell is asked by itself once slots were found to move.
const APART: Duration = Duration::from_secs(10);
/// Cells of one call that says as much as a transaction of any size may, where nothing needs them to be told in one
/// moment: the server does nothing else beside a call.
pub(super) const CELLS_AT_ONCE: usize = 8;
/// How a server says that a key is not its own.
const NOT_ITS_OWN: &str = "non local key";

/// A call over these keys, which may be of several cells of one server: what cannot be declared goes along as arguments.
pub(super) fn across(mut call: Call, is_cluster: bool) -> Call {
    let is_own = |key: &Vec<u8>| Cell::of_key(key) == Some(call.cell);
    let own = call.keys.iter().take_while(|key| is_own(key)).count();
    if !is_cluster || own == call.keys.len() {
        return call;
    }
    let more = call.keys.split_off(own);
    let mut args = Vec::with_capacity(more.len() + call.args.len() + 1);
    args.push(number(more.len()));
    args.extend(more);
    args.append(&mut call.args);
    Call {
        function: function::across(call.function),
        args,
        ..call
    }
}

/// Whether a server refused it because some of it lies elsewhere by now. What was written of it may be written again.
pub(super) fn is_elsewhere(fault: &LinkFault) -> bool {
    matches!(fault, LinkFault::Refused { detail, .. } if detail.contains(NOT_ITS_OWN))
}

impl RedisStore {
    /// These cells, those together that one call can ask.
    pub(super) fn together(&self, cells: &[Cell]) -> Vec<Vec<Cell>> {
        let group = self.grouping();
        let mut groups: BTreeMap<u64, Vec<Cell>> = BTreeMap::new();
        for cell in cells {
            groups.entry(group(*cell)).or_default().push(*cell);
        }
        groups.into_values().collect()
    }

    /// What two cells share that one call can ask.
    pub(super) fn grouping(&self) -> impl Fn(Cell) -> u64 {
        let is_cluster = self.links().is_cluster();
        let is_apart = is_cluster && locked(&self.inner.apart_until).is_some_and(|until| now() < until);
        move |cell| match (is_cluster, is_apart) {
            (false, _) => 0,
            (true, true) => u64::from(cell.0),
            (true, false) => self.links().server_of(cell),
        }
    }

    /// Notes a refusal by which cells are to be asked apart.
    pub(super) fn note_moves(&self, fault: &LinkFault) {
        if is_elsewhere(fault) {
            tracing::debug!(%fault, "slots of the Cluster move; each cell is asked by itself");
            *locked(&self.inner.apart_until) = Some(now() + APART);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::codec::key;
    use crate::embedded::store::{Batch, Store as _, StoreFault, Table, View as _};
    use crate::redis::calls;
    use crate::redis::store_tests::{close, open, runtime};
    use crate::redis::testing::{Cluster, has_redis};
    use postrider_model::{NotificationId, Timestamp};

    #[test]
    fn a_slot_that_moved_is_asked_by_itself() {
        if !has_redis("redis::across") {
            return;
        }
        let (cluster, runtime) = (Cluster::start(), runtime());
        let store = open(&runtime, &cluster.url());
        let mut batch = Batch::default();
        let due = key::due(Timestamp(1), 1, &NotificationId::new("n").unwrap());
        batch.put(Table::Due, due.clone(), vec![1]);
        store.commit(&batch, false).unwrap();
        let of_row = crate::redis::owners::owner_of(Table::Due, &due).cell;
        let scan = || store.look().scan(Table::Due, &[], &[0xff; 16], 9);
        assert_eq!(scan().unwrap().len(), 1);
        assert_eq!(store.together(&Cell::all().collect::<Vec<_>>()).len(), 3);
        let epoch = store.look().tokens().epoch();
        let moved = Cell::all().find(|cell| cell.slot() < 5_000 && *cell != of_row);
        cluster.move_slot(moved.unwrap().slot(), 0, 2);
        // One refusal says that it moved, one that another server has it than the one that was met.
        let tried = |_| {
            let found = scan();
            assert!(
                matches!(found, Ok(_) | Err(StoreFault::Conflict)),
                "{:?}",
                found.err()
            );
            found.ok()
        };
        let found = (0..3).find_map(tried).expect("it is asked where it is");
        assert_eq!(found.len(), 1);
        *locked(&store.inner.apart_until) = None;
        let found = (0..3).find_map(tried).expect("they are asked together again");
        assert_eq!(found.len(), 1);
        assert_eq!(store.look().tokens().epoch(), epoch, "nothing was lost");
        close(&runtime, &[store]);
    }

    #[test]
    fn what_cannot_be_declared_goes_along() {
        let keys = vec![Cell(3).key("a"), Cell(3).key("b"), Cell(4).key("a")];
        let call = || calls::reading(Cell(3), function::FETCH, keys.clone(), vec![b"x".to_vec()]);
        let outside = across(call(), false);
        assert_eq!((outside.keys.len(), outside.args.len()), (3, 1));
        let inside = across(call(), true);
        assert_eq!(inside.keys, keys[..2]);
        assert_eq!(inside.args, [b"1".to_vec(), keys[2].clone(), b"x".to_vec()]);
        assert_ne!(inside.function, function::FETCH);
    }

    #[test]
    fn each_function_that_goes_over_cells_has_its_like() {
        let library = crate::redis::store::LIBRARY;
        for function in [
            function::FETCH,
            function::CHECK,
            function::KEEP,
            function::LET_GO_ALL,
            function::STALE,
            function::COUNT,
        ] {
            let like = function::across(function);
            assert_eq!(like, format!("{function}_across"));
            let name = function.strip_prefix("postrider_rows_1_").unwrap();
            assert!(
                library.contains(&format!("register_with_across('{name}'")),
                "{like}"
            );
        }
    }
}
