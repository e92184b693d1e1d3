// One sensor: what it says now, its history, and what of its messages was rechazados and why.

import { pide, pideCon } from "./api.js";
import { renuevaCredenciales } from "./alta.js";
import { boton, envejece, h, hace, sincroniza } from "./dom.js";
import { entero, momento } from "./formato.js";
import { historia } from "./historia.js";
import { observa, planta } from "./planta.js";
import { bateria, conexion, tabla } from "./sensores.js";
import { puede } from "./sesion.js";
import { t } from "./textos.js";
import { titulo } from "./variables.js";

const SONDEO = 10_000;
const RECHAZOS = 20;

export function vistaSensor(id) {
  const caja = h("section", null, h("p", null, h("a", { href: "#/sensores" }, `← ${t("sensores")}`)), h("h1", { tabindex: -1 }, "…"));
  const fin = [];
  let terminada = false;
  const vista = { titulo: planta.sensores.get(id)?.nombre ?? t("sensor"), nodo: caja, termina() { terminada = true; fin.forEach((fn) => fn()); } };
  (async () => {
    try {
      // One that is retired is in no list, and has its history all the same.
      const sensor = planta.sensores.get(id) ?? await pide("GET", `/sensores/${id}`);
      if (!terminada) arma(caja, sensor, fin);
    } catch (problema) {
      caja.append(h("p", { class: "vacio", role: "alert" }, problema.message));
    }
  })();
  return vista;
}

function arma(caja, sensor, fin) {
  const id = sensor.id_sensor;
  const [estado, ahora] = [h("p", { class: "estado" }), h("div")];
  const cabeza = caja.querySelector("h1");

  function pinta(s) {
    if (cabeza.textContent !== s.nombre) [cabeza.textContent, document.title] = [s.nombre, `${s.nombre} · Alertrace`];
    estado.replaceChildren(conexion(s), " ", h("code", null, s.device_id), " ",
      h("span", { class: "menor" }, [s.tipo, s.ubicacion_sensor, t("cada", { segundos: entero(s.intervalo_lectura) })].filter(Boolean).join(" · ")));
    ahora.replaceChildren(tabla(s), h("p", { class: "menor pie" }, s.timestamp_lectura ? hace(s.timestamp_lectura) : t("nunca"), bateria(s) || ""));
  }

  pinta(sensor);
  const pasado = historia(sensor);
  const rechazados = puede.supervisar() ? rechazos(id) : null;
  caja.append(estado,
    h("section", { class: "tarjeta" }, h("h2", null, t("ahora")), ahora),
    pasado.nodo,
    rechazados?.nodo ?? "",
    puede.administrar() && sensor.activo ? h("section", { class: "tarjeta" }, h("h2", null, t("credenciales")), h("p", { class: "ayuda" }, t("credenciales_ayuda")),
      h("div", { class: "acciones" }, boton(t("nuevas_credenciales"), () => renuevaCredenciales(planta.sensores.get(id) ?? sensor)))) : "");

  const reloj = setInterval(() => envejece(caja), 1_000);
  const deja = observa((que, cual) => {
    const s = planta.sensores.get(id);
    if (!s || !(que === "sensores" || (que === "sensor" && cual === id))) return;
    pinta(s);
    if (que === "sensor") pasado.avanza();
  });
  fin.push(deja, () => clearInterval(reloj), () => pasado.termina(), () => rechazados?.termina());
}

// The newest refusals, with their reasons in words.
function rechazos(id) {
  const lista = h("ul", { class: "rechazos" });
  const vacio = h("p", { class: "vacio" }, t("cargando"));
  const nodo = h("section", { class: "tarjeta" }, h("h2", null, t("rechazos")), h("p", { class: "ayuda" }, t("rechazos_ayuda")), vacio, lista);

  async function mira() {
    try {
      const { datos, cabeceras } = await pideCon(`/sensores/${id}/rechazos?limit=${RECHAZOS}`);
      const total = Number(cabeceras.get("x-total-count"));
      sincroniza(lista, datos, (r) => r.id_rechazo, () => "", fila);
      vacio.textContent = total === 0 ? t("sin_rechazos") : t("de_rechazos", { n: entero(datos.length), total: entero(total) });
    } catch (problema) {
      vacio.textContent = problema.message;
    }
  }

  const reloj = setInterval(() => { if (!document.hidden) mira(); }, SONDEO);
  mira();
  return { nodo, termina: () => clearInterval(reloj) };
}

function fila(r) {
  return h("li", null,
    h("p", null, h("b", null, t(`motivo.${r.motivo}`)), r.variable && ` · ${titulo(r.variable)}`),
    h("p", { class: "menor" }, hace(r.recibida), " · ", h("code", null, r.motivo), r.timestamp && ` · ${t("fechada", { momento: momento(r.timestamp) })}`),
    h("pre", null, r.contenido));
}
