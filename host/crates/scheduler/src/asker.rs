//! Who asks for a change.

use uuid::Uuid;

/// A person, or a part of the server itself.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// For the audit log.
    pub(crate) user: String,
    /// The row of the inbox that the request came as: settled by the tick that does what it asks.
    pub(crate) row: Option<Uuid>,
}

impl Asker {
    /// Who asks this very process.
    pub(crate) fn here(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            row: None,
        }
    }
}
