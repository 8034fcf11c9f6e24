//! Defines a macro for types that wrap a log: it implements the methods that only forward the call
//! to the inner log.

/// Implements the named methods of [`lantern_core::Log`] by calls of the same methods of
/// `self.inner`. The wrapper implements the other methods itself.
macro_rules! forward_log {
    ($($method:ident),* $(,)?) => { $($crate::forward_log::forward_log!(@$method);)* };
    (@partitions) => {
        fn partitions(&self) -> u32 {
            self.inner.partitions()
        }
    };
    (@bounds) => {
        fn bounds(
            &self,
            partition: lantern_core::PartitionId,
        ) -> Result<lantern_core::PartitionBounds, lantern_core::LogError> {
            self.inner.bounds(partition)
        }
    };
    (@read) => {
        fn read(
            &self,
            partition: lantern_core::PartitionId,
            from: lantern_core::Offset,
            types: &lantern_core::TypeFilter,
        ) -> Result<lantern_core::LogRead, lantern_core::LogError> {
            self.inner.read(partition, from, types)
        }
    };
    (@offset_at) => {
        fn offset_at(
            &self,
            partition: lantern_core::PartitionId,
            time: lantern_core::Timestamp,
        ) -> Result<lantern_core::Offset, lantern_core::LogError> {
            self.inner.offset_at(partition, time)
        }
    };
    (@on_append) => {
        fn on_append(&self, waker: lantern_core::Waker) {
            self.inner.on_append(waker);
        }
    };
    (@incarnation_at) => {
        fn incarnation_at(
            &self,
            partition: lantern_core::PartitionId,
            offset: lantern_core::Offset,
        ) -> Option<u64> {
            self.inner.incarnation_at(partition, offset)
        }
    };
}

pub(crate) use forward_log;
