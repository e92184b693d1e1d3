// What is known of the site now: its sensors and its open alerts, as the WebSocket tells of them and, while that does
// not, as the lists do. Views look at it and are told when it changes.

import { todas } from "./api.js";
import { escucha } from "./vivo.js";
import { conLectura } from "./variables.js";

// While the WebSocket is away.
const SONDEO = 30_000;
const ABIERTAS = ["pendiente", "en_proceso"];

export const planta = { sensores: new Map(), alertas: new Map(), cargada: false, alertasCargadas: false, vivo: "conectando", error: "" };

const oyentes = new Set();
let [termina, reloj, repaso] = [null, null, null];
// What was told while a list was under way is newer than the list.
let alertasTocadas = new Set();
// Which of the lists that are under way is the newest.
let turno = 0;

// Hears `que` changed (`sensores`, `sensor`, `alertas`, `vivo`) and of which sensor; answers what ends it.
export function observa(fn) {
  oyentes.add(fn);
  return () => oyentes.delete(fn);
}

function cambia(que, id) {
  for (const fn of [...oyentes]) fn(que, id);
}

export function arranca() {
  para();
  termina = escucha(mensaje, (estado) => {
    if (planta.vivo === estado) return;
    planta.vivo = estado;
    cambia("vivo");
  });
  reloj = setInterval(() => { if (planta.vivo !== "conectado") recarga(); }, SONDEO);
  recarga();
}

export function para() {
  termina?.();
  clearInterval(reloj);
  clearTimeout(repaso);
  [termina, repaso] = [null, null];
  turno += 1;
  Object.assign(planta, { sensores: new Map(), alertas: new Map(), cargada: false, alertasCargadas: false, vivo: "conectando", error: "" });
}

function recarga() {
  cargaSensores();
  cargaAlertas();
}

async function carga(ruta, alLlegar) {
  const mio = turno;
  try {
    const filas = await todas(ruta);
    if (mio !== turno) return;
    planta.error = "";
    alLlegar(filas);
  } catch (problema) {
    if (mio !== turno) return;
    planta.error = problema.message;
    cambia("sensores");
    cambia("alertas");
  }
}

function cargaSensores() {
  return carga("/sensores?activo=true", (filas) => {
    // What the snapshot and the events after it said is newer than any list.
    const vivo = planta.vivo === "conectado";
    pon(filas.map((s) => (vivo && planta.sensores.get(s.id_sensor)) || s));
  });
}

function cargaAlertas() {
  alertasTocadas = new Set();
  return carga("/alertas", (filas) => {
    const nuevas = new Map(filas.map((a) => [a.id_alerta, a]));
    for (const id of alertasTocadas) {
      nuevas.delete(id);
      if (planta.alertas.has(id)) nuevas.set(id, planta.alertas.get(id));
    }
    Object.assign(planta, { alertas: nuevas, alertasCargadas: true });
    cambia("alertas");
  });
}

function pon(sensores) {
  planta.sensores = new Map(sensores.map((s) => [s.id_sensor, s]));
  planta.cargada = true;
  cambia("sensores");
}

// A sensor that the lists do not have yet.
export function agrega(sensor) {
  planta.sensores.set(sensor.id_sensor, sensor);
  cambia("sensores");
}

// An alert as somebody just changed it, or as the server tells of it.
export function agregaAlerta(alerta) {
  alertasTocadas.add(alerta.id_alerta);
  if (ABIERTAS.includes(alerta.estado)) planta.alertas.set(alerta.id_alerta, alerta);
  else planta.alertas.delete(alerta.id_alerta);
  cambia("alertas");
}

function cambiaSensor(id, fn) {
  const sensor = planta.sensores.get(id);
  if (sensor) {
    planta.sensores.set(id, fn(sensor));
    cambia("sensor", id);
  } else {
    // Registered or assigned meanwhile: once for all that say something within a second.
    repaso ??= setTimeout(() => { repaso = null; cargaSensores(); }, 1_000);
  }
}

function mensaje(dicho) {
  switch (dicho.type) {
    case "snapshot":
      pon(dicho.sensores);
      // What happened to alerts before it is told by the list alone.
      cargaAlertas();
      break;
    case "sensor_update":
      cambiaSensor(dicho.id_sensor, (sensor) => conLectura(sensor, dicho.data));
      break;
    case "estado":
      cambiaSensor(dicho.id_sensor, (sensor) => ({ ...sensor, conexion: dicho.estado }));
      break;
    case "alerta":
      agregaAlerta(dicho.alerta);
      break;
    // `resync`: we were too slow; the snapshot that follows is a new beginning.
    default:
  }
}
