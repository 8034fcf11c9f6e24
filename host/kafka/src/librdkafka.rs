//! Calls functions of librdkafka that its Rust crate does not offer:
//!
//! * They return records in batches.
//! * They return the ids that the broker has given to topics (KIP-516). If a topic was deleted and
//!   recreated under the same name, it has another id.
//!
//! This file contains the only unsafe code of the crate. Several threads read records. Each has a
//! client of its own, and a [`RecordQueue`] is used only on the thread that created it.
#![allow(unsafe_code, reason = "calls of librdkafka that its crate does not offer")]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::Timestamp as RecordTime;
use rdkafka::bindings as sys;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::client::{ANSWER, Context};
use crate::record::Header;

/// The maximum number of records that one call takes from a queue.
const BATCH_RECORDS: usize = 128;

/// The records of one partition that a consumer has fetched. They are taken in batches, because
/// librdkafka creates an event object for a single record, which costs more than the record itself.
pub(crate) struct RecordQueue {
    /// The records that were taken from the queue of librdkafka. Records before the index `next`
    /// were returned to the caller, which may still borrow the last of them.
    records: Vec<NonNull<sys::rd_kafka_message_t>>,
    next: usize,
    native: NonNull<sys::rd_kafka_queue_t>,
    /// The partition's own queue. While it exists, the records of the partition do not go to the
    /// queue of the consumer itself, and new records are signalled.
    _partition: PartitionQueue<Context>,
    /// This is the last field, so it is dropped after the fields that use it.
    _consumer: Arc<BaseConsumer<Context>>,
}

impl RecordQueue {
    /// Creates the queue of a partition. When records arrive in an empty queue, `on_record` is
    /// called, on any thread. Returns `None` if there is no such partition.
    pub(crate) fn new(
        consumer: &Arc<BaseConsumer<Context>>,
        topic: &str,
        partition: i32,
        on_record: impl Fn() + Send + Sync + 'static,
    ) -> Option<Self> {
        let mut queue = consumer.split_partition_queue(topic, partition)?;
        queue.set_nonempty_callback(on_record);
        let topic = CString::new(topic).ok()?;
        let client = consumer.client().native_ptr();
        // SAFETY: `client` is valid as long as `consumer`, which `Self` keeps. `topic`
        // ends in NUL and outlives the call. The returned reference to the queue is
        // released in `drop`.
        let native =
            unsafe { sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition) };
        Some(Self {
            records: Vec::with_capacity(BATCH_RECORDS),
            next: 0,
            native: NonNull::new(native)?,
            _partition: queue,
            _consumer: Arc::clone(consumer),
        })
    }

    /// Returns the next record or error, if one has arrived. It does not wait.
    pub(crate) fn take(&mut self) -> Option<Record<'_>> {
        if self.next == self.records.len() {
            self.refill();
        }
        let message = self.records.get(self.next)?;
        self.next += 1;
        // SAFETY: librdkafka filled the pointer with a message that is valid until it is
        // destroyed. Only `clear` destroys it, which needs `&mut self` and so cannot run
        // while the record is borrowed. Only this queue has a pointer to it.
        Some(Record { message: unsafe { message.as_ref() } })
    }

    fn refill(&mut self) {
        self.clear();
        let mut messages = [ptr::null_mut(); BATCH_RECORDS];
        // SAFETY: `native` is valid until `drop`, and `messages` has room for as many
        // pointers as its length says. Only this thread takes from the queue.
        let count = unsafe {
            let queue = self.native.as_ptr();
            sys::rd_kafka_consume_batch_queue(queue, 0, messages.as_mut_ptr(), messages.len())
        };
        // A negative number means that the call failed. Then there are no records.
        let count = usize::try_from(count).unwrap_or(0);
        self.records.extend(messages.into_iter().take(count).filter_map(NonNull::new));
    }

    /// Drops all records that were taken from the queue. A seek needs this: the records that were
    /// not returned yet belong to the previous offset.
    pub(crate) fn clear(&mut self) {
        self.next = 0;
        for message in self.records.drain(..) {
            // SAFETY: each message is destroyed once, since `drain` removes it, and no
            // record borrows it, since this needs `&mut self`.
            unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) }
        }
    }
}

impl Drop for RecordQueue {
    fn drop(&mut self) {
        self.clear();
        // SAFETY: this reference to the queue was created in `new`, and is not used after
        // this. The consumer lives until after this call.
        unsafe { sys::rd_kafka_queue_destroy(self.native.as_ptr()) }
    }
}

/// A record of a partition, or an error of the partition.
pub(crate) struct Record<'q> {
    message: &'q sys::rd_kafka_message_t,
}

