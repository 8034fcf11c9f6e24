//! The broker's own ids of topics (KIP-516). A topic that was deleted and recreated
//! under the same name has a different id.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ptr;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::client::{ANSWER, Context};

/// The ids of the `topics` that the broker knows, by name, as 32 hexadecimal digits.
/// Brokers older than Kafka 2.8 have no ids. Blocks.
pub(crate) fn topic_ids(
    consumer: &BaseConsumer<Context>,
    topics: &[String],
) -> HashMap<String, String> {
    let names: Vec<_> =
        topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
    let found = ask(consumer, &names).into_iter().filter(|(_, bits)| *bits != 0);
    found.map(|(name, bits)| (name, format!("{bits:032x}"))).collect()
}

/// Calls `DescribeTopics` of the client library, which its Rust crate does not offer.
#[allow(unsafe_code, reason = "a call of librdkafka that the crate does not offer")]
fn ask(consumer: &BaseConsumer<Context>, names: &[CString]) -> Vec<(String, u128)> {
    let within_ms = i32::try_from(ANSWER.as_millis()).unwrap_or(i32::MAX);
    let client = consumer.client().native_ptr();
    let mut names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let mut ids = Vec::new();
    // SAFETY: `client` lives as long as `consumer`, which outlives this call, and
    // librdkafka's clients may be used by several threads. `names` holds as many
    // pointers as its length says, to texts that end in NUL and outlive the call, which
    // copies them. Collection, queue and event are created here, checked if they may be
    // null, used before they are destroyed, and destroyed once. If an answer arrives
    // after the queue was destroyed, the library drops it. Null options mean defaults.
    // The `count` descriptions, their names and ids belong to the event, and are copied
    // before it is destroyed.
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
