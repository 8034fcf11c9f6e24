//! Tests Kafka as the log. The other tests of this suite can also run over Kafka; the tests here
//! cover features and faults that exist only with Kafka. All of them use real brokers and Kafka's
//! own tools.

mod broker;
mod cases;
mod changes;
mod flights;
mod secured;
mod times;
mod tools;

use lantern_tests::{Server, kafka, without};

/// Returns whether Kafka is missing. In this case a line is printed that reports it.
fn no_kafka() -> bool {
    if without("kafka") {
        println!("skipped: no Kafka");
    }
    without("kafka")
}

/// Starts a server over a new topic with `partitions` partitions on the shared broker. Returns the
/// server and the topic's name.
fn over(partitions: u32, settings: &[&str]) -> (Server, String) {
    let topic = kafka::fresh_name("kafka");
    kafka::create_topic(kafka::shared(), &topic, partitions, &[]).unwrap();
    (serve(&topic, settings), topic)
}

/// Starts a server over a topic of the shared broker.
fn serve(topic: &str, settings: &[&str]) -> Server {
    let log = format!("kafka://{}/{topic}", kafka::shared().address());
    Server::start_over(Some(&log), settings).unwrap()
}
