//! The kernel side's own rare messages: off unless `RUST_LOG` asks for debug output.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::LevelFilter;
use tokio::io::unix::AsyncFd;

/// The level that user space logs at, as the kernel side understands it: 0 (off) to 5.
#[must_use]
pub fn level() -> u8 {
    match log::max_level() {
        LevelFilter::Off => 0,
        LevelFilter::Error => 1,
        LevelFilter::Warn => 2,
        LevelFilter::Info => 3,
        LevelFilter::Debug => 4,
        LevelFilter::Trace => 5,
    }
}

/// Hands the kernel side's messages to the logger for as long as the runtime runs. Without
/// a runtime (a capture of a moment) nobody waits for them.
pub fn start(ebpf: &mut Ebpf, level: u8) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    if level == 0 {
        return;
    }
    let logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => {
            log::warn!("the kernel side's messages cannot be shown: {error}");
            return;
        }
    };
    runtime.spawn(async move {
        if let Err(error) = forward(logger).await {
            log::warn!("the kernel side's messages are shown no longer: {error}");
        }
    });
}

async fn forward(logger: EbpfLogger<&'static dyn log::Log>) -> io::Result<()> {
    // SAFETY: the logger owns its descriptor and keeps it open until it is dropped, which
    // is after the registration ends.
    let mut logger =
        unsafe { AsyncFd::register_with_interest(logger, tokio::io::Interest::READABLE) }?;
    loop {
        let mut guard = logger.readable_mut().await?;
        guard.get_inner_mut().flush();
        guard.clear_ready();
    }
}
