"""What goes by mail, with supabase_auth (PyPI): supabase_auth_mail.py URL ANON SERVICE. It says `link E-MAIL` for the
link of the next message, and reads it."""
import sys
from urllib.parse import parse_qs, urlsplit

from supabase_auth import SyncGoTrueClient
from supabase_auth.errors import AuthApiError

url, anon, service = sys.argv[1:]
PASSWORD = "una clave larga"


def client(key=anon):
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    return SyncGoTrueClient(url=f"{url}/auth/v1", headers=headers, auto_refresh_token=False, persist_session=False)


def refused(code, call, *args):
    try:
        call(*args)
    except AuthApiError as e:
        assert e.code == code, (e.code, e.message)
    else:
        raise AssertionError(f"{code} expected")


def token(email):
    print("link", email, flush=True)
    return parse_qs(urlsplit(sys.stdin.readline()).query)["token"][0]


def enter(email, password):
    entered = client()
    entered.sign_in_with_password({"email": email, "password": password})
    return entered


one = client()
made = one.sign_up({"email": "py-mail@x.pe", "password": PASSWORD})
assert made.session is None and made.user.email == "py-mail@x.pe"
refused("email_not_confirmed", enter, "py-mail@x.pe", PASSWORD)
confirm = token("py-mail@x.pe")
verified = one.verify_otp({"token_hash": confirm, "type": "email"})
assert verified.session and verified.user.id == made.user.id
refused("otp_expired", client().verify_otp, {"token_hash": confirm, "type": "email"})

admin = client(service).admin
admin.create_user({"email": "py-lost@x.pe", "password": PASSWORD, "email_confirm": True})
thief = enter("py-lost@x.pe", PASSWORD)
stolen = thief.get_session()
client().reset_password_for_email("py-lost@x.pe")
owner = client()
owner.verify_otp({"token_hash": token("py-lost@x.pe"), "type": "recovery"})
owner.update_user({"password": "otra clave larga"})
refused("bad_jwt", client().get_user, stolen.access_token)
refused("refresh_token_not_found", client().refresh_session, stolen.refresh_token)
assert owner.get_user().user.email == "py-lost@x.pe"
refused("invalid_credentials", enter, "py-lost@x.pe", PASSWORD)

# Each way to sign out ends what it says, and nothing else.
two, three = (enter("py-lost@x.pe", "otra clave larga") for _ in range(2))
last = three.get_session()
two.sign_out({"scope": "others"})
refused("bad_jwt", client().get_user, last.access_token)
kept = two.get_session()
assert two.get_user().user.email == "py-lost@x.pe"
two.sign_out({"scope": "local"})
refused("bad_jwt", client().get_user, kept.access_token)
