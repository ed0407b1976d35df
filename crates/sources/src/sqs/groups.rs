//! The order within a group of a FIFO queue: of each group one message is out at a time; the later ones that came with it
//! wait here.
//!
//! SQS gives nothing more of a group while any of it is out. So what waits here is the next of its group, and no other
//! node has anything of it.
//!
//! Invariant: a message is let out only after every earlier one of its group was acknowledged; when one is given back, so are
//! all that waited behind it. Pure.

use std::collections::{HashMap, VecDeque};

/// See the module. `T` is a message.
#[derive(Debug)]
pub(super) struct Groups<T> {
    /// By group, what waits behind the one that is out.
    behind: HashMap<String, VecDeque<T>>,
    waiting: usize,
}

impl<T> Groups<T> {
    pub fn new() -> Groups<T> {
        Groups {
            behind: HashMap::new(),
            waiting: 0,
        }
    }

    /// A message came: it is given back where it may go out at once.
    pub fn came(&mut self, group: &str, message: T) -> Option<T> {
        match self.behind.get_mut(group) {
            Some(behind) => {
                behind.push_back(message);
                self.waiting += 1;
                None
            }
            None => {
                self.behind.insert(group.to_owned(), VecDeque::new());
                Some(message)
            }
        }
    }

    /// SQS gives this group again: what was kept of it is nobody's any more, and comes anew.
    pub fn comes_anew(&mut self, group: &str) {
        if let Some(behind) = self.behind.get_mut(group) {
            self.waiting -= behind.len();
            behind.clear();
        }
    }

    /// The one that is out is done with: the next of its group.
    pub fn done(&mut self, group: &str) -> Option<T> {
        let next = self.behind.get_mut(group)?.pop_front();
        match &next {
            Some(_) => self.waiting -= 1,
            None => drop(self.behind.remove(group)),
        }
        next
    }

    /// The one that is out comes again: all that have to come after it.
    pub fn back(&mut self, group: &str) -> Vec<T> {
        let behind = self.behind.remove(group).unwrap_or_default();
        self.waiting -= behind.len();
        behind.into()
    }

    /// What waits behind the one that is out.
    pub fn behind_mut(&mut self, group: &str) -> impl Iterator<Item = &mut T> {
        self.behind.get_mut(group).into_iter().flatten()
    }

    /// Everything that waits.
    pub fn clear(&mut self) -> Vec<T> {
        self.waiting = 0;
        self.behind.drain().flat_map(|(_, behind)| behind).collect()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_in_order() {
        let mut groups = Groups::new();
        assert_eq!(groups.came("a", 1), Some(1));
        assert_eq!(groups.came("a", 2), None);
        assert_eq!(groups.came("b", 3), Some(3));
        assert_eq!(groups.came("a", 4), None);
        assert_eq!(groups.waiting(), 2);
        assert_eq!(groups.done("a"), Some(2));
        assert_eq!(groups.done("b"), None);
        assert_eq!(groups.came("b", 5), Some(5), "the group begins anew");
        assert_eq!(groups.done("a"), Some(4));
        assert_eq!(groups.done("a"), None);
        assert_eq!((groups.done("a"), groups.waiting()), (None, 0));
    }

    #[test]
    fn given_back_with_all_behind() {
        let mut groups = Groups::new();
        for n in 0..4 {
            groups.came("a", n);
        }
        groups.came("b", 9);
        groups.came("b", 10);
        groups.behind_mut("a").for_each(|n| *n += 100);
        groups.comes_anew("b");
        groups.comes_anew("c");
        assert_eq!((groups.waiting(), groups.came("b", 10)), (3, None));
        assert_eq!(groups.back("a"), [101, 102, 103]);
        assert_eq!(groups.back("a"), [] as [i32; 0]);
        assert_eq!(groups.came("a", 0), Some(0));
        assert_eq!(
            (groups.waiting(), groups.clear(), groups.waiting()),
            (1, vec![10], 0)
        );
    }
}
