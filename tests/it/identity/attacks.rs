//! Tokens that somebody made up: each is refused, whatever the server is set up to believe.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::double::{Double, Key};
use super::{beside, login, me};
use crate::support::Server;
use crate::support::server::{EMAIL, PASSWORD};

const SHARED: &str = "shared-secret-of-thirty-two-bytes!";

fn encode(header: &Header, claims: &Value, key: &[u8]) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(key)).expect("a token")
}

/// A token of any header, with a signature of any bytes.
fn raw(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn no_forged_token_is_believed() {
    let ec = Key::new("ec", Algorithm::ES256);
    let rsa = Key::new("rsa", Algorithm::RS256);
    let double = Double::start_with(ec.clone());
    double.publish(rsa.public.clone());
    // A shared secret that somebody published by mistake, and a key that is too small to be one.
    double.publish(json!({ "kty": "oct", "kid": "oct", "k": URL_SAFE_NO_PAD.encode("published") }));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut place = beside(&dir, &double);
    place.push(("SUPABASE_JWT_SECRET", SHARED.to_owned()));
    let server = Server::start_in(dir, place, |command| command).await;
    let (_, session) = login(&server, EMAIL, PASSWORD).await;
    let user_id = session["user_id"].as_str().expect("text");
    let good = double.claims(user_id);
    let with = |change: &Value| {
        let mut claims = good.clone();
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(name);
        claims
    };
    let hs = |kid: Option<&str>| Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
    let now = good["iat"].as_i64().expect("seconds");
    let own = Key::new("ec", Algorithm::ES256);
    let signed = ec.sign(&good);
    let (head, rest) = signed.split_once('.').expect("dots");
    let public_pem = format!("{}", ec.public);

    for believed in [
        ec.sign(&good),
        rsa.sign(&good),
        encode(&hs(None), &good, SHARED.as_bytes()),
        ec.sign(&with(&json!({ "exp": now - 20 }))),
        ec.sign(&with(&json!({ "aud": ["authenticated", "other"] }))),
    ] {
        assert_eq!(me(&server, &believed).await.0, 200, "so that the rest is refused for what it is");
    }
    let table: Vec<(&str, String)> = vec![
        ("alg none", raw(&json!({ "alg": "none", "typ": "JWT" }), &good, b"")),
        ("alg None", raw(&json!({ "alg": "None", "kid": "ec" }), &good, b"")),
        ("alg none with a signature", raw(&json!({ "alg": "none", "kid": "ec" }), &good, b"x")),
        ("no alg", raw(&json!({ "kid": "ec" }), &good, b"x")),
        ("an empty signature", format!("{head}.{}.", rest.split('.').next().expect("claims"))),
        ("no signature at all", signed.rsplit_once('.').expect("dots").0.to_owned()),
        ("a cut signature", signed[..signed.len() - 3].to_owned()),
        ("other claims under a good signature", {
            let signature = signed.rsplit_once('.').expect("dots").1;
            let claims = URL_SAFE_NO_PAD.encode(with(&json!({ "sub": "someone else" })).to_string());
            format!("{head}.{claims}.{signature}")
        }),
        ("HS256 with the public key as secret", encode(&hs(Some("ec")), &good, public_pem.as_bytes())),
        ("HS256 with the public point as secret", {
            let x = URL_SAFE_NO_PAD.decode(ec.public["x"].as_str().expect("x")).expect("base64");
            encode(&hs(Some("ec")), &good, &x)
        }),
        ("HS256 with the RSA modulus as secret", {
            encode(&hs(Some("rsa")), &good, rsa.public["n"].as_str().expect("n").as_bytes())
        }),
        ("HS256 with an empty secret", encode(&hs(None), &good, b"")),
        (
            "HS256 with a guessed secret",
            encode(&hs(None), &good, b"super-secret-jwt-token-with-at-least-32-characters-long"),
        ),
        ("HS512 with the shared secret", encode(&Header::new(Algorithm::HS512), &good, SHARED.as_bytes())),
        ("a shared secret that is published", encode(&hs(Some("oct")), &good, b"published")),
        ("another key under a known name", own.sign(&good)),
        ("an RSA signature under the EC key's name", Key { kid: "ec".to_owned(), ..rsa.clone() }.sign(&good)),
        ("an EC signature under the RSA key's name", Key { kid: "rsa".to_owned(), ..ec.clone() }.sign(&good)),
        ("a name that nobody has", Key { kid: "../../etc/passwd".to_owned(), ..ec.clone() }.sign(&good)),
        ("no name", {
            jsonwebtoken::encode(&Header::new(Algorithm::ES256), &good, &ec.secret).expect("a token")
        }),
        ("a key that the token brings along", {
            let jwk = serde_json::from_value(own.public.clone()).expect("a key");
            let header =
                Header { jwk: Some(jwk), kid: Some("mine".to_owned()), ..Header::new(Algorithm::ES256) };
            jsonwebtoken::encode(&header, &good, &own.secret).expect("a token")
        }),
        ("an address of keys that the token brings along", {
            let jku = Some("https://evil.example/jwks.json".to_owned());
            let header = Header { jku, kid: Some("ec".to_owned()), ..Header::new(Algorithm::ES256) };
            jsonwebtoken::encode(&header, &good, &own.secret).expect("a token")
        }),
        ("a critical header", {
            let header = Header {
                kid: Some("ec".to_owned()),
                crit: Some(vec!["exp".to_owned()]),
                ..Header::new(Algorithm::ES256)
            };
            jsonwebtoken::encode(&header, &good, &ec.secret).expect("a token")
        }),
        ("expired", ec.sign(&with(&json!({ "exp": now - 60 })))),
        ("expired long ago", ec.sign(&with(&json!({ "exp": i64::MIN })))),
        ("not yet", ec.sign(&with(&json!({ "nbf": now + 120 })))),
        ("issued tomorrow", ec.sign(&with(&json!({ "iat": now + 86_400 })))),
        ("without an end", ec.sign(&without("exp"))),
        ("an end that is text", ec.sign(&with(&json!({ "exp": "never" })))),
        ("of nobody", ec.sign(&without("sub"))),
        ("of a number", ec.sign(&with(&json!({ "sub": 7 })))),
        ("by nobody", ec.sign(&without("iss"))),
        ("by somebody else", ec.sign(&with(&json!({ "iss": "https://evil.example/auth/v1" })))),
        ("by us", ec.sign(&with(&json!({ "iss": "alertrace" })))),
        ("to nobody", ec.sign(&without("aud"))),
        ("to somebody else", ec.sign(&with(&json!({ "aud": "anon" })))),
        (
            "the anon key",
            encode(
                &hs(None),
                &json!({ "iss": "supabase", "role": "anon", "exp": now + 9_999 }),
                SHARED.as_bytes(),
            ),
        ),
        (
            "the service-role key",
            encode(
                &hs(None),
                &json!({ "iss": "supabase", "role": "service_role", "exp": now + 9_999 }),
                SHARED.as_bytes(),
            ),
        ),
        ("no JSON", "a.b.c".to_owned()),
        ("dots", "...".to_owned()),
        ("a list", raw(&json!(["alg", "ES256"]), &good, b"x")),
        ("long", "x".repeat(16_000)),
    ];
    for (what, token) in table {
        let (status, said) = me(&server, &token).await;
        assert_eq!(status, 401, "{what}: {said}");
        assert!(
            ["invalid_token", "token_expired", "unauthorized"]
                .contains(&said["code"].as_str().unwrap_or_default()),
            "{what}: {said}"
        );
    }
}
