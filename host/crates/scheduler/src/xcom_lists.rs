//! Lists that many task instances are mapped over, taken apart once. Bounded by bytes and entries, first in first out.

use std::collections::VecDeque;
use std::sync::Arc;

use model::template::Segment;
use model::{BlobRef, TiKey};

const MAX_BYTES: usize = 64 << 20;
const MAX_ENTRIES: usize = 32;

/// Which list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListKey {
    pub(crate) ti: TiKey,
    pub(crate) key: String,
    pub(crate) path: Vec<Segment>,
}

/// A list, taken apart.
#[derive(Debug)]
pub(crate) struct XcomList {
    /// JSON texts.
    pub(crate) elements: Vec<Arc<str>>,
    /// The blobs that the whole refers to.
    pub(crate) blobs: Vec<BlobRef>,
}

/// The lists that were used last.
#[derive(Debug, Default)]
pub(crate) struct XcomLists {
    lists: VecDeque<(ListKey, Arc<XcomList>)>,
    bytes: usize,
}

impl XcomLists {
    pub(crate) fn get(&self, key: &ListKey) -> Option<Arc<XcomList>> {
        let found = self.lists.iter().find(|(known, _)| known == key);
        found.map(|(_, list)| Arc::clone(list))
    }

    pub(crate) fn insert(&mut self, key: ListKey, elements: Vec<Arc<str>>, blobs: Vec<BlobRef>) -> Arc<XcomList> {
        let list = Arc::new(XcomList { elements, blobs });
        self.bytes += cost(&list);
        self.lists.push_back((key, Arc::clone(&list)));
        while self.bytes > MAX_BYTES || self.lists.len() > MAX_ENTRIES {
            let Some((_, oldest)) = self.lists.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(cost(&oldest));
        }
        list
    }

    /// Forgets what a task instance published.
    pub(crate) fn remove(&mut self, ti: TiKey) {
        self.lists.retain(|(key, list)| {
            let stays = key.ti != ti;
            if !stays {
                self.bytes = self.bytes.saturating_sub(cost(list));
            }
            stays
        });
    }
}

fn cost(list: &XcomList) -> usize {
    let elements = list.elements.iter().map(|element| 48 + element.len());
    elements.sum::<usize>() + 96 * list.blobs.len()
}

#[cfg(test)]
mod tests {
    use model::{DagRunKey, MapIndex, TaskIndex};

    use super::*;

    fn key(task: u32) -> ListKey {
        ListKey {
            ti: TiKey {
                run: DagRunKey(1),
                task: TaskIndex(task),
                map_index: MapIndex::UNMAPPED,
            },
            key: "return_value".to_owned(),
            path: Vec::new(),
        }
    }

    #[test]
    fn keeps_the_last_and_forgets_what_is_removed() {
        let mut lists = XcomLists::default();
        for task in 0..40 {
            lists.insert(key(task), vec!["1".into()], Vec::new());
        }
        assert!(lists.get(&key(0)).is_none());
        assert_eq!(lists.get(&key(39)).unwrap().elements.len(), 1);
        lists.remove(key(39).ti);
        assert!(lists.get(&key(39)).is_none());
        let large: Vec<Arc<str>> = vec!["x".repeat(MAX_BYTES).into()];
        lists.insert(key(50), large, Vec::new());
        assert_eq!((lists.lists.len(), lists.bytes), (0, 0));
    }
}
