//! Labels: one metric for each of a few values, all known in advance.
//!
//! Invariants:
//! - Every value is exposed from the start, at 0, so that a rate includes its first increase and an alert
//!   can tell "never" from "unknown".
//! - Counting neither allocates nor locks. Cardinality is fixed by [`Label::all`]: nothing from outside, such
//!   as a call's id, can become a value.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::{MetricType, TypedMetric};

pub trait Label: Copy + PartialEq + fmt::Debug + Send + Sync + 'static {
    fn all() -> Vec<Self>;

    /// Label names, each with its value.
    fn pairs(self) -> Vec<(&'static str, &'static str)>;
}

/// One metric for each value of a label.
#[derive(Clone, Debug)]
pub struct Each<L, M = Counter>(Arc<[(L, M)]>);

impl<L: Label, M> Each<L, M> {
    pub fn made_by(make: impl Fn() -> M) -> Self {
        Self(L::all().into_iter().map(|label| (label, make())).collect())
    }

    pub fn of(&self, label: L) -> &M {
        let found = self.0.iter().find(|(known, _)| *known == label);
        debug_assert!(found.is_some(), "{label:?} is missing among all values");
        &found.unwrap_or(&self.0[0]).1
    }
}

impl<L: Label> Each<L> {
    pub fn count(&self, label: L) {
        self.of(label).inc();
    }

    pub fn sum(&self) -> u64 {
        self.0.iter().map(|(_, counter)| counter.get()).sum()
    }
}

impl<L: Label, M: Default> Default for Each<L, M> {
    fn default() -> Self {
        Self::made_by(M::default)
    }
}

/// A metric of each receiver, under the label `receiver`.
#[derive(Debug)]
pub struct ByReceiver<M>(Vec<(String, M)>);

impl<M> ByReceiver<M> {
    /// Each with its receiver's name.
    pub fn new(metrics: impl IntoIterator<Item = (String, M)>) -> Self {
        Self(metrics.into_iter().collect())
    }
}

/// What can be told apart by a label before its own, if it has any.
pub trait EncodeUnder {
    const TYPE: MetricType;

    /// # Errors
    /// None known: writing to a string does not fail.
    fn encode_under(&self, label: (&str, &str), encoder: &mut MetricEncoder<'_>) -> fmt::Result;
}

impl<M: EncodeMetric + TypedMetric> EncodeUnder for M {
    const TYPE: MetricType = M::TYPE;

    fn encode_under(&self, label: (&str, &str), encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        self.encode(encoder.encode_family(&[label])?)
    }
}

impl<L: Label, M: EncodeMetric + TypedMetric> EncodeUnder for Each<L, M> {
    const TYPE: MetricType = M::TYPE;

    fn encode_under(&self, label: (&str, &str), encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        for (own, metric) in &*self.0 {
            let labels: Vec<_> = [label].into_iter().chain(own.pairs()).collect();
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl<M: EncodeUnder> EncodeMetric for ByReceiver<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, metric) in &self.0 {
            metric.encode_under(("receiver", name), &mut encoder)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

impl<L: Label, M: EncodeMetric + TypedMetric> EncodeMetric for Each<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (label, metric) in &*self.0 {
            metric.encode(encoder.encode_family(&label.pairs())?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
