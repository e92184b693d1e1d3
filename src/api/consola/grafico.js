// A line over time, drawn as SVG: axes, the bounds in force, and a reading under the pointer or by the arrow keys.

import { dibuja, h } from "./dom.js";
import { conUnidad, marca, momento, numero } from "./formato.js";
import { t } from "./textos.js";

const ALTO = 260;
const MARGEN = { arriba: 12, derecha: 12, abajo: 28, izquierda: 52 };
const HORA = 3_600_000;
const DIA = 24 * HORA;

// Round steps that cut `ancho` into about `cuantos`.
function paso(ancho, cuantos) {
  const crudo = ancho / cuantos || 1;
  const base = 10 ** Math.floor(Math.log10(crudo));
  return base * [1, 2, 5, 10].find((m) => m * base >= crudo);
}

// Where the marks of the time axis stand: at full hours, days or months of here.
function tiempos(desde, hasta, caben) {
  const rango = hasta - desde;
  const horas = [1, 2, 3, 6, 12].find((n) => rango / (n * HORA) <= caben);
  const dias = [1, 2, 5, 7, 14].find((n) => rango / (n * DIA) <= caben);
  const [tipo, salto] = horas && rango <= 2 * DIA ? ["hora", horas] : dias ? ["dia", dias] : ["mes", Math.ceil(rango / (30.4 * DIA) / caben)];
  const d = new Date(desde);
  d.setMinutes(0, 0, 0);
  if (tipo !== "hora") d.setHours(0);
  if (tipo === "mes") d.setDate(1);
  const salta = { hora: () => d.setHours(d.getHours() + 1), dia: () => d.setDate(d.getDate() + 1), mes: () => d.setMonth(d.getMonth() + 1) }[tipo];
  const marcas = [];
  for (let n = 0; d.getTime() <= hasta; salta(), n += 1) {
    const toca = tipo === "hora" ? d.getHours() % salto === 0 : n % salto === 0;
    if (toca && d.getTime() >= desde) marcas.push(d.getTime());
  }
  return { marcas, tipo };
}

