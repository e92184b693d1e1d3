// The API, as the person who is signed in: their token, renewed before it ends, and problems as errors.

import { abre, cierra, sesion } from "./sesion.js";
import { idioma, t } from "./textos.js";

const API = "/api/v1";
// How long an answer may take: the server gives up on its own before. A line that died says nothing of itself.
const PLAZO = 40_000;
const PLAZO_CORTO = 10_000;

// What the API refused (RFC 9457), or that it did not answer.
export class Problema extends Error {
  constructor(cuerpo, estado) {
    super(cuerpo.detail ?? t("sin_detalle", { estado }));
    this.estado = estado;
    this.codigo = cuerpo.code ?? "";
    this.errores = cuerpo.errors ?? [];
  }
}

async function problema(respuesta) {
  const cuerpo = await respuesta.json().catch(() => ({}));
  return new Problema(cuerpo ?? {}, respuesta.status);
}

function sinRed() {
  return new Problema({ detail: t("sin_red"), code: "sin_red" }, 0);
}

// Nothing is kept by the browser: what somebody saw does not stay on a borrowed telephone.
async function envia(url, plazo, opciones) {
  try {
    return await fetch(url, { cache: "no-store", signal: plazo ? AbortSignal.timeout(plazo) : null, ...opciones });
  } catch {
    throw sinRed();
  }
}

// What is in an answer, which may stop half-way.
async function lee(respuesta, como = "json") {
  try {
    return await respuesta[como]();
  } catch {
    throw sinRed();
  }
}

const json = (cuerpo) => ({ body: JSON.stringify(cuerpo), tipo: { "Content-Type": "application/json" } });

let renovacion = null;

// One at a time: a refresh token is good once.
function renueva() {
  renovacion ??= (async () => {
    const de = sesion();
    const { body, tipo } = json({ refresh_token: de.refresh_token });
    const headers = { ...tipo, "Accept-Language": idioma };
    const respuesta = await envia(`${API}/auth/refresh`, PLAZO, { method: "POST", headers, body });
    const dicho = respuesta.ok ? await lee(respuesta) : await problema(respuesta);
    // Whoever signed out meanwhile is not signed in again.
    if (sesion() !== de) throw new Problema({ detail: t("sesion_terminada") }, 401);
    if (respuesta.ok) {
      abre(dicho);
      return;
    }
    if ([401, 403].includes(respuesta.status)) cierra(t("sesion_terminada"));
    throw dicho;
  })().finally(() => { renovacion = null; });
  return renovacion;
}

// A token that is good for a while yet.
export async function token() {
  if (sesion() === null) throw new Problema({ detail: t("sesion_terminada") }, 401);
  if (Date.now() >= sesion().renovar) await renueva();
  return sesion().access_token;
}

// Asks; answers the response. `publica` = nobody has to be signed in; `plazo` = milliseconds, or null.
async function responde(metodo, ruta, { cuerpo, acepta = "application/json", publica = false, plazo = PLAZO } = {}) {
  const { body, tipo } = cuerpo === undefined ? {} : json(cuerpo);
  const headers = { Accept: acepta, "Accept-Language": idioma, ...tipo };
  const url = ruta.startsWith("/api/") ? ruta : API + ruta;
  for (let veces = 1; ; veces += 1) {
    const llave = publica ? null : await token();
    if (llave) headers.Authorization = `Bearer ${llave}`;
    const respuesta = await envia(url, plazo, { method: metodo, headers, body });
    if (respuesta.ok) return respuesta;
    if (respuesta.status !== 401 || publica) throw await problema(respuesta);
    // Revoked, or renewed meanwhile by somebody else who asked.
    if (veces > 1) cierra(t("sesion_terminada"));
    if (sesion() === null) throw await problema(respuesta);
    if (sesion().access_token === llave) await renueva();
  }
}

export async function pide(metodo, ruta, opciones) {
  const respuesta = await responde(metodo, ruta, opciones);
  return respuesta.status === 204 ? null : lee(respuesta);
}

// With its headers: where a curve is from, how many there are.
export async function pideCon(ruta) {
  const respuesta = await responde("GET", ruta);
  return { datos: await lee(respuesta), cabeceras: respuesta.headers };
}

// All of a list, page by page as `Link` leads.
export async function todas(ruta) {
  const filas = [];
  let siguiente = `${ruta}${ruta.includes("?") ? "&" : "?"}limit=1000`;
  while (siguiente) {
    const { datos, cabeceras } = await pideCon(siguiente);
    filas.push(...datos);
    siguiente = /<([^>]+)>; rel="next"/.exec(cabeceras.get("link") ?? "")?.[1];
  }
  return filas;
}

// Saves an answer as a file, however long that takes: a link could not carry the token.
export async function descarga(ruta, acepta) {
  const respuesta = await responde("GET", ruta, { acepta, plazo: null });
  const nombre = /filename="([^"]+)"/.exec(respuesta.headers.get("content-disposition") ?? "")?.[1];
  const url = URL.createObjectURL(await lee(respuesta, "blob"));
  const enlace = document.createElement("a");
  Object.assign(enlace, { href: url, download: nombre ?? "lecturas.csv" });
  enlace.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// What the server says of itself, which nobody has to be signed in for; a refusal is an answer here.
export async function estadoDe(ruta) {
  const respuesta = await envia(ruta, PLAZO_CORTO, { headers: { Accept: "application/json", "Accept-Language": idioma } });
  return respuesta.ok ? { bien: true, datos: await lee(respuesta) } : { bien: false, problema: await problema(respuesta) };
}

export async function entra(correo, clave, codigo) {
  const cuerpo = { email: correo, password: clave, ...(codigo ? { codigo } : {}) };
  abre(await pide("POST", "/auth/login", { cuerpo, publica: true }));
}

// Whether the session is good still.
export const comprueba = () => pide("GET", "/auth/verify-token", { plazo: PLAZO_CORTO });

// Ends this sign-in; where the server cannot be told, it is forgotten here all the same, and soon.
export async function sal() {
  const persona = sesion();
  if (persona === null) return;
  const cuerpo = { refresh_token: persona.refresh_token };
  const dicho = pide("POST", "/auth/logout", { cuerpo }).catch(() => {});
  await Promise.race([dicho, new Promise((listo) => setTimeout(listo, 3_000))]);
  cierra();
}
