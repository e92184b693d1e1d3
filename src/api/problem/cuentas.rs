//! What goes wrong with accounts, as a problem.

use axum::http::StatusCode;

use super::{Outcome, Problem, Texto, provider};
use crate::identity::cuentas;

impl From<cuentas::Error> for Problem {
    fn from(e: cuentas::Error) -> Self {
        use cuentas::Error as E;
        let unauthorized =
            |code, es: &'static str, en: &'static str| Self::new(StatusCode::UNAUTHORIZED, code, es, en);
        match e {
            E::Credenciales => unauthorized(
                "invalid_credentials",
                "Correo o contraseña incorrectos.",
                "Wrong e-mail or password.",
            ),
            E::TokenInvalido => {
                unauthorized("invalid_token", "El token no es válido.", "The token is not valid.")
            }
            E::TokenCaducado => {
                unauthorized("token_expired", "El token ha caducado.", "The token has expired.")
            }
            E::Inactivo => {
                unauthorized("account_inactive", "La cuenta está desactivada.", "The account is deactivated.")
            }
            e @ (E::SinPerfil
            | E::SinConfirmar
            | E::CodigoInvalido
            | E::DatosInvalidos(_)
            | E::ProveedorAusente(_)
            | E::ProveedorRoto
            | E::ProveedorAjeno
            | E::SinCorreo
            | E::SesionesAlli
            | E::TotpRequerido
            | E::TotpIncorrecto
            | E::TotpActivo
            | E::SinTotp
            | E::TotpAlli
            | E::ClaveComun
            | E::MismaClave
            | E::Demasiadas(_)) => provider::problem(&e),
            E::RegistroCerrado => Self::new(
                StatusCode::FORBIDDEN,
                "registration_closed",
                "El registro está cerrado; pida una invitación.",
                "Registration is closed; ask for an invitation.",
            ),
            E::InvitacionNecesaria => Self::new(
                StatusCode::FORBIDDEN,
                "invitation_required",
                "El registro es por invitación; pida un código a su administrador.",
                "Registration is by invitation; ask your administrator for a code.",
            ),
            E::DemasiadasInvitaciones => Self::new(
                StatusCode::CONFLICT,
                "too_many_invitations",
                "Hay demasiadas invitaciones sin usar; revoque algunas o espere a que caduquen.",
                "Too many invitations are unused; revoke some or wait until they expire.",
            ),
            E::YaEnEmpresa => Self::new(
                StatusCode::CONFLICT,
                "already_member",
                "Su cuenta ya pertenece a una empresa.",
                "Your account belongs to an empresa already.",
            ),
            E::InvitacionInvalida => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_invitation",
                "El código de invitación no es válido.",
                "The invitation code is not valid.",
            )
            .with_fields(vec![(
                "codigo_invitacion".to_owned(),
                Texto::new(
                    "No existe, se usó ya o caducó.",
                    "It does not exist, has been used or has expired.",
                ),
            )]),
            E::EnUso(campo) => {
                let code = match campo {
                    "ruc" => "ruc_in_use",
                    "dni" => "dni_in_use",
                    _ => "email_in_use",
                };
                let texto = Texto::new("Ya está registrado.", "It is registered already.");
                Self::new(StatusCode::CONFLICT, code, "Ya está registrado.", "It is registered already.")
                    .with_fields(vec![(campo.to_owned(), texto)])
            }
            E::ClaveDebil => {
                let (es, en) = (
                    "La contraseña necesita al menos 10 caracteres y como máximo 256 bytes.",
                    "The password needs at least 10 characters and at most 256 bytes.",
                );
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "weak_password", es, en)
                    .with_fields(vec![("password".to_owned(), Texto::new(es, en))])
            }
            E::Saturado => Self::unavailable(
                "busy",
                "Demasiados inicios de sesión a la vez; reintente en unos segundos.",
                "Too many sign-ins at once; try again in a few seconds.",
            )
            .with_outcome(Outcome::Untouched),
            E::Store(e) => e.into(),
            E::Interno(e) => Self::internal(&e),
        }
    }
}
