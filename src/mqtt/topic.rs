//! Topic names and filters (MQTT 5.0 section 4.7).

use super::broker::Settings;

/// Whether a filter is well formed: `#` alone in the last level, `+` alone in its level
/// [MQTT-4.7.1-1] [MQTT-4.7.1-2], no NUL, not empty [MQTT-4.7.3-1] [MQTT-4.7.3-2].
pub(super) fn filtro_valido(filtro: &str) -> bool {
    if filtro.is_empty() || filtro.contains('\0') {
        return false;
    }
    let niveles = filtro.split('/').count();
    filtro.split('/').enumerate().all(|(i, nivel)| match nivel {
        "#" => i + 1 == niveles,
        "+" => true,
        otro => !otro.contains(['#', '+']),
    })
}

/// (group, filter) of a shared subscription `$share/group/filter` [MQTT-4.8.2-1].
pub(super) fn compartido(filtro: &str) -> Option<(&str, &str)> {
    filtro.strip_prefix("$share/")?.split_once('/')
}

/// Whether a shared subscription names a group and a filter as it must [MQTT-4.8.2-1]
/// [MQTT-4.8.2-2].
pub(super) fn grupo_valido(filtro: &str) -> bool {
    compartido(filtro)
        .is_some_and(|(grupo, f)| !grupo.is_empty() && !grupo.contains(['+', '#']) && filtro_valido(f))
}

/// Whether a filter is one that no topic leads to: it has a `+` before its last level. All others are
/// found by [`claves`].
pub(super) fn con_hueco(filtro: &str) -> bool {
    filtro.rsplit_once('/').is_some_and(|(antes, _)| antes.split('/').any(|nivel| nivel == "+"))
}

/// Whether a subscription is heard by way of the router.
pub(super) fn por_router(filtro: &str) -> bool {
    compartido(filtro).is_none() && con_hueco(filtro)
}

/// Calls `ve` with every filter without a gap ([`con_hueco`]) that matches `topic`, and with `#` and `+`
/// of a `$…` too, which do not: one look-up each instead of a comparison with every filter there is.
pub(super) fn claves(topic: &str, mut ve: impl FnMut(&str)) {
    let mut clave = String::with_capacity(topic.len() + 2);
    clave.push_str(topic);
    ve(&clave);
    clave.push_str("/#");
    ve(&clave);
    let mut hasta = topic;
    let mut ultimo = true;
    while let Some((antes, _)) = hasta.rsplit_once('/') {
        for comodin in if ultimo { &["/+", "/#"][..] } else { &["/#"] } {
            clave.truncate(antes.len());
            clave.push_str(comodin);
            ve(&clave);
        }
        (hasta, ultimo) = (antes, false);
    }
    if ultimo {
        ve("+");
    }
    ve("#");
}

/// Whether a name may be published to: no wildcard [MQTT-3.3.2-2], no NUL, not empty.
pub(super) fn nombre_valido(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['#', '+', '\0'])
}

/// Whether a name or a filter is longer or deeper than the settings let it be.
pub(super) fn excede(topic: &str, s: &Settings) -> bool {
    topic.len() > s.max_topic_bytes || topic.split('/').count() > s.max_topic_levels
}

/// Whether a filter matches a name. A leading wildcard does not match `$…` [MQTT-4.7.2-1].
pub(super) fn coincide(filtro: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filtro.starts_with(['#', '+']) {
        return false;
    }
    let (mut filtros, mut niveles) = (filtro.split('/'), topic.split('/'));
    loop {
        match (filtros.next(), niveles.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(n)) if f == n => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_leads_to_the_filters_without_a_gap_that_match_it_and_to_no_other() {
        let niveles = ["a", "", "+", "#"];
        let mut filtros: Vec<String> = niveles.map(str::to_owned).to_vec();
        for _ in 0..3 {
            let largos: Vec<String> =
                filtros.iter().flat_map(|f| niveles.map(|n| format!("{f}/{n}"))).collect();
            filtros.extend(largos);
        }
        filtros.retain(|f| filtro_valido(f) && !con_hueco(f));
        for topic in ["a", "/", "a/a", "a/a/a", "/a", "a//a", "a/", "a/a/a/a"] {
            let mut hallados = Vec::new();
            claves(topic, |clave| hallados.push(clave.to_owned()));
            for filtro in &filtros {
                assert_eq!(coincide(filtro, topic), hallados.contains(filtro), "{filtro} {topic}");
            }
            let veces = |f| hallados.iter().filter(|h| *h == f).count();
            assert!(hallados.iter().all(|f| veces(f) == 1 && !con_hueco(f)), "{topic}: {hallados:?}");
        }
        assert!(con_hueco("a/+/b") && con_hueco("+/#") && con_hueco("+/"));
        assert!(!con_hueco("+") && !con_hueco("#") && !con_hueco("a/+") && !con_hueco("a/#"));
    }

    #[test]
    fn matching_follows_the_specification() {
        // Examples of MQTT 5.0 section 4.7.1.
        for (filtro, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "a/b"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/uptime"),
            ("a/+/c", "a//c"),
        ] {
            assert!(coincide(filtro, topic), "{filtro} {topic}");
        }
        for (filtro, topic) in [
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/uptime"),
            ("+/uptime", "$SYS/uptime"),
            ("a/b", "a/b/c"),
            ("a/b/c", "a/b"),
            ("A", "a"),
        ] {
            assert!(!coincide(filtro, topic), "{filtro} {topic}");
        }
    }

    #[test]
    fn malformed_filters_are_seen() {
        for bad in ["", "a/#/b", "a#", "a+/b", "a\0", "#/"] {
            assert!(!filtro_valido(bad), "{bad:?}");
        }
        for good in ["#", "+", "a/+/b/#", "/", "a//b"] {
            assert!(filtro_valido(good), "{good:?}");
        }
    }
}
