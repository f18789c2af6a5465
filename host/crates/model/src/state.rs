//! The states of dag runs and task instances, in Airflow's words.

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in the database, the API and the command line.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::state::UnknownName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    $crate::state::UnknownName {
                        text: text.chars().take(64).collect(),
                        known: Self::ALL.iter().map(|value| value.as_str()).collect(),
                    }
                })
            }
        }
    };
}
pub(crate) use text_enum;

/// The text is not one of a closed set of names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not one of: {}", known.join(", "))]
pub struct UnknownName {
    /// The start of the text.
    pub text: String,
    /// The names that there are.
    pub known: Vec<&'static str>,
}

text_enum! {
    /// The state of a dag run.
    DagRunState {
        /// Accepted, waits for a run slot (or for its DAG to be unpaused).
        Queued = "queued",
        /// Its tasks may run.
        Running = "running",
        /// It ended and no leaf failed.
        Success = "success",
        /// It ended and a leaf failed, or it was cancelled.
        Failed = "failed",
    }
}

impl DagRunState {
    /// Whether the run has ended.
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

text_enum! {
    /// How a dag run came to be.
    DagRunType {
        /// By a person or a program.
        Manual = "manual",
        /// By its schedule.
        Scheduled = "scheduled",
        /// By a backfill.
        Backfill = "backfill",
        /// By an asset.
        AssetTriggered = "asset_triggered",
    }
}

text_enum! {
    /// The state of a task instance. `NoStatus` is `null` in the REST API.
    TaskInstanceState {
        /// Its trigger rule has not decided yet.
        NoStatus = "no_status",
        /// Its trigger rule lets it run; it waits for capacity.
        Scheduled = "scheduled",
        /// Admitted: a dispatch was committed, no executor has started it yet.
        Queued = "queued",
        /// An executor runs it.
        Running = "running",
        /// It succeeded.
        Success = "success",
        /// It failed and has no tries left.
        Failed = "failed",
        /// A try failed; the next one waits for its delay.
        UpForRetry = "up_for_retry",
        /// It answered "not yet"; the next poke waits for its time.
        UpForReschedule = "up_for_reschedule",
        /// It cannot run because of an upstream failure.
        UpstreamFailed = "upstream_failed",
        /// It was skipped.
        Skipped = "skipped",
        /// It waits outside of any executor.
        Deferred = "deferred",
        /// It waits for a person.
        AwaitingInput = "awaiting_input",
        /// It was cleared while running; it starts again once it has stopped.
        Restarting = "restarting",
        /// Its task is no longer in the DAG.
        Removed = "removed",
    }
}

impl TaskInstanceState {
    /// Whether this state ends the task instance (until it is cleared).
    pub const fn is_finished(self) -> bool {
        matches!(
            self,
            Self::Success | Self::Failed | Self::UpstreamFailed | Self::Skipped | Self::Removed
        )
    }

    /// Whether a dispatch is out: an executor has it or will have it.
    pub const fn is_dispatched(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Restarting)
    }
}
