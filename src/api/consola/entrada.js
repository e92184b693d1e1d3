// Signing in, with the second factor where the account has one, and the first empresa of a new installation.

import { entra, pide } from "./api.js";
import { campo, formulario, h } from "./dom.js";
import { t } from "./textos.js";

// The page of somebody who is not signed in; `motivo` says why they are not any more.
export function vistaEntrada(motivo) {
  const codigo = campo(t("codigo"), "codigo", { ayuda: t("codigo_ayuda"), autocapitalize: "characters", spellcheck: "false", autocomplete: "one-time-code" });
  codigo.hidden = true;
  const form = formulario(t("entrar"), [
    campo(t("correo"), "email", { type: "email", autocomplete: "username", required: true }),
    campo(t("clave"), "password", { type: "password", autocomplete: "current-password", required: true }),
    codigo,
  ], async ({ email, password, codigo: dicho }) => {
    try {
      await entra(email, password, dicho.trim());
    } catch (problema) {
      if (problema.codigo.startsWith("totp_")) {
        codigo.hidden = false;
        codigo.querySelector("input").focus();
      }
      throw problema;
    }
  });
  return puerta(t("entrar_titulo"), [
    motivo && h("p", { class: "aviso", role: "status" }, motivo),
    form,
    h("p", { class: "pie" }, t("primera_vez"), " ", h("a", { href: "#/registro" }, t("registrar_empresa"))),
  ]);
}

// The registration of an empresa, which a new installation takes once. What is wrong with a field is said beside it.
export function vistaRegistro() {
  const form = formulario(t("registrar"), [
    h("h2", null, t("empresa")),
    campo(t("razon_social"), "empresa.razon_social", { autocomplete: "organization" }),
    campo(t("ruc"), "empresa.ruc", { inputmode: "numeric", ayuda: t("ruc_ayuda") }),
    h("h2", null, t("administrador")),
    campo(t("nombre"), "nombre", { autocomplete: "given-name" }),
    campo(t("apellido"), "apellido", { autocomplete: "family-name" }),
    campo(t("correo"), "email", { type: "email", autocomplete: "username" }),
    campo(t("clave"), "password", { type: "password", autocomplete: "new-password", ayuda: t("clave_ayuda") }),
  ], async (dicho) => {
    const { email, password, nombre, apellido } = dicho;
    const empresa = { ruc: dicho["empresa.ruc"].trim(), razon_social: dicho["empresa.razon_social"] };
    await pide("POST", "/auth/register", { cuerpo: { email, password, nombre, apellido, empresa }, publica: true });
    await entra(email, password);
  });
  return puerta(t("registro_titulo"), [
    h("p", null, t("registro_texto")),
    form,
    h("p", { class: "pie" }, h("a", { href: "#/" }, t("volver_entrar"))),
  ]);
}

function puerta(titulo, contenido) {
  const marca = h("p", { class: "marca" }, h("img", { src: "/consola/icono.svg", alt: "", width: 40, height: 40 }), "Alertrace");
  return { titulo, nodo: h("div", { class: "puerta" }, marca, h("h1", { tabindex: -1 }, titulo), contenido), termina() {} };
}
