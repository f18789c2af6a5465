//! What makes one task or one task group many: mapping over values that are known when the run gets there, and loops.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::TaskIndex;
use crate::template::Segment;

/// How many instances a mapping makes at the most, where the manifest does not say (Airflow: `core.max_map_length` is 1,024).
pub const DEFAULT_MAP_LIMIT: u32 = 10_000;

/// The most that a manifest may allow.
pub const MAX_MAP_LIMIT: u32 = 100_000;

/// The most iterations of a loop that a manifest may allow.
pub const MAX_ITERATIONS: u32 = 100_000;

/// The position of a task group within its DAG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupIndex(pub u32);

impl GroupIndex {
    /// As an index of a slice.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

/// A task group: tasks whose ids share a prefix (Airflow: `TaskGroup`), perhaps run many times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The ids of its tasks begin with this and a dot.
    pub id: String,
    /// The group around it; always an earlier one.
    pub parent: Option<GroupIndex>,
    /// One line for people.
    #[serde(default)]
    pub tooltip: Option<String>,
    /// What makes it many.
    #[serde(default)]
    pub repeat: Option<Repeat>,
}

/// What makes a task group many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Repeat {
    /// Once for each element (Airflow: `@task_group.expand`). Within the group, element i of a task follows element i of another.
    Mapped(Expansion),
    /// Again and again until a condition holds.
    Loop(Loop),
}

/// A task group that is repeated until a condition holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loop {
    /// How many iterations there are at the most.
    pub max: u32,
    /// The task of the group whose answer decides after each iteration.
    pub until: TaskIndex,
    /// Which of that task's measures says whether the loop is over (not 0).
    pub measure: u32,
}

/// Over what a task or a group is mapped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expansion {
    /// How several sources are combined.
    pub how: Combine,
    /// The lists or maps.
    pub sources: Vec<MapSource>,
    /// How many instances there may be.
    pub limit: u32,
}

/// How the sources of a mapping are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Each element of one with each of the others; the last source varies fastest (Airflow: `expand`).
    Product,
    /// Element i of one with element i of the others, as many as the shortest has (Airflow: `XComArg.zip`).
    Zip,
    /// Each element of the only source is an object whose members go into the input (Airflow: `expand_kwargs`).
    Kwargs,
}

/// One list or map that is mapped over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapSource {
    /// Under which name an element appears in the input; empty for [`Combine::Kwargs`].
    pub name: String,
    /// Where the values are.
    pub values: MapValues,
}

/// Where the values of a mapping are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MapValues {
    /// In the manifest: a list or an object.
    Literal {
        /// The list or object.
        value: Value,
    },
    /// In the run's parameters.
    Param {
        /// The path to it.
        path: Vec<Segment>,
        /// Its place among the DAG's parameters that are mapped over, see [`super::Dag::mapped_params`].
        measure: u32,
    },
    /// What a task published.
    Xcom {
        /// The task.
        task: TaskIndex,
        /// The key.
        key: String,
        /// The path inside.
        path: Vec<Segment>,
        /// Which of the task's measures is its length; where the task has many instances, each measures 1 or 0: whether it
        /// published a value.
        measure: u32,
    },
}

/// What the executor measures of what a try published, since decisions depend on it and never on values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Of the XCom with this key.
    pub key: String,
    /// At this path.
    pub path: Vec<Segment>,
    /// What about it.
    pub what: Measured,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Measured {
    /// How many elements the list, or members the object, has: at most this many.
    Length {
        /// A longer one fails the try.
        limit: u32,
    },
    /// 1 where something was published, else 0.
    Present,
    /// 1 where a Jinja expression over the value counts as true, else 0.
    Truth {
        /// The expression.
        expression: String,
    },
}

impl Repeat {
    /// How many instances it may make.
    pub const fn limit(&self) -> u32 {
        match self {
            Self::Mapped(expansion) => expansion.limit,
            Self::Loop(repeated) => repeated.max,
        }
    }
}

impl MapValues {
    /// The length of what stands in the manifest.
    pub fn literal_length(&self) -> Option<u32> {
        match self {
            Self::Literal { value } => length(value),
            _ => None,
        }
    }
}

/// How many elements a list or members an object has; nothing for anything else.
pub fn length(value: &Value) -> Option<u32> {
    let length = match value {
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => return None,
    };
    u32::try_from(length).ok()
}

impl Expansion {
    /// How many instances these lengths make.
    pub fn combine(&self, lengths: &[u32]) -> u64 {
        match self.how {
            Combine::Product => lengths
                .iter()
                .fold(1_u64, |all, length| all.saturating_mul(u64::from(*length))),
            Combine::Zip | Combine::Kwargs => u64::from(lengths.iter().copied().min().unwrap_or(0)),
        }
    }

    /// Which element of each source instance `item` gets.
    pub fn elements(&self, lengths: &[u32], item: u32) -> Vec<u32> {
        match self.how {
            Combine::Zip | Combine::Kwargs => vec![item; lengths.len()],
            Combine::Product => {
                let mut rest = item;
                let mut elements: Vec<u32> = lengths
                    .iter()
                    .rev()
                    .map(|length| {
                        let element = rest % (*length).max(1);
                        rest /= (*length).max(1);
                        element
                    })
                    .collect();
                elements.reverse();
                elements
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expansion(how: Combine) -> Expansion {
        Expansion {
            how,
            sources: Vec::new(),
            limit: DEFAULT_MAP_LIMIT,
        }
    }

    #[test]
    fn in_a_product_the_last_source_varies_fastest() {
        let product = expansion(Combine::Product);
        assert_eq!(product.combine(&[2, 3]), 6);
        let all: Vec<Vec<u32>> = (0..6).map(|item| product.elements(&[2, 3], item)).collect();
        assert_eq!(
            all,
            [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]].map(Vec::from).to_vec()
        );
        assert_eq!(product.combine(&[2, 0]), 0);
    }

    #[test]
    fn a_zip_is_as_long_as_the_shortest() {
        let zip = expansion(Combine::Zip);
        assert_eq!(zip.combine(&[4, 3]), 3);
        assert_eq!(zip.elements(&[4, 3], 2), [2, 2]);
    }
}
