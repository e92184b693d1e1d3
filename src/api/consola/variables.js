// What the server knows of variables (`domain/variable.rs`), and which fields of a sensor are none; a test of the
// server holds this list to its own.

import { idioma } from "./textos.js";

// Unit, name in Spanish, name in English.
const CONOCIDAS = {
  temperatura: ["°C", "Temperatura", "Temperature"],
  humedad_aire: ["%", "Humedad del aire", "Air humidity"],
  humedad_suelo: ["%", "Humedad del suelo", "Soil moisture"],
  ph_suelo: ["pH", "pH del suelo", "Soil pH"],
  radiacion_solar: ["W/m²", "Radiación solar", "Solar radiation"],
  conductividad: ["µS/cm", "Conductividad", "Conductivity"],
  nitrogeno: ["mg/kg", "Nitrógeno", "Nitrogen"],
  fosforo: ["mg/kg", "Fósforo", "Phosphorus"],
  potasio: ["mg/kg", "Potasio", "Potassium"],
  co2: ["ppm", "CO₂", "CO₂"],
  bateria: ["%", "Batería", "Battery"],
  senal: ["dBm", "Señal", "Signal"],
};

const CAMPOS = new Set([
  "id_sensor", "device_id", "nombre", "tipo", "id_empresa", "id_cultivo", "activo", "estado", "conexion",
  "intervalo_lectura", "ultima_lectura", "bateria_nivel", "ubicacion_sensor", "coordenadas_lat", "coordenadas_lng",
  "fecha_instalacion", "timestamp_lectura", "ph",
]);

export function titulo(variable) {
  const conocida = Object.hasOwn(CONOCIDAS, variable) ? CONOCIDAS[variable] : null;
  if (conocida) return conocida[idioma === "en" ? 2 : 1];
  // The site's own: `caudal_riego`.
  return variable.replaceAll("_", " ");
}

export const unidad = (variable) => (Object.hasOwn(CONOCIDAS, variable) ? CONOCIDAS[variable][0] : "");

// The newest values of a sensor, those of the table first; what is null was never said.
export function valores(sensor) {
  const conocidas = Object.keys(CONOCIDAS);
  const propias = Object.keys(sensor).filter((k) => !CAMPOS.has(k) && !conocidas.includes(k)).sort();
  return [...conocidas, ...propias].map((k) => [k, sensor[k]]).filter(([, v]) => typeof v === "number");
}

// A reading's values put over those of before; no variable of a device takes the place of a field.
export function conLectura(sensor, { timestamp, ...dichos }) {
  const nuevos = Object.entries(dichos).filter(([k]) => !CAMPOS.has(k));
  const bateria_nivel = dichos.bateria ?? sensor.bateria_nivel;
  return { ...sensor, ...Object.fromEntries(nuevos), bateria_nivel, ultima_lectura: timestamp, timestamp_lectura: timestamp };
}
