// Whether the server acknowledges what it is sent: said above every page when it does not, and to the operador in full.

import { estadoDe } from "./api.js";
import { h } from "./dom.js";
import { bytes } from "./formato.js";
import { t } from "./textos.js";

const SONDEO = 15_000;

// What stands above every page: empty while all is well.
export function vigila() {
  const banda = h("div", { class: "banda", role: "alert" });
  async function mira() {
    const dicho = await porque();
    if (banda.textContent !== dicho) banda.textContent = dicho;
    banda.hidden = dicho === "";
  }
  mira();
  setInterval(mira, SONDEO);
  return banda;
}

async function porque() {
  try {
    const { bien, problema } = await estadoDe("/ready");
    return bien ? "" : t("no_confirma", { porque: problema.message });
  } catch {
    return t("sin_red_banda");
  }
}

function aviso({ code, used_bytes: usado, max_bytes: maximo }) {
  const conocido = ["disk_budget", "disk_budget_spent"].includes(code);
  return h("li", { class: "aviso" }, h("b", null, conocido ? t(`aviso.${code}`) : code), " ",
    t("aviso_disco", { usado: bytes(usado), maximo: bytes(maximo) }));
}

export function vistaServidor() {
  const caja = h("div", { class: "tarjeta", role: "status" }, t("cargando"));
  const nodo = h("section", null, h("div", { class: "titulo" }, h("h1", { tabindex: -1 }, t("servidor"))), caja);
  let antes = "";

  async function mira() {
    let [salud, listo] = [null, null];
    try {
      [salud, listo] = await Promise.all([estadoDe("/health"), estadoDe("/ready")]);
    } catch {
      // Said below, and above every page.
    }
    const ahora = JSON.stringify([salud, listo, listo?.problema?.message]);
    if (ahora === antes) return;
    antes = ahora;
    const avisos = listo?.datos?.warnings ?? [];
    caja.replaceChildren(
      h("p", null, h("span", { class: `pastilla ${listo?.bien ? "online" : "critica"}` }, listo?.bien ? t("confirma") : t("no_confirma_corto"))),
      listo?.bien ? "" : h("p", null, listo?.problema?.message ?? t("sin_red_banda")),
      h("dl", { class: "datos" },
        h("div", null, h("dt", null, t("vive")), h("dd", null, salud?.bien ? t("si") : t("no"))),
        h("div", null, h("dt", null, t("version")), h("dd", null, salud?.datos?.version ?? "—"))),
      listo?.bien ? h("h2", null, t("avisos")) : "",
      avisos.length ? h("ul", { class: "avisos-servidor" }, avisos.map(aviso)) : listo?.bien ? h("p", { class: "menor" }, t("sin_avisos")) : "");
  }

  const reloj = setInterval(mira, SONDEO);
  mira();
  return { titulo: t("servidor"), nodo, termina() { clearInterval(reloj); } };
}
