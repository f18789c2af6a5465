//! One scenario: what goes wrong, and what branches and people choose.

use std::collections::BTreeMap;
use std::fmt;

use crate::between::IfExists;
use crate::dag::{Dag, Task, TaskKind};
use crate::human::{APPROVE, REJECT};
use crate::id::{MapIndex, TaskIndex};

/// How a task goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It fails in its first tries, so many of them.
    Fails(u32),
    /// It fails in every try.
    FailsAlways,
    /// It fails and calls that fatal: there is no other try.
    FailsFatally,
    /// Every try takes longer than it may; a sensor's condition never holds; nobody answers a question.
    TimesOut,
    /// The host of its first dispatch dies.
    Lost,
    /// The host of each of its dispatches dies.
    LostAlways,
    /// It skips itself.
    Skips,
}

impl Fault {
    /// What is injected into each task by itself.
    pub const SINGLE: &'static [Self] = &[
        Self::Fails(1),
        Self::FailsAlways,
        Self::FailsFatally,
        Self::TimesOut,
        Self::Lost,
        Self::LostAlways,
        Self::Skips,
    ];

    /// Whether it makes sense for a task. A person cannot skip a question, nor a run that is
    /// triggered its task; and one that has no time limit never runs out of time.
    pub fn suits(self, task: &Task) -> bool {
        match self {
            // Unless its `when` skips it, or the run that it asks for is there already.
            Self::Skips => {
                let by_itself = match task.work.trigger_dag() {
                    Some(step) => step.if_exists == IfExists::Skip,
                    None => task.work.human().is_none(),
                };
                by_itself || task.when.is_some()
            }
            Self::TimesOut => task.work.trigger_dag().is_none_or(|step| step.timeout.is_some()),
            _ => true,
        }
    }

    /// The word for it on the command line.
    pub fn word(self) -> String {
        match self {
            Self::Fails(1) => "once".to_owned(),
            Self::Fails(times) => times.to_string(),
            Self::FailsAlways => "always".to_owned(),
            Self::FailsFatally => "fatal".to_owned(),
            Self::TimesOut => "timeout".to_owned(),
            Self::Lost => "lost".to_owned(),
            Self::LostAlways => "lost_always".to_owned(),
            Self::Skips => "skip".to_owned(),
        }
    }

    /// The fault that a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "once" => Self::Fails(1),
            "always" => Self::FailsAlways,
            "fatal" => Self::FailsFatally,
            "timeout" => Self::TimesOut,
            "lost" => Self::Lost,
            "lost_always" => Self::LostAlways,
            "skip" => Self::Skips,
            times => Self::Fails(times.parse().ok().filter(|times| *times > 0)?),
        })
    }
}

/// Which instances of a task it goes wrong in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// The one that is dispatched first: of a mapped task one element, of a loop its first iteration.
    First,
    /// All of them.
    Every,
    /// The one with this map index.
    Index(MapIndex),
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Injection {
    /// In which task.
    pub task: TaskIndex,
    /// In which of its instances.
    pub which: Which,
    /// How.
    pub fault: Fault,
}

/// What a task that chooses chooses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// A branch: this label.
    Label(String),
    /// A branch: these direct downstream tasks.
    Tasks(Vec<TaskIndex>),
    /// A person: this option.
    Option(String),
    /// A short-circuit: its answer counts as false.
    Falsy,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) | Self::Option(label) => f.write_str(label),
            Self::Tasks(tasks) => write!(f, "{} tasks", tasks.len()),
            Self::Falsy => f.write_str("false"),
        }
    }
}

/// What happens in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenario {
    /// What goes wrong. Of several that hit the same task instance the first counts.
    pub injections: Vec<Injection>,
    /// What tasks choose. One that is not here chooses its first label or the default options; a short-circuit answers true.
    pub choices: BTreeMap<TaskIndex, Choice>,
    /// Whether there is a run before that failed with all its tasks; else there is none.
    pub run_before_failed: bool,
    /// By what number the times of tries are spread; 0 leaves them as they are assumed to be.
    pub spread_by: u64,
}

/// Everything that a task can choose, what it chooses by itself first. Nothing for a task that does not choose.
pub(super) fn choices_of(task: &Task) -> Vec<Choice> {
    if let Some(step) = task.work.human() {
        if step.options.len() < 2 {
            return Vec::new();
        }
        let first = default_option(task);
        let mut options: Vec<&String> = step.options.iter().collect();
        options.sort_by_key(|option| Some(option.as_str()) != first);
        let all = options.into_iter().map(|option| Choice::Option(option.clone()));
        // What is chosen of an ordinary question is data: nothing depends on it.
        return if step.branches || step.approval.is_some() {
            all.collect()
        } else {
            Vec::new()
        };
    }
    match &task.kind {
        TaskKind::Branch { labels } => labels.keys().cloned().map(Choice::Label).collect(),
        // Answering true is no choice to inject: it is what happens without one.
        TaskKind::ShortCircuit { .. } => vec![Choice::Falsy],
        TaskKind::Plain => Vec::new(),
    }
}

/// What a person is assumed to choose: the defaults, else what goes on.
pub(super) fn default_option(task: &Task) -> Option<&str> {
    let step = task.work.human()?;
    if let Some(first) = step.defaults.as_ref().and_then(|defaults| defaults.first()) {
        // An approval whose default is to reject is still simulated as approved first: else nothing behind it would run.
        if step.approval.is_none() || first != REJECT {
            return Some(first);
        }
    }
    if step.approval.is_some() {
        return Some(APPROVE);
    }
    step.options.first().map(String::as_str)
}

impl Scenario {
    /// In words: `load: always, gate → reject`.
    pub fn in_words(&self, dag: &Dag) -> String {
        let name = |task: &TaskIndex| dag.task(*task).map_or_else(String::new, |task| task.id.to_string());
        let faults = self.injections.iter().map(|injection| {
            let which = match injection.which {
                Which::First => String::new(),
                Which::Every => "[*]".to_owned(),
                Which::Index(index) => format!("[{}]", index.0),
            };
            format!("{}{which}: {}", name(&injection.task), injection.fault.word())
        });
        let choices = self
            .choices
            .iter()
            .map(|(task, choice)| format!("{} → {choice}", name(task)));
        let before = self.run_before_failed.then(|| "the run before failed".to_owned());
        let words: Vec<String> = before.into_iter().chain(faults).chain(choices).collect();
        if words.is_empty() {
            "nothing goes wrong".to_owned()
        } else {
            words.join(", ")
        }
    }
}
