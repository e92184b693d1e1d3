// What a sensor said over a while: the curve of one variable, the figures of all of them, and the readings as a file.

import { descarga, pide, pideCon } from "./api.js";
import { boton, h, intenta } from "./dom.js";
import { conUnidad, entero, momento, numero } from "./formato.js";
import { grafico } from "./grafico.js";
import { t } from "./textos.js";
import { titulo, unidad, valores } from "./variables.js";

const DIA = 86_400_000;
const PERIODOS = { "24h": DIA, "7d": 7 * DIA, "30d": 30 * DIA, "1a": 365 * DIA };
const PUNTOS = 500;
// Readings that come are drawn this often.
const PAUSA = 20_000;

// The history of `sensor`; `avanza` is told that it said something.
export function historia(sensor) {
  let [periodo, variable, turno, dibujo, reloj] = ["24h", null, 0, null, null];
  const base = `/sensores/${sensor.id_sensor}`;
  const botones = Object.keys(PERIODOS).map((p) => h("button", { type: "button", "aria-pressed": p === periodo, "data-periodo": p, on: { click: () => { periodo = p; carga(); } } }, t(`corto.${p}`)));
  const elegir = h("select", { id: "variable", on: { change: () => { variable = elegir.value; carga(); } } });
  const [lugar, origen, total, error] = [h("div", { class: "lugar" }), h("p", { class: "menor origen" }), h("p", { class: "menor" }), h("p", { class: "error", role: "alert" })];
  const cifras = h("div", { class: "desliza", tabindex: 0, role: "region", "aria-label": t("cifras") });
  const bajar = boton(t("descargar"), intenta(() => descarga(`${base}/lecturas?${rango().texto}`, "text/csv")), "menudo");
  const nodo = h("section", { class: "tarjeta historia" },
    h("h2", null, t("historia")),
    h("div", { class: "barra" }, h("label", { for: "variable" }, t("variable")), elegir, h("div", { class: "grupo", role: "group", "aria-label": t("periodo") }, botones)),
    error, lugar, origen, total, cifras, h("div", { class: "acciones" }, bajar));

  function rango() {
    const hasta = Date.now();
    const desde = hasta - PERIODOS[periodo];
    const texto = new URLSearchParams({ desde: new Date(desde).toISOString(), hasta: new Date(hasta).toISOString() }).toString();
    return { desde, hasta, texto };
  }

  function ofrece(nombres) {
    const ya = [...elegir.options].map((o) => o.value);
    if (ya.join() === nombres.join()) return;
    variable = nombres.includes(variable) ? variable : nombres[0] ?? null;
    elegir.replaceChildren(...nombres.map((n) => h("option", { value: n, selected: n === variable }, titulo(n))));
  }

  async function carga() {
    turno += 1;
    const mio = turno;
    for (const b of botones) b.setAttribute("aria-pressed", b.dataset.periodo === periodo);
    lugar.setAttribute("aria-busy", "true");
    try {
      const { desde, hasta, texto } = rango();
      const [estadisticas, umbrales] = await Promise.all([pide("GET", `${base}/estadisticas?${texto}`), pide("GET", `${base}/umbrales`)]);
      if (mio !== turno) return;
      const orden = new Map(valores(sensor).map(([n], i) => [n, i]));
      const nombres = Object.keys(estadisticas.variables).sort((a, b) => (orden.get(a) ?? 99) - (orden.get(b) ?? 99) || a.localeCompare(b));
      ofrece(nombres);
      muestraCifras(estadisticas, nombres, umbrales);
      const curva = variable && await pideCon(`${base}/lecturas?${texto}&puntos=${PUNTOS}&variable=${variable}`);
      if (mio !== turno) return;
      error.textContent = "";
      muestraCurva(curva, desde, hasta, umbrales.find((u) => u.variable === variable));
    } catch (problema) {
      if (mio === turno) error.textContent = problema.message;
    } finally {
      if (mio === turno) lugar.removeAttribute("aria-busy");
    }
  }

  function muestraCurva(curva, desde, hasta, umbral) {
    // Whoever reads it by keyboard goes on where they were.
    const [enfocado, elegido] = [lugar.contains(document.activeElement), dibujo?.elegido()];
    dibujo?.termina();
    dibujo = null;
    const puntos = (curva?.datos ?? []).map((l) => [Date.parse(l.timestamp), l[variable]]);
    if (puntos.length === 0) {
      lugar.replaceChildren(h("p", { class: "vacio" }, t("sin_lecturas")));
      origen.textContent = "";
      return;
    }
    const [nombre, medida] = [titulo(variable), unidad(variable)];
    const dichos = puntos.map(([, v]) => v);
    const [ms, ultimo] = puntos.at(-1);
    const resumen = t("resumen_curva", { variable: nombre, periodo: t(`periodo.${periodo}`), min: conUnidad(Math.min(...dichos), medida), max: conUnidad(Math.max(...dichos), medida), ultimo: conUnidad(ultimo, medida), momento: momento(ms) });
    // A curve of few points has them far apart by itself.
    const hueco = Math.max(2.5 * sensor.intervalo_lectura * 1000, (3 * (hasta - desde)) / PUNTOS);
    dibujo = grafico({ puntos, desde, hasta, hueco, nombre, unidad: medida, umbral, resumen });
    lugar.replaceChildren(dibujo.nodo);
    if (enfocado) dibujo.enfoca();
    if (elegido !== undefined) dibujo.elegir(elegido);
    const fuente = curva.cabeceras.get("x-alertrace-fuente");
    origen.textContent = `${t(`fuente.${fuente === "horas" ? "horas" : "lecturas"}`)} ${t("puntos", { n: entero(puntos.length) })}`;
  }

  function muestraCifras(e, nombres, umbrales) {
    const celda = (v, n) => h("td", null, conUnidad(v, unidad(n)));
    const limites = (n) => {
      const u = umbrales.find((x) => x.variable === n);
      return h("td", null, u ? `${numero(u.min)} – ${conUnidad(u.max, u.unidad)}` : "—");
    };
    const disponible = e.disponibilidad === null ? "" : t("disponibilidad", { porcentaje: numero(e.disponibilidad) });
    total.textContent = `${t("cifras_de", { lecturas: entero(e.lecturas) })} ${disponible}`;
    cifras.replaceChildren(nombres.length === 0 ? "" : h("table", null,
      h("thead", null, h("tr", null, [t("variable"), t("minimo"), t("promedio"), t("maximo"), t("valores"), t("umbrales")].map((x) => h("th", { scope: "col" }, x)))),
      h("tbody", null, nombres.map((n) => {
        const { min, avg, max, n: cuantos } = e.variables[n];
        return h("tr", null, h("th", { scope: "row" }, titulo(n)), celda(min, n), celda(avg, n), celda(max, n), h("td", null, entero(cuantos)), limites(n));
      }))));
  }

  carga();
  return {
    nodo,
    avanza() {
      // At once when there was nothing, and then not for each reading.
      if (variable === null) carga();
      else reloj ??= setTimeout(() => { reloj = null; carga(); }, PAUSA);
    },
    termina() { turno += 1; clearTimeout(reloj); dibujo?.termina(); },
  };
}
