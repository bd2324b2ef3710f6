//! The metrics' endpoint, which a reload may move.

use std::{sync::Arc, thread};

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use crate::{
    metrics::{Listen, Metrics, Server},
    privileges::{self, Duty},
};

/// Metrics that are served, from a thread of its own: a scrape takes no time of the capture's.
/// Dropped, it ends.
pub(super) struct Endpoint {
    pub(super) listen: Listen,
    _stop: oneshot::Sender<()>,
}

impl Endpoint {
    /// Listens there, or says why it cannot.
    pub(super) fn start(metrics: &Arc<Metrics>, listen: &Listen) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the metrics' runtime")?;
        let bound = {
            let _entered = runtime.enter();
            Server::bind(listen)
        };
        let server = match bound {
            Ok(server) => server,
            Err(error) => {
                // It must not be waited for within the capture's own.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let metrics = Arc::clone(metrics);
        thread::Builder::new()
            .name("turnaway-metrics".to_owned())
            .spawn(move || {
                privileges::keep(Duty::Serve);
                runtime.block_on(async {
                    tokio::select! {
                        () = server.run(metrics) => {}
                        _ = stopped => {}
                    }
                });
            })
            .context("cannot start a thread to serve metrics")?;
        Ok(Self {
            listen: listen.clone(),
            _stop: stop,
        })
    }
}
