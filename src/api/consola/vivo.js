// The WebSocket: opened with the token as its subprotocol, opened again when it ends, later each time it fails.

import { pide, token } from "./api.js";
import { sesion } from "./sesion.js";

const PRIMERA = 1_000;
const ULTIMA = 30_000;

// Tells `alMensaje` what the server says, and `alEstado` how it stands: `conectando`, `conectado`, `cortado`. Answers
// what ends it.
export function escucha(alMensaje, alEstado) {
  let [socket, espera, reloj, fin] = [null, PRIMERA, null, false];

  async function abre() {
    if (espera === PRIMERA) alEstado("conectando");
    let llave;
    try {
      // What refuses a handshake is not told to a page: whether the session is good, the API says.
      if (espera > PRIMERA) await pide("GET", "/auth/verify-token");
      llave = await token();
    } catch {
      otraVez();
      return;
    }
    if (fin) return;
    const url = new URL("/api/v1/sensores/live", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(url, ["bearer", llave]);
    socket.addEventListener("message", ({ data }) => {
      espera = PRIMERA;
      alEstado("conectado");
      alMensaje(JSON.parse(data));
    });
    socket.addEventListener("close", otraVez);
  }

  function otraVez() {
    if (fin || sesion() === null) return;
    alEstado("cortado");
    // Many pages that lost one server are not to come back at one moment.
    const pausa = espera * (0.75 + Math.random() / 2);
    espera = Math.min(ULTIMA, espera * 2);
    reloj = setTimeout(abre, pausa);
  }

  function ahora() {
    if (socket?.readyState === WebSocket.CLOSED) {
      clearTimeout(reloj);
      abre();
    }
  }

  addEventListener("online", ahora);
  abre();
  return () => {
    fin = true;
    clearTimeout(reloj);
    removeEventListener("online", ahora);
    socket?.close();
  };
}
