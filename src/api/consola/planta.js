// What is known of the site now: its sensors and its open alerts, as the WebSocket tells of them and, while that does
// not and of what it never tells, as the lists do. Views look at it and are told when it changes.

import { todas } from "./api.js";
import { escucha } from "./vivo.js";
import { conLectura } from "./variables.js";

// While the WebSocket is away; while it is there every so many of them, for what no event tells: a name that somebody
// changed, a sensor that was retired, an alert that somebody else saw.
const SONDEO = 30_000;
const VUELTAS = 10;
const ABIERTAS = ["pendiente", "en_proceso"];

export const planta = { sensores: new Map(), alertas: new Map(), cargada: false, alertasCargadas: false, vivo: "conectando", error: "" };

const oyentes = new Set();
let [termina, reloj, repaso] = [null, null, null];
// Who is signed in: what was asked for somebody else is dropped.
let turno = 0;

// A list: which time it was asked for last, and which of them came last. What is told while one is under way is newer
// than it, and is in a set of its own.
const lista = (ruta) => ({ ruta, pedida: 0, llegada: 0, enCurso: new Set() });
const [deSensores, deAlertas] = [lista("/sensores?activo=true"), lista("/alertas")];

function toca({ enCurso }, id) {
  for (const tocados of enCurso) tocados.add(id);
}

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
  let vueltas = 0;
  reloj = setInterval(() => {
    vueltas += 1;
    if (planta.vivo !== "conectado" || vueltas % VUELTAS === 0) recarga();
  }, SONDEO);
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

async function carga(cual, alLlegar) {
  const [mio, tocados] = [turno, new Set()];
  cual.pedida += 1;
  const mia = cual.pedida;
  cual.enCurso.add(tocados);
  try {
    const filas = await todas(cual.ruta);
    // Two may be under way, and the older come last.
    if (mio !== turno || mia <= cual.llegada) return;
    cual.llegada = mia;
    planta.error = "";
    alLlegar(filas, tocados);
  } catch (problema) {
    if (mio !== turno || mia < cual.llegada) return;
    planta.error = problema.message;
    cambia("sensores");
    cambia("alertas");
  } finally {
    cual.enCurso.delete(tocados);
  }
}

// Of a list what people say of a sensor, which no event tells; what it says itself the events told, and later.
function conFicha(sensor, { nombre, tipo, id_cultivo, estado, activo, ubicacion_sensor, intervalo_lectura }) {
  return { ...sensor, nombre, tipo, id_cultivo, estado, activo, ubicacion_sensor, intervalo_lectura };
}

function cargaSensores() {
  return carga(deSensores, (filas, tocados) => {
    const vivo = planta.vivo === "conectado";
    const mezcla = (s) => (vivo && planta.sensores.has(s.id_sensor) ? conFicha(planta.sensores.get(s.id_sensor), s) : s);
    const agregados = [...tocados].map((id) => planta.sensores.get(id)).filter(Boolean);
    pon([...agregados, ...filas.map(mezcla)]);
  });
}

function cargaAlertas() {
  return carga(deAlertas, (filas, tocadas) => {
    const nuevas = new Map(filas.map((a) => [a.id_alerta, a]));
    for (const id of tocadas) {
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
  toca(deSensores, sensor.id_sensor);
  planta.sensores.set(sensor.id_sensor, sensor);
  cambia("sensores");
}

// An alert as somebody just changed it, or as the server tells of it.
export function agregaAlerta(alerta) {
  toca(deAlertas, alerta.id_alerta);
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
      // A list that is under way was made before it.
      deSensores.llegada = deSensores.pedida;
      planta.error = "";
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
