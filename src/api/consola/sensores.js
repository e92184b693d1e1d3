// Every sensor that one may see, with what it said last, as it says it.

import { formularioDeAlta } from "./alta.js";
import { boton, envejece, h, hace, pagina, sincroniza } from "./dom.js";
import { conUnidad, entero, numero } from "./formato.js";
import { observa, planta } from "./planta.js";
import { puede } from "./sesion.js";
import { idioma, t } from "./textos.js";
import { titulo, unidad, valores } from "./variables.js";

const TAMANO = 100;
// Sensor 2 before Sensor 10.
const alfabeto = new Intl.Collator(idioma, { numeric: true });
const GRAVEDAD = ["baja", "media", "alta", "critica"];

// Whether a device is connected, in words and not in colour alone.
export function conexion(sensor) {
  return h("span", { class: `pastilla ${sensor.conexion}` }, t(`conexion.${sensor.conexion}`));
}

export function tabla(sensor) {
  const filas = valores(sensor).filter(([nombre]) => nombre !== "bateria");
  if (filas.length === 0) return h("p", { class: "vacio" }, t("sin_valores"));
  return h("dl", { class: "valores" }, filas.map(([nombre, valor]) =>
    h("div", null, h("dt", null, titulo(nombre)), h("dd", null, h("b", null, numero(valor)), " ", nombre === "ph_suelo" ? "" : unidad(nombre)))));
}

export function bateria(sensor) {
  return sensor.bateria_nivel !== null && h("span", null, t("bateria"), " ", conUnidad(sensor.bateria_nivel, "%"));
}

// The worst open alert of each sensor that has any.
function peores() {
  const suyas = new Map();
  for (const { id_sensor: id, severidad } of planta.alertas.values()) {
    if (GRAVEDAD.indexOf(severidad) > GRAVEDAD.indexOf(suyas.get(id))) suyas.set(id, severidad);
  }
  return suyas;
}

function tarjeta({ sensor, alerta }) {
  const antes = sensor.timestamp_lectura;
  return h("li", { class: "tarjeta", id: `sensor-${sensor.id_sensor}` },
    h("div", { class: "cabeza" },
      h("h2", null, h("a", { href: `#/sensores/${sensor.id_sensor}` }, sensor.nombre)),
      conexion(sensor)),
    h("p", { class: "menor" }, h("code", null, sensor.device_id), sensor.ubicacion_sensor && ` · ${sensor.ubicacion_sensor}`),
    alerta && h("p", null, h("a", { href: "#/alertas", class: `pastilla ${alerta}` }, t("alerta_abierta", { severidad: t(`severidad.${alerta}`) }))),
    tabla(sensor),
    h("p", { class: "menor pie" }, antes ? hace(antes) : t("nunca"), bateria(sensor)));
}

export function vistaSensores() {
  let [actual, orden] = [0, null];
  const buscar = h("input", { type: "search", id: "buscar", placeholder: t("buscar_ejemplo"), autocomplete: "off", on: { input: () => { actual = 0; pinta(); } } });
  const lista = h("ul", { class: "tarjetas" });
  const [resumen, pie, vacio] = [h("p", { class: "resumen", role: "status" }), h("div"), h("div")];
  const cabeza = h("h1", { tabindex: -1 }, t("sensores"));
  const nodo = h("section", null,
    h("div", { class: "titulo" }, cabeza, puede.administrar() && boton(t("agregar_sensor"), formularioDeAlta, "principal")),
    h("div", { class: "barra" }, h("label", { for: "buscar" }, t("buscar")), buscar, resumen),
    vacio, lista, pie);

  function pinta() {
    // A reading changes nobody's place.
    orden ??= [...planta.sensores.values()].sort((a, b) => alfabeto.compare(a.nombre, b.nombre) || a.id_sensor - b.id_sensor).map((s) => s.id_sensor);
    const todos = orden.map((id) => planta.sensores.get(id));
    const texto = buscar.value.trim().toLowerCase();
    const hallados = todos.filter((s) => [s.nombre, s.device_id, s.ubicacion_sensor, s.tipo].some((x) => x?.toLowerCase().includes(texto)));
    actual = Math.min(actual, Math.max(0, Math.ceil(hallados.length / TAMANO) - 1));
    const alertas = peores();
    const visibles = hallados.slice(actual * TAMANO, (actual + 1) * TAMANO).map((sensor) => ({ sensor, alerta: alertas.get(sensor.id_sensor) }));
    sincroniza(lista, visibles, ({ sensor }) => sensor.id_sensor, (dato) => JSON.stringify(dato), tarjeta);
    const online = hallados.filter((s) => s.conexion === "online").length;
    const dicho = planta.cargada ? t("resumen_sensores", { total: entero(hallados.length), online: entero(online) }) : "";
    if (resumen.textContent !== dicho) resumen.textContent = dicho;
    vacio.replaceChildren(h("p", { class: "vacio" }, mensaje(todos.length, hallados.length)));
    vacio.hidden = hallados.length > 0;
    pagina(pie, actual, hallados.length, TAMANO, (n) => { actual = n; pinta(); cabeza.focus(); });
  }

  function mensaje(todos, hallados) {
    if (!planta.cargada) return planta.error || t("cargando");
    if (todos > 0 && hallados === 0) return t("nada_hallado");
    return puede.administrar() ? t("sin_sensores_admin") : t("sin_sensores");
  }

  // A thousand readings a second are one drawing a frame.
  let pendiente = null;
  const pronto = () => { pendiente ??= requestAnimationFrame(() => { pendiente = null; pinta(); }); };
  const deja = observa((que) => {
    if (que === "sensores") orden = null;
    if (que !== "vivo") pronto();
  });
  const reloj = setInterval(() => envejece(lista), 1_000);
  pinta();
  return { titulo: t("sensores"), nodo, termina() { deja(); clearInterval(reloj); cancelAnimationFrame(pendiente); } };
}
