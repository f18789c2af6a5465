//! New runs, whoever asked for them.

use std::sync::Arc;

use model::run::RunState;
use ports::store::NewRun;

use crate::asker::Asker;
use crate::audit;
use crate::core::Core;
use crate::live::LiveRun;
use crate::run::Draft;
use crate::tick::Tick;
use crate::version::Version;

impl Core {
    /// The draft of a new run.
    pub(crate) fn create_run(
        &mut self,
        tick: &mut Tick,
        new: NewRun,
        state: RunState,
        version: &Arc<Version>,
        by: &Asker,
    ) {
        let context = Arc::clone(&new.context);
        tick.grown = tick.grown.saturating_add(state.size());
        let at_once = new.queued_at >= context.run_after;
        let live = LiveRun::new(Arc::clone(&context), Arc::clone(version), state.state());
        let mut draft = Draft::new(live, state, new);
        draft.audit.push(audit::run("trigger_dag_run", by, &context, None));
        // Who was queued when it was due does not wait for the clock to reach the name that it was given.
        let due = if at_once {
            context.run_after.min(tick.now)
        } else {
            context.run_after
        };
        self.slots.run_created(&context, due);
        tick.order.push(context.key);
        tick.drafts.insert(context.key, draft);
        tick.transitions += 1;
    }
}
