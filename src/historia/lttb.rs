//! Largest-Triangle-Three-Buckets: a curve of few points that looks like the one of many.
//!
//! Sveinn Steinarsson, *Downsampling Time Series for Visual Representation*, University of Iceland, 2013,
//! section 4.2: the first and the last point stay; of each bucket between them the point stays that makes
//! the largest triangle with the one chosen before and the mean of the next bucket.
//!
//! Added to it: the smallest and the largest of all points stay, whatever else lies in their bucket.

use crate::domain::Timestamp;

/// A point of a curve.
pub type Punto = (Timestamp, f64);

/// At most `cuantos` of `puntos`, which are in order of time; among 4 or more, the smallest and the largest. Those
/// given come back unchanged when they are no more than that; fewer than 2 are never asked for.
#[must_use]
pub fn reduce(puntos: &[Punto], cuantos: usize) -> Vec<Punto> {
    let cuantos = cuantos.max(2);
    let (Some(primero), Some(ultimo)) = (puntos.first(), puntos.last()) else { return Vec::new() };
    if puntos.len() <= cuantos {
        return puntos.to_vec();
    }
    let (cubetas, dentro) = (cuantos - 2, puntos.len() - 2);
    // Bucket i of the points between the first and the last, as even as integers allow.
    let limite = |i: usize| 1 + i * dentro / cubetas.max(1);
    let fijos = fijos(puntos, cubetas, limite);
    let mut elegidos = Vec::with_capacity(cuantos);
    elegidos.push(*primero);
    let mut anterior = *primero;
    for i in 0..cubetas {
        let siguiente = match puntos.get(limite(i + 1)..limite(i + 2).min(puntos.len() - 1)) {
            Some(cubeta) if i + 1 < cubetas && !cubeta.is_empty() => media(cubeta, *primero),
            _ => (x(*ultimo, *primero), ultimo.1),
        };
        if let Some((_, fijo)) = fijos.iter().flatten().find(|(cubeta, _)| *cubeta == i) {
            anterior = *fijo;
            elegidos.push(anterior);
            continue;
        }
        let a = (x(anterior, *primero), anterior.1);
        let mut mejor = (-1.0, anterior);
        for p in &puntos[limite(i)..limite(i + 1)] {
            let area = triangulo(a, (x(*p, *primero), p.1), siguiente);
            if area > mejor.0 {
                mejor = (area, *p);
            }
        }
        anterior = mejor.1;
        elegidos.push(anterior);
    }
    elegidos.push(*ultimo);
    elegidos
}

/// The smallest and the largest point, and whose bucket's place each takes: its own's, or, where both are in one,
/// the place beside it, so that all stay in order. `None` = it stays anyhow, being the first or the last of all.
fn fijos(puntos: &[Punto], cubetas: usize, limite: impl Fn(usize) -> usize) -> [Option<(usize, Punto)>; 2] {
    if cubetas < 2 {
        return [None; 2];
    }
    let (mut menor, mut mayor) = (0, 0);
    for (i, (_, valor)) in puntos.iter().enumerate() {
        if *valor < puntos[menor].1 {
            menor = i;
        }
        if *valor > puntos[mayor].1 {
            mayor = i;
        }
    }
    let cubeta = |i: usize| {
        let dentro = i > 0 && i + 1 < puntos.len();
        dentro.then(|| (0..cubetas).find(|c| i < limite(c + 1)).unwrap_or(cubetas - 1))
    };
    let [antes, despues] = [menor.min(mayor), menor.max(mayor)];
    let (mut una, mut otra) = (cubeta(antes), cubeta(despues));
    if antes != despues
        && let (Some(a), Some(b)) = (&mut una, &mut otra)
        && a == b
    {
        if *b + 1 < cubetas {
            *b += 1;
        } else {
            *a -= 1;
        }
    }
    [una.map(|c| (c, puntos[antes])), otra.map(|c| (c, puntos[despues]))]
}

/// Time as a number that triangles can be made of: exact, counted from the first point.
#[expect(clippy::cast_precision_loss, reason = "only the largest of some areas is wanted")]
fn x(p: Punto, primero: Punto) -> f64 {
    (p.0.micros() - primero.0.micros()) as f64
}

