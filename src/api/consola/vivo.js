// The WebSocket: opened with the token as its subprotocol, opened again when it ends, later each time it fails.

import { comprueba, estadoDe, token } from "./api.js";
import { sesion } from "./sesion.js";

const PRIMERA = 1_000;
const ULTIMA = 30_000;
// A line that is cut without a word closes nothing: this often it is seen whether the server is there.
const PULSO = 20_000;

// Tells `alMensaje` what the server says, and `alEstado` how it stands: `conectando`, `conectado`, `cortado`. Answers
// what ends it.
export function escucha(alMensaje, alEstado) {
  let [socket, espera, reloj, fin, intento] = [null, PRIMERA, null, false, 0];

  async function abre() {
    intento += 1;
    const mio = intento;
    if (espera === PRIMERA) alEstado("conectando");
    let llave;
    try {
      // What refuses a handshake is not told to a page: whether the session is good, the API says.
      if (espera > PRIMERA) await comprueba();
      llave = await token();
    } catch {
      if (mio === intento) otraVez();
      return;
    }
    // Somebody was quicker, when the network came back meanwhile.
    if (fin || mio !== intento) return;
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
    if (socket === null || socket.readyState === WebSocket.CLOSED) {
      clearTimeout(reloj);
      abre();
    }
  }

  async function late() {
    const suyo = socket;
    const abierto = () => suyo !== null && suyo.readyState <= WebSocket.OPEN;
    if (!abierto()) return;
    try {
      await estadoDe("/health");
    } catch {
      if (fin || suyo !== socket || !abierto()) return;
      // It says that it is closed when the other side has agreed, which may take minutes here.
      suyo.removeEventListener("close", otraVez);
      suyo.close();
      socket = null;
      otraVez();
    }
  }

  const pulso = setInterval(late, PULSO);
  addEventListener("online", ahora);
  abre();
  return () => {
    fin = true;
    clearTimeout(reloj);
    clearInterval(pulso);
    removeEventListener("online", ahora);
    socket?.close();
  };
}
