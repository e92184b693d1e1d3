//! The shapes that registration and sign-in take, for the document: what is read is more forgiving (see
//! [`Register`](super::Register)), since a form sends every field that it has.

use utoipa::ToSchema;

use crate::api::openapi::any_of;

/// The one user type of a shape.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the document's")]
enum SoloEmpresa {
    Empresa,
}

/// The one user type of a shape.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the document's")]
enum SoloTrabajador {
    Trabajador,
}

/// An empresa and its administrator. A blank optional field is an absent one.
#[derive(ToSchema)]
#[schema(as = RegistroEmpresa, example = json!({ "email": "ana@fundo.pe", "password": "una clave larga", "nombre": "Ana",
    "apellido": "Paz", "dni": "12345678",
    "empresa": { "ruc": "20123456789", "razon_social": "Fundo Norte", "email": "fundo@fundo.pe" } }))]
#[expect(dead_code, reason = "the document's")]
struct Nested {
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// At least ten characters, and not one that many people have.
    #[schema(min_length = 10, max_length = 256)]
    password: String,
    #[schema(inline)]
    user_type: Option<SoloEmpresa>,
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    nombre: String,
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    apellido: Option<String>,
    /// Eight digits.
    #[schema(pattern = r"^([0-9]{8}|\s*)$")]
    dni: Option<String>,
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    telefono: Option<String>,
    empresa: super::RegisterEmpresa,
}

/// An empresa and its administrator, without a name of a person.
#[derive(ToSchema)]
#[schema(as = RegistroEmpresaPlano, example = json!({ "email": "ana@fundo.pe", "password": "una clave larga",
    "user_type": "empresa", "nombre_empresa": "Fundo Norte", "ruc": "20123456789" }))]
#[expect(dead_code, reason = "the document's")]
struct Flat {
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// At least ten characters, and not one that many people have.
    #[schema(min_length = 10, max_length = 256)]
    password: String,
    #[schema(inline)]
    user_type: SoloEmpresa,
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    nombre_empresa: String,
    /// Eleven digits.
    #[schema(pattern = "^[0-9]{11}$")]
    ruc: String,
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    telefono: Option<String>,
}

/// A person: of an empresa with the code of an invitation, of none without.
#[derive(ToSchema)]
#[schema(as = RegistroTrabajador, example = json!({ "email": "luz@fundo.pe", "password": "una clave larga",
    "user_type": "trabajador", "nombres": "Luz", "apellidos": "Rey", "dni": "87654321", "telefono": "999888777" }))]
#[expect(dead_code, reason = "the document's")]
struct Person {
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// At least ten characters, and not one that many people have.
    #[schema(min_length = 10, max_length = 256)]
    password: String,
    #[schema(inline)]
    user_type: SoloTrabajador,
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    nombres: String,
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00]*\S[^\x00]*$")]
    apellidos: String,
    /// Eight digits.
    #[schema(pattern = r"^([0-9]{8}|\s*)$")]
    dni: Option<String>,
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    telefono: Option<String>,
    codigo_invitacion: Option<String>,
}

/// Who signs in, by e-mail. Other fields that a front end sends are passed over.
#[derive(ToSchema)]
#[schema(as = EntradaEmail, example = json!({ "email": "ana@fundo.pe", "password": "una clave larga" }))]
#[expect(dead_code, reason = "the document's")]
struct ByEmail {
    #[schema(pattern = r"^[^\x00]*\S[^\x00]*$")]
    email: String,
    password: String,
    /// The code of the second factor, or a recovery code, where the account has one.
    codigo: Option<String>,
    /// As `codigo`: where Swagger UI's Authorize has room for it (its client credentials in the request body).
    client_secret: Option<String>,
}

/// The same, as OAuth 2 names it.
#[derive(ToSchema)]
#[schema(as = EntradaUsername, example = json!({ "username": "ana@fundo.pe", "password": "una clave larga" }))]
#[expect(dead_code, reason = "the document's")]
struct ByUsername {
    /// The e-mail.
    #[schema(pattern = r"^[^\x00]*\S[^\x00]*$")]
    username: String,
    password: String,
    /// The code of the second factor, or a recovery code, where the account has one.
    codigo: Option<String>,
    /// As `codigo`: where Swagger UI's Authorize has room for it (its client credentials in the request body).
    client_secret: Option<String>,
}

any_of!(pub(in super::super) AnyRegister, "Register", Nested, Flat, Person);
any_of!(pub(in super::super) AnyLogin, "Login", ByEmail, ByUsername);
