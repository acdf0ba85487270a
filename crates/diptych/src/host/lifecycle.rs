//! How a process begins and ends: ports, the line that says it is ready, signals, and how it feels meanwhile.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long streams may take to end once the process has been asked to stop.
pub const GRACE: Duration = Duration::from_millis(300);

/// Keeps the process small: with huge pages, which the allocator asks for, an idle node takes 65 MB instead of 10.
/// Call it before much is allocated; processes that are started from here inherit it.
pub fn without_huge_pages() {
    // An old kernel may not know the call; then the process is larger, and that is all.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Listens there. `flag` is what the user can change if the port is taken.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another address with {flag}"))
}

/// Tells whoever started the process that it listens, and where: one line on stdout.
pub fn announce(grpc: SocketAddr, http: Option<SocketAddr>) {
    let mut line = format!("ready grpc={grpc}");
    if let Some(http) = http {
        line.push_str(&format!(" http={http}"));
    }
    // Nobody may be listening any more; that is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Runs a server until it has ended by itself, or for [`GRACE`] after it should have.
pub async fn until_stopped<E>(shutdown: &Shutdown, serving: impl Future<Output = Result<(), E>>) -> anyhow::Result<()>
where
    anyhow::Error: From<E>,
{
    tokio::select! {
        result = serving => Ok(result?),
        () = async { shutdown.wait().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

/// Tells all parts of the process that it shall stop. Clones hear the same.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Stops at SIGTERM or SIGINT.
    pub fn on_signals() -> anyhow::Result<Shutdown> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
        Ok(Shutdown::when(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }))
    }

    /// Stops when the future is done.
    pub fn when(done: impl Future<Output = ()> + Send + 'static) -> Shutdown {
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            done.await;
            stop.send_replace(true);
        });
        Shutdown(stopped)
    }

    /// Returns once the process shall stop.
    pub async fn wait(&self) {
        // An error means that the runtime is on its way out.
        let _ = self.0.clone().wait_for(|&stop| stop).await;
    }

    /// Shall it stop?
    pub fn is_due(&self) -> bool {
        *self.0.borrow()
    }
}

/// Whether the process can serve, check by check, for `/readyz`. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl Health {
    /// Says how a check went last; a failed one says why. A check that was never set is not there.
    pub fn set(&self, check: &'static str, verdict: Result<(), String>) {
        self.0.lock().insert(check, verdict);
    }

    /// All checks by name.
    pub fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        self.0.lock().iter().map(|(&check, verdict)| (check, verdict.clone())).collect()
    }

    /// Do all checks pass?
    pub fn is_ready(&self) -> bool {
        self.0.lock().values().all(Result::is_ok)
    }
}