// `puntos` are pairs of milliseconds and value, in order; where two are further apart than `hueco` nothing was said.
// `umbral` = {min, max} or nothing. Answers the figure, what ends it, and of when the point is that somebody looks at.
export function grafico({ puntos, desde, hasta, hueco, nombre, unidad, umbral, resumen }) {
  const lectura = h("p", { class: "lectura", role: "status" });
  const lienzo = h("div", { class: "lienzo", tabindex: 0, role: "application", "aria-label": resumen, on: { keydown: tecla, pointermove: apunta, pointerleave: () => elige(-1), blur: () => elige(-1) } });
  const nodo = h("figure", { class: "grafico" }, lienzo, lectura, h("figcaption", null, resumen, " ", h("span", { class: "menor" }, t("grafico_teclas"))));
  let [x, y, cursor, elegido] = [null, null, null, -1];

  const valores = puntos.map(([, v]) => v);
  const [min, max] = [Math.min(...valores), Math.max(...valores)];
  const alto = max - min || Math.abs(max) * 0.1 || 1;
  const salto = paso(alto * 1.1, 4);
  const [abajo, arriba] = [Math.floor((min - alto * 0.05) / salto) * salto, Math.ceil((max + alto * 0.05) / salto) * salto];

  function tramos() {
    const partes = [];
    puntos.forEach((punto, n) => {
      if (n === 0 || punto[0] - puntos[n - 1][0] > hueco) partes.push([]);
      partes.at(-1).push(punto);
    });
    return partes;
  }

  function pinta(ancho) {
    const interior = ancho - MARGEN.izquierda - MARGEN.derecha;
    const altura = ALTO - MARGEN.arriba - MARGEN.abajo;
    x = (ms) => MARGEN.izquierda + ((ms - desde) / (hasta - desde)) * interior;
    y = (v) => MARGEN.arriba + (1 - (v - abajo) / (arriba - abajo)) * altura;
    const [piso, fin] = [ALTO - MARGEN.abajo, ancho - MARGEN.derecha];
    const horizontales = [];
    for (let n = 0; abajo + n * salto <= arriba + salto / 2; n += 1) {
      const valor = Number((abajo + n * salto).toPrecision(12));
      horizontales.push(dibuja("line", { class: "rejilla", x1: MARGEN.izquierda, x2: fin, y1: y(valor), y2: y(valor) }),
        dibuja("text", { class: "rotulo", x: MARGEN.izquierda - 8, y: y(valor) + 4, "text-anchor": "end" }, numero(valor)));
    }
    const { marcas, tipo } = tiempos(desde, hasta, Math.max(2, Math.floor(interior / 56)));
    const verticales = marcas.map((ms) => [dibuja("line", { class: "rejilla", x1: x(ms), x2: x(ms), y1: piso, y2: piso + 5 }),
      dibuja("text", { class: "rotulo", x: x(ms), y: piso + 20, "text-anchor": "middle" }, marca(ms, tipo))]);
    const limites = umbral ? [umbral.min, umbral.max].filter((v) => v > abajo && v < arriba)
      .map((v) => dibuja("line", { class: "umbral", x1: MARGEN.izquierda, x2: fin, y1: y(v), y2: y(v) })) : [];
    const pocos = puntos.length <= 60;
    const lineas = tramos().map((tramo) => [
      tramo.length > 1 && dibuja("polyline", { class: "linea", points: tramo.map(([ms, v]) => `${x(ms).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }),
      (pocos || tramo.length === 1) && tramo.map(([ms, v]) => dibuja("circle", { class: "punto", cx: x(ms), cy: y(v), r: 2.5 })),
    ]);
    cursor = dibuja("circle", { class: "cursor", r: 5, visibility: "hidden" });
    lienzo.replaceChildren(dibuja("svg", { viewBox: `0 0 ${ancho} ${ALTO}`, width: ancho, height: ALTO, "aria-hidden": "true" },
      horizontales, verticales,
      dibuja("line", { class: "eje", x1: MARGEN.izquierda, x2: fin, y1: piso, y2: piso }),
      lineas, limites, cursor));
    elige(elegido);
  }

  function elige(n) {
    elegido = n;
    const punto = puntos[n];
    cursor?.setAttribute("visibility", punto ? "visible" : "hidden");
    lectura.textContent = punto ? `${nombre}: ${conUnidad(punto[1], unidad)} · ${momento(punto[0])}` : "";
    // Not drawn yet.
    if (!punto || x === null) return;
    cursor.setAttribute("cx", x(punto[0]));
    cursor.setAttribute("cy", y(punto[1]));
  }

  function tecla(evento) {
    const ultimo = puntos.length - 1;
    const de = elegido < 0 ? puntos.length : elegido;
    const n = { ArrowLeft: Math.max(0, de - 1), ArrowRight: Math.min(ultimo, elegido + 1), Home: 0, End: ultimo, Escape: -1 }[evento.key];
    if (n === undefined) return;
    evento.preventDefault();
    elige(n);
  }

  function apunta(evento) {
    const px = evento.clientX - lienzo.getBoundingClientRect().left;
    let cerca = 0;
    puntos.forEach(([ms], n) => { if (Math.abs(x(ms) - px) < Math.abs(x(puntos[cerca][0]) - px)) cerca = n; });
    elige(cerca);
  }

  let dibujado = 0;
  const mirada = new ResizeObserver(([{ contentRect }]) => {
    const ancho = Math.floor(contentRect.width);
    if (ancho === dibujado || ancho < 120) return;
    dibujado = ancho;
    pinta(ancho);
  });
  mirada.observe(lienzo);
  return {
    nodo,
    termina: () => mirada.disconnect(),
    elegido: () => puntos[elegido]?.[0],
    enfoca: () => lienzo.focus({ preventScroll: true }),
    // The point of that moment, or the next there is.
    elegir(ms) {
      const n = puntos.findIndex(([otro]) => otro >= ms);
      elige(n < 0 ? puntos.length - 1 : n);
    },
  };
}
