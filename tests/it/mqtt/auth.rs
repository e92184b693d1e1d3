//! Enhanced authentication (sections 3.15 and 4.12), which this server does not offer.

use super::broker;
use super::wire::{AUTH_DATA, AUTH_METHOD, Connect, Verdicts, binary, packet, string};

#[tokio::test]
async fn an_authentication_method_is_refused() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    let method = Connect::new(5, "a").with(string(AUTH_METHOD, "SCRAM-SHA-1"));
    // [5.0 MQTT-4.12.0-1]
    verdicts.refuses(&server, 5, &method.bytes(), 0x8c, "a method").await;
    let data = method.with(binary(AUTH_DATA, b"client-first"));
    verdicts.refuses(&server, 5, &data.bytes(), 0x8c, "a method with data").await;
    // Data without a method is a Protocol Error (section 3.1.2.11.10).
    let alone = Connect::new(5, "a").with(binary(AUTH_DATA, b"x"));
    verdicts.refuses(&server, 5, &alone.bytes(), 0x82, "data without a method").await;
    verdicts.close();
}

#[tokio::test]
async fn an_auth_packet_ends_the_connection() {
    let server = broker().await;
    let mut verdicts = Verdicts::default();
    for auth in [packet(0xf0, &[]), packet(0xf0, &[0x19, 4, AUTH_METHOD, 0, 1, b'm'])] {
        // [5.0 MQTT-4.13.1-1] [5.0 MQTT-4.12.0-6]: an error, and no AUTH in answer.
        verdicts.ends(&server, 5, &auth, &[0x81, 0x82], "AUTH").await;
    }
    // 3.1.1 knows no such packet. [3.1.1 MQTT-4.8.0-1]
    verdicts.ends(&server, 4, &packet(0xf0, &[]), &[], "AUTH").await;
    verdicts.close();
}