#[expect(clippy::cast_precision_loss, reason = "a count of points")]
fn media(cubeta: &[Punto], primero: Punto) -> (f64, f64) {
    let n = cubeta.len() as f64;
    let (mut mx, mut my) = (0.0, 0.0);
    for p in cubeta {
        mx += x(*p, primero) / n;
        my += p.1 / n;
    }
    (mx, my)
}

/// Twice the area, which orders the same. Values may be as large as doubles are: what overflows is large.
fn triangulo(a: (f64, f64), b: (f64, f64), c: (f64, f64)) -> f64 {
    let area = ((a.0 - c.0) * (b.1 - a.1) - (a.0 - b.0) * (c.1 - a.1)).abs();
    if area.is_nan() { 0.0 } else { area }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn curva(valores: &[f64]) -> Vec<Punto> {
        let punto = |(i, v): (usize, &f64)| (Timestamp::clamped(i64::try_from(i).unwrap() * 60_000_000), *v);
        valores.iter().enumerate().map(punto).collect()
    }

    proptest! {
        #[test]
        fn never_more_than_asked_the_ends_stay_and_nothing_is_invented(
            valores in proptest::collection::vec(-1e300_f64..1e300, 0..400), cuantos in 2_usize..120,
        ) {
            let puntos = curva(&valores);
            let pocos = reduce(&puntos, cuantos);
            prop_assert_eq!(pocos.len(), puntos.len().min(cuantos));
            prop_assert_eq!(pocos.first(), puntos.first());
            prop_assert_eq!(pocos.last(), puntos.last());
            prop_assert!(pocos.is_sorted_by(|a, b| a.0 < b.0));
            prop_assert!(pocos.iter().all(|p| puntos.contains(p)));
            if cuantos >= 4 {
                let extremos = |de: &[Punto]| {
                    let valores = de.iter().map(|p| p.1);
                    (valores.clone().fold(f64::INFINITY, f64::min), valores.fold(f64::NEG_INFINITY, f64::max))
                };
                prop_assert_eq!(extremos(&pocos), extremos(&puntos));
            }
        }
    }

    #[test]
    fn a_peak_beside_a_larger_dip_stays_with_it() {
        // In one bucket, wherever that lies: the first, one between, the last.
        for (pico, hoyo) in [(3, 9), (5_050, 5_041), (9_990, 9_985)] {
            let mut valores: Vec<f64> = (0..10_000).map(|i| 20.0 + f64::from(i % 7) * 0.01).collect();
            (valores[pico], valores[hoyo]) = (45.0, -200.0);
            let pocos = reduce(&curva(&valores), 100);
            assert_eq!(pocos.len(), 100);
            assert!(pocos.is_sorted_by(|a, b| a.0 < b.0));
            for valor in [45.0_f64, -200.0] {
                assert!(pocos.iter().any(|p| p.1.to_bits() == valor.to_bits()), "{valor} at {pico}, {hoyo}");
            }
        }
    }

    #[test]
    fn a_lone_peak_and_a_lone_dip_stay() {
        for donde in [1, 777, 5_000, 9_998] {
            let mut valores: Vec<f64> = (0..10_000).map(|i| 20.0 + f64::from(i % 7) * 0.01).collect();
            valores[donde] = 80.0;
            valores[9_999 - donde] = -40.0;
            let pocos = reduce(&curva(&valores), 100);
            assert!(pocos.iter().any(|p| p.1 > 79.0), "the peak at {donde}");
            assert!(pocos.iter().any(|p| p.1 < -39.0), "the dip at {}", 9_999 - donde);
        }
    }

    #[test]
    fn a_straight_line_and_constant_values_are_no_trouble() {
        assert_eq!(reduce(&curva(&[3.0; 50]), 10).len(), 10);
        let recta: Vec<f64> = (0..50).map(f64::from).collect();
        assert_eq!(reduce(&curva(&recta), 3).len(), 3);
        assert_eq!(reduce(&curva(&recta), 0).len(), 2);
    }
}
