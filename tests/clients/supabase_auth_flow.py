"""supabase_auth (PyPI) against a server that speaks its dialect: supabase_auth_flow.py URL ANON SERVICE"""
import sys

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


one = client()
made = one.sign_up({"email": "py@x.pe", "password": PASSWORD, "options": {"data": {"nombre": "Ana"}}})
assert made.session and made.user.user_metadata["nombre"] == "Ana"
refused("user_already_exists", client().sign_up, {"email": "py@x.pe", "password": PASSWORD})
refused("invalid_credentials", client().sign_in_with_password, {"email": "py@x.pe", "password": "another one"})
two = client()
session = two.sign_in_with_password({"email": "py@x.pe", "password": PASSWORD}).session
assert two.get_user(session.access_token).user.id == made.user.id
after = two.refresh_session(session.refresh_token).session
assert after.refresh_token != session.refresh_token
assert two.update_user({"data": {"telefono": "1"}}).user.user_metadata == {"nombre": "Ana", "telefono": "1"}
two.sign_out()
refused("refresh_token_not_found", client().refresh_session, after.refresh_token)

admin = client(service).admin
person = admin.create_user({"email": "hecha-py@x.pe", "password": PASSWORD, "email_confirm": True}).user
assert any(u.id == person.id for u in admin.list_users())
assert admin.update_user_by_id(person.id, {"user_metadata": {"a": 1}}).user.user_metadata == {"a": 1}
admin.delete_user(person.id)
refused("user_not_found", admin.get_user_by_id, person.id)
refused("not_admin", client().admin.list_users)
