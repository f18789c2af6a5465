//! Keeping the lease: renewed three times in its time to live, by a task of its own, so that a long commit cannot delay it.

use std::sync::Arc;

use ports::store::CommitError;

use crate::inbox::Message;
use crate::shared::Shared;

/// Renews until another scheduler has the lease; dropped (aborted) when the loop ends.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let Some(lease) = shared.lease.get() else { return };
    let ttl = shared.config.lease_ttl;
    loop {
        tokio::time::sleep(ttl / 3).await;
        let now = shared.clock.now();
        match shared.store.renew_lease(lease, now, now.plus(ttl)).await {
            Ok(()) => shared.condition().heartbeat = Some(shared.clock.now()),
            Err(CommitError::Fenced) => {
                let _ = shared.inbox.send(Message::Fenced);
                return;
            }
            // Every commit checks the epoch, so a late renewal endangers nothing.
            Err(error) => tracing::warn!(%error, "could not renew the lease"),
        }
    }
}
