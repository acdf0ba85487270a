//! Counts and times calls: `diptych_rpc_requests_total` and `diptych_rpc_duration_seconds`.

use std::future::Future;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};
use tonic::{Code, Status};

/// The meter of one method. Handles are kept: looking them up costs more than the rest.
pub struct Meter {
    service: &'static str,
    method: &'static str,
    ok: Counter,
    duration: Histogram,
}

impl Meter {
    /// For that method.
    pub fn new(service: &'static str, method: &'static str) -> Meter {
        let ok = counter!("diptych_rpc_requests_total", "service" => service, "method" => method, "code" => "Ok");
        let duration = histogram!("diptych_rpc_duration_seconds", "service" => service, "method" => method);
        Meter { service, method, ok, duration }
    }

    /// Counts and times a call.
    pub async fn measure<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let begun = Instant::now();
        let result = call.await;
        self.duration.record(begun.elapsed());
        match &result {
            Ok(_) => self.ok.increment(1),
            Err(status) => self.failed(status.code(), 1),
        }
        result
    }

    /// Counts so many answers without timing them.
    pub fn answered(&self, count: u64) {
        self.ok.increment(count);
    }

    /// Counts failures.
    pub fn failed(&self, code: Code, count: u64) {
        let (service, method) = (self.service, self.method);
        counter!("diptych_rpc_requests_total", "service" => service, "method" => method, "code" => format!("{code:?}"))
            .increment(count);
    }
}
