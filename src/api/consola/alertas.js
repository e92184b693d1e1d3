// What needs somebody's attention: open alerts, as they come, to be marked as seen and resolved.

import { pide } from "./api.js";
import { avisa, boton, campo, dialogo, envejece, formulario, h, hace, intenta, pagina, sincroniza } from "./dom.js";
import { conUnidad, entero } from "./formato.js";
import { agregaAlerta, observa, planta } from "./planta.js";
import { t } from "./textos.js";

const TAMANO = 100;

const vista = intenta(async (alerta) => agregaAlerta(await pide("POST", `/alertas/${alerta.id_alerta}/viewed`)));

function resuelve(alerta) {
  const form = formulario(t("resolver"), [
    h("p", null, alerta.titulo),
    campo(t("notas"), "notas", { filas: 3, maxlength: 2000, ayuda: t("notas_ayuda") }),
  ], async ({ notas }) => {
    const cuerpo = notas.trim() ? { notas } : {};
    const { problema_persiste: persiste, nueva_alerta: nueva, ...hecha } = await pide("POST", `/alertas/${alerta.id_alerta}/resolve`, { cuerpo });
    caja.close();
    agregaAlerta(hecha);
    if (nueva) agregaAlerta(nueva);
    // The button that opened this is gone.
    document.querySelector("#principal h1")?.focus();
    if (persiste) avisa(t("persiste"), "mal");
    else avisa(t("resuelta"));
  }, { alCancelar: () => caja.close() });
  const caja = dialogo(t("resolver_titulo"), form);
  form.querySelector("textarea").focus();
}

function tarjeta({ alerta, nombre }) {
  const { valor_actual: valor, valor_umbral: umbral } = alerta;
  return h("li", { class: `tarjeta alerta borde-${alerta.severidad}`, id: `alerta-${alerta.id_alerta}` },
    h("div", { class: "cabeza" },
      h("h2", null, alerta.titulo),
      h("span", { class: `pastilla ${alerta.severidad}` }, t(`severidad.${alerta.severidad}`))),
    h("p", { class: "menor" }, h("a", { href: `#/sensores/${alerta.id_sensor}` }, nombre), " · ", h("code", null, alerta.device_id)),
    h("p", null, alerta.mensaje),
    h("dl", { class: "valores" },
      valor !== null && h("div", null, h("dt", null, t("valor")), h("dd", null, h("b", null, conUnidad(valor, alerta.unidad)))),
      umbral !== null && h("div", null, h("dt", null, t("umbral")), h("dd", null, h("b", null, conUnidad(umbral, alerta.unidad))))),
    h("div", { class: "acciones" },
      boton(t("resolver"), () => resuelve(alerta), "principal"),
      alerta.vista ? h("span", { class: "menor" }, t("vista")) : boton(t("marcar_vista"), () => vista(alerta)),
      h("span", { class: "menor pie" }, alerta.estado === "en_proceso" && `${t("en_proceso")} · `, hace(alerta.fecha_creacion))));
}

export function vistaAlertas() {
  let actual = 0;
  const lista = h("ul", { class: "tarjetas anchas" });
  const [pie, vacio, resumen] = [h("div"), h("p", { class: "vacio" }), h("p", { class: "resumen", role: "status" })];
  const cabeza = h("h1", { tabindex: -1 }, t("alertas"));
  const nodo = h("section", null, h("div", { class: "titulo" }, cabeza, resumen), vacio, lista, pie);

  function pinta() {
    const todas = [...planta.alertas.values()].sort((a, b) => b.id_alerta - a.id_alerta);
    actual = Math.min(actual, Math.max(0, Math.ceil(todas.length / TAMANO) - 1));
    const visibles = todas.slice(actual * TAMANO, (actual + 1) * TAMANO)
      .map((alerta) => ({ alerta, nombre: planta.sensores.get(alerta.id_sensor)?.nombre ?? alerta.device_id }));
    sincroniza(lista, visibles, ({ alerta }) => alerta.id_alerta, (dato) => JSON.stringify(dato), tarjeta);
    const dicho = planta.alertasCargadas ? t("resumen_alertas", { total: entero(todas.length) }) : "";
    if (resumen.textContent !== dicho) resumen.textContent = dicho;
    vacio.textContent = planta.alertasCargadas ? t("sin_alertas") : planta.error || t("cargando");
    vacio.hidden = todas.length > 0;
    pagina(pie, actual, todas.length, TAMANO, (n) => { actual = n; pinta(); cabeza.focus(); });
  }

  const deja = observa((que) => { if (que === "alertas" || que === "sensores") pinta(); });
  const reloj = setInterval(() => envejece(lista), 1_000);
  pinta();
  return { titulo: t("alertas"), nodo, termina() { deja(); clearInterval(reloj); } };
}