impl<'q> Record<'q> {
    /// Returns the error; `None` if this is a record.
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        (self.message.err != none).then(|| self.message.err.into())
    }

    pub(crate) fn offset(&self) -> i64 {
        self.message.offset
    }

    pub(crate) fn key(&self) -> Option<&'q [u8]> {
        // SAFETY: librdkafka's key has `key_len` bytes, which live as long as the
        // message.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    pub(crate) fn payload(&self) -> Option<&'q [u8]> {
        // SAFETY: librdkafka's payload has `len` bytes, which live as long as the
        // message.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    pub(crate) fn time(&self) -> RecordTime {
        use sys::rd_kafka_timestamp_type_t as Kind;
        let mut kind = Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, and `kind` outlives the call.
        let time = unsafe { sys::rd_kafka_message_timestamp(self.message, &raw mut kind) };
        match kind {
            _ if time == -1 => RecordTime::NotAvailable,
            Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => RecordTime::NotAvailable,
            Kind::RD_KAFKA_TIMESTAMP_CREATE_TIME => RecordTime::CreateTime(time),
            Kind::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => RecordTime::LogAppendTime(time),
        }
    }

    pub(crate) fn headers(&self) -> RecordHeaders<'q> {
        let mut native = ptr::null_mut();
        // SAFETY: the message is valid, and `native` outlives the call. The headers belong to the
        // message. If there are none, the pointer stays null. The call may parse the headers, which
        // changes the message behind the shared reference. This is sound, because only this thread
        // has the message, and `Record` reads none of the changed fields.
        unsafe { sys::rd_kafka_message_headers(self.message, &raw mut native) };
        RecordHeaders { native: NonNull::new(native), record: PhantomData }
    }
}

/// # Safety
/// `start` is null or points to `len` bytes that live for `'q`.
unsafe fn bytes<'q>(start: *const c_void, len: usize) -> Option<&'q [u8]> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast(), len) })
}

/// The headers of a record.
pub(crate) struct RecordHeaders<'q> {
    native: Option<NonNull<sys::rd_kafka_headers_t>>,
    record: PhantomData<&'q ()>,
}

impl Header for RecordHeaders<'_> {
    fn count(&self) -> usize {
        // SAFETY: the headers live as long as the record.
        self.native.map_or(0, |native| unsafe { sys::rd_kafka_header_cnt(native.as_ptr()) })
    }

    fn at(&self, index: usize) -> Option<(&str, Option<&[u8]>)> {
        let native = self.native?.as_ptr();
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers live as long as the record, and the other pointers outlive
        // the call. If the call returns no error, the name ends in NUL, the value is null
        // or has `len` bytes, and name and value live as long as the headers.
        unsafe {
            let error = sys::rd_kafka_header_get_all(
                native,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut len,
            );
            if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            Some((CStr::from_ptr(name).to_str().ok()?, bytes(value, len)))
        }
    }
}

/// Returns the ids of those `topics` that the broker knows, by their names, as 32 hexadecimal
/// digits. Brokers before Kafka 2.8 have no ids. The call blocks.
pub(crate) fn topic_ids(
    consumer: &BaseConsumer<Context>,
    topics: &[String],
) -> HashMap<String, String> {
    let names: Vec<_> =
        topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
    let found = ask(consumer, &names).into_iter().filter(|(_, bits)| *bits != 0);
    found.map(|(name, bits)| (name, format!("{bits:032x}"))).collect()
}

/// Calls the function `DescribeTopics` of librdkafka, which its Rust crate does not offer.
fn ask(consumer: &BaseConsumer<Context>, names: &[CString]) -> Vec<(String, u128)> {
    let within_ms = i32::try_from(ANSWER.as_millis()).unwrap_or(i32::MAX);
    let client = consumer.client().native_ptr();
    let mut names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let mut ids = Vec::new();
    // SAFETY:
    //
    // * `client` lives as long as `consumer`, which outlives this call. Several threads may use a
    //   client of librdkafka.
    // * `names` holds as many pointers as its length says. They point to texts that end in NUL and
    //   outlive the call, which copies them.
    // * Collection, queue and event are created here. Each of them is compared with null if it may
    //   be null. It is used only before it is destroyed, and destroyed once.
    // * If an answer arrives after the queue was destroyed, the library drops the answer.
    // * Null options mean defaults.
    // * The `count` descriptions, with their names and ids, belong to the event. They are copied
    //   before the event is destroyed.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        sys::rd_kafka_DescribeTopics(client, topics, ptr::null(), queue);
        sys::rd_kafka_TopicCollection_destroy(topics);
        let event = sys::rd_kafka_queue_poll(queue, within_ms);
        if !event.is_null() {
            let result = sys::rd_kafka_event_DescribeTopics_result(event);
            if !result.is_null() {
                let mut count = 0;
                let found = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
                for index in 0..count {
                    let topic = *found.add(index);
                    let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(topic));
                    let id = sys::rd_kafka_TopicDescription_topic_id(topic);
                    let high = sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
                    let low = sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
                    let bits = u128::from(high) << 64 | u128::from(low);
                    ids.push((name.to_string_lossy().into_owned(), bits));
                }
            }
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
    }
    ids
}
