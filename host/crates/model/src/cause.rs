//! Why a try ended.

use crate::state::text_enum;

text_enum! {
    /// How a try ended. It is classified once, by the runtime (or by the scheduler where no executor can say).
    Cause {
        /// The task answered: done, skip, branch or reschedule.
        Returned = "returned",
        /// The task returned a failure.
        Failed = "failed",
        /// The guest trapped: a panic, an unreachable instruction, a stack overflow, memory out of bounds.
        Trapped = "trapped",
        /// The limiter refused a growth of memory or tables in this try, and it ended by a trap.
        OutOfMemory = "out_of_memory",
        /// The CPU time limit was reached.
        CpuExhausted = "cpu_exhausted",
        /// The wall time limit was reached.
        TimedOut = "timed_out",
        /// A person or a program cancelled it.
        Cancelled = "cancelled",
        /// A host call was denied, and the try ended by a trap or by a failure with the code `denied`.
        Denied = "denied",
        /// Its log or its output went over a limit.
        OutputLimit = "output_limit",
        /// The input could not be rendered or does not match the task's input schema.
        InputInvalid = "input_invalid",
        /// The component broke the contract: invalid JSON, an output against its schema, an unknown label.
        ContractViolation = "contract_violation",
        /// The component could not be loaded or instantiated.
        LoadFailed = "load_failed",
        /// The executor was lost more often than `max_infra_retries` allows.
        InfrastructureLost = "infrastructure_lost",
    }
}
