//! What goes wrong with whoever keeps the passwords, as a problem.

use axum::http::StatusCode;

use super::{Problem, Texto};
use crate::api::rates;
use crate::identity::cuentas::Error as E;

/// The problem of an error that comes from the identity provider, or from what it asks of people.
pub(super) fn problem(e: &E) -> Problem {
    match e {
        E::SinPerfil => Problem::new(
            StatusCode::FORBIDDEN,
            "perfil_incompleto",
            "La cuenta existe, pero no tiene perfil aquí; regístrese con el mismo correo y contraseña.",
            "The account exists, but has no profile here; register with the same e-mail and password.",
        ),
        E::SinConfirmar => Problem::new(
            StatusCode::UNAUTHORIZED,
            "email_not_confirmed",
            "Confirme antes su correo con el enlace que se le envió.",
            "Confirm your e-mail first, by the link that was sent to you.",
        ),
        E::CodigoInvalido => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_code",
            "El enlace no es válido, se usó ya o caducó; pida otro.",
            "The link is not valid, has been used or has expired; ask for another.",
        ),
        E::DatosInvalidos(campo) => Problem::field(
            campo,
            "El servicio de identidad no admite este valor.",
            "The identity provider does not take this value.",
        ),
        E::ProveedorAusente(espera) => Problem::unavailable(
            "identity_unavailable",
            "El servicio de identidad no responde; reintente en unos segundos.",
            "The identity provider does not answer; try again in a few seconds.",
        )
        .with_retry_after(u32::try_from(espera.as_secs()).unwrap_or(u32::MAX).max(1)),
        E::ProveedorRoto => Problem::new(
            StatusCode::BAD_GATEWAY,
            "identity_failed",
            "El servicio de identidad falló; quedó registrado.",
            "The identity provider failed; it has been logged.",
        ),
        E::ProveedorAjeno => Problem::new(
            StatusCode::BAD_GATEWAY,
            "identity_untrusted",
            "No se puede confiar en el certificado del servicio de identidad; quedó registrado.",
            "The identity provider's certificate cannot be trusted; it has been logged.",
        ),
        E::SinCorreo => Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "mail_not_configured",
            "Este servidor no envía correos; pida ayuda a su administrador.",
            "This server sends no mail; ask your administrator for help.",
        ),
        E::SesionesAlli => Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "sessions_not_listed",
            "El servicio de identidad no muestra las sesiones abiertas.",
            "The identity provider does not show open sessions.",
        ),
        E::TotpRequerido => Problem::new(
            StatusCode::UNAUTHORIZED,
            "totp_requerido",
            "La cuenta tiene verificación en dos pasos: envíe también el código de su aplicación en «codigo».",
            "The account has two-step verification: send the code of your app too, in \"codigo\".",
        ),
        E::TotpIncorrecto => Problem::new(
            StatusCode::UNAUTHORIZED,
            "totp_incorrecto",
            "El código de verificación no es correcto o ya se usó; espere el siguiente.",
            "The verification code is wrong or has been used; wait for the next.",
        ),
        E::TotpActivo => Problem::new(
            StatusCode::CONFLICT,
            "totp_activo",
            "La cuenta ya tiene verificación en dos pasos; quítela antes.",
            "The account has two-step verification already; take it away first.",
        ),
        E::SinTotp => Problem::new(
            StatusCode::CONFLICT,
            "sin_totp",
            "La cuenta no tiene una verificación en dos pasos con la que hacer esto.",
            "The account has no two-step verification to do this with.",
        ),
        E::TotpAlli => Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "totp_del_proveedor",
            "Las cuentas son de Supabase: use la verificación en dos pasos (MFA) de Supabase.",
            "The accounts are Supabase's: use the multi-factor authentication (MFA) of Supabase.",
        ),
        E::ClaveComun => password(
            "weak_password",
            "Muchas personas usan esta contraseña; elija otra.",
            "Many people have this password; choose another.",
        ),
        E::MismaClave => password(
            "same_password",
            "Es la contraseña que ya tenía; elija otra.",
            "It is the password of before; choose another.",
        ),
        E::Demasiadas(espera) => rates::too_many(*espera),
        e => Problem::internal(e),
    }
}

/// A password that cannot be taken.
fn password(code: &'static str, es: &'static str, en: &'static str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, es, en)
        .with_fields(vec![("password".to_owned(), Texto::new(es, en))])
}
