//! Records traces of events: which steps an event takes from its request to the feed, and when.
//! The spans are sent to a collector over OTLP (OpenTelemetry).
//!
//! This crate only observes. It must never change an event, a table or an answer, and it must
//! never wait for the collector in a thread that does other work.

mod config;
mod context;
mod export;
mod ingest;
mod ingested;
mod otlp;
mod publish;
mod queue;
mod span;
mod tracer;

pub use config::TracingConfig;
pub use context::TraceContext;
pub use export::Exporter;
pub use ingest::{IngestTrace, RequestTrace};
pub use tracer::Tracer;
