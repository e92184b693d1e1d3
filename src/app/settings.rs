//! What each part is told of the configuration, in its own terms.

use std::time::Duration;

use crate::config::Config;
use crate::ingest::decode::Limites;
use crate::{api, ingest, mantenimiento, mqtt};

pub(super) fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

pub(super) fn retention(config: &Config) -> Duration {
    days(config.store.retention_days)
}

fn limites(config: &Config) -> Limites {
    Limites { adelanto: Duration::from_secs(config.ingest.clock_skew_s), retencion: retention(config) }
}

pub(super) fn ingest_settings(config: &Config) -> ingest::Ajustes {
    ingest::Ajustes {
        cola: config.ingest.queue,
        lote: config.ingest.max_batch,
        rechazos_por_sensor: i64::from(config.ingest.rejected_per_sensor),
    }
}

pub(super) fn maintenance_settings(config: &Config) -> mantenimiento::Ajustes {
    mantenimiento::Ajustes {
        lecturas: days(config.store.retention_days),
        horas: days(config.store.hourly_retention_days),
        rechazos: days(config.ingest.rejected_days),
        auditoria: days(config.store.audit_days),
        disco: config.store.max_bytes,
    }
}

pub(super) fn mqtt_settings(config: &Config) -> mqtt::Settings {
    let m = &config.mqtt;
    mqtt::Settings {
        open: m.open,
        open_refused: m.open_refused.clone(),
        legacy: m.legacy,
        max_connections: m.max_connections,
        max_connections_per_address: m.max_connections_per_address,
        connect_deadline: Duration::from_secs(m.connect_deadline_s),
        handshake_deadline: Duration::from_secs(m.handshake_deadline_s),
        sign_in_failures: m.sign_in_failures,
        sign_in_wait: Duration::from_secs(m.sign_in_wait_s),
        proxy_from: m.proxy_from.clone(),
        max_packet: m.max_packet_bytes,
        receive_maximum: m.receive_maximum,
        max_session_expiry: m.max_session_expiry_s,
        max_sessions_per_client: m.max_sessions_per_client,
        max_queued: m.max_queued_messages,
        max_queued_bytes: m.max_queued_bytes,
        max_keep_alive: m.max_keep_alive_s,
        max_messages_per_s: m.max_messages_per_s,
        max_bytes_per_s: m.max_bytes_per_s,
        rate_patience: Duration::from_secs(m.rate_patience_s),
        sys_interval: Duration::from_secs(m.sys_interval_s),
        max_topic_levels: m.max_topic_levels,
        max_topic_bytes: m.max_topic_bytes,
        max_subscriptions: m.max_subscriptions,
        max_filters: m.max_filters,
        max_retained: m.max_retained,
        limites: limites(config),
    }
}

pub(super) fn api_settings(config: &Config) -> api::Settings {
    let h = &config.http;
    api::Settings {
        allowed_origins: h.allowed_origins.clone(),
        body_limit: h.body_limit_bytes,
        timeout: Duration::from_secs(h.timeout_s),
        // The other half is for what follows: sessions, the writer, the store.
        grace: Duration::from_secs(config.shutdown.deadline_s) / 2,
        connections_per_address: h.max_connections_per_address,
        rates: api::RateLimits {
            per_address: h.max_requests_per_address_per_s,
            per_token: h.max_requests_per_token_per_s,
            sign_ins: h.max_sign_ins_per_address_per_min,
        },
        behind_proxy: h.behind_proxy,
        mqtt_packet: config.mqtt.max_packet_bytes as usize,
        max_sockets: h.max_sockets,
        socket_queue: h.socket_queue,
        limites: limites(config),
        compat: config
            .identity
            .supabase_compat
            .as_ref()
            .map(|c| api::CompatKeys { anon: c.key.clone(), service_role: c.service_role_key.clone() }),
    }
}
