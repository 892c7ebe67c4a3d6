//! The spans of the operator's work, each with its object, the generation that it brought or saw, and its outcome.

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Status, Tracer as _};
use opentelemetry_sdk::trace::Span;

use crate::routing::table::ObjectKey;
use crate::spans::tracer;

/// Work under way; nothing while traces are off. Work that is given up (the term or the process ends) is a span without an outcome.
pub struct WorkSpan(Option<Span>);

impl WorkSpan {
    /// Work on an object of a kind begins.
    pub fn begin(work: &'static str, kind: &'static str, object: &ObjectKey) -> Self {
        Self(tracer().map(|tracer| {
            let attributes = [
                KeyValue::new("k8s.resource.kind", kind),
                KeyValue::new("k8s.namespace.name", object.namespace.clone()),
                KeyValue::new("k8s.resource.name", object.name.clone()),
            ];
            tracer.build(tracer.span_builder(work).with_attributes(attributes))
        }))
    }

    /// It is over. `done` is what came of it in a word, or why it failed.
    pub fn end(self, generation: Option<i64>, done: Result<&'static str, &dyn std::fmt::Display>) {
        let Some(mut span) = self.0 else { return };
        span.set_attributes(generation.map(|generation| KeyValue::new("voicedock.generation", generation)));
        let (outcome, status) = match done {
            Ok(outcome) => (outcome, Status::Ok),
            Err(error) => ("failed", Status::error(error.to_string())),
        };
        span.set_attribute(KeyValue::new("voicedock.outcome", outcome));
        span.set_status(status);
        span.end();
    }
}

/// A compile that has begun at `begun` and judged so many objects anew.
pub fn compiled(begun: std::time::SystemTime, verdicts: usize) {
    let Some(tracer) = tracer() else { return };
    let verdicts = KeyValue::new("voicedock.verdicts", verdicts as i64);
    tracer.build(tracer.span_builder("compile").with_start_time(begun).with_attributes([verdicts])).end();
}
